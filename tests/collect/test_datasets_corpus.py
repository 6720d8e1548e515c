"""Corpora that `datasets` reads: saved folders, folders with splits, and the hub, streamed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_subject import SITE, FakeSubject, collect_from, table_lookup, words
from hub_stand_in import Repository, StandIn, serving

from neuron_explainer.collect.datasets_corpus import DatasetSource
from neuron_explainer.collect.shuffle import Shuffle
from neuron_explainer.collect.sources import source_of
from neuron_explainer.config import CollectSettings
from neuron_explainer.errors import CorpusError, RunMismatch, UserError

TEXTS = [f"text {number}" for number in range(300)]
NAME = "acme/stories"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `save_to_disk` leaves: two splits, a blank text among the first."""
    folder = tmp_path_factory.mktemp("saved") / "dataset"
    train = datasets.Dataset.from_dict({"text": [*TEXTS, " "], "number": [1] * 301})
    both = datasets.DatasetDict(train=train, test=train.select(range(10)))
    datasets.disable_progress_bars()
    both.save_to_disk(str(folder))
    return folder


def _source(corpus: Path | str, **settings: Any) -> Any:
    return source_of(CollectSettings(corpus=str(corpus), **settings))


def test_a_saved_dataset_is_read_split_by_split(saved: Path) -> None:
    assert list(_source(saved).documents()) == TEXTS
    assert list(_source(saved, corpus_split="test").documents()) == TEXTS[:10]
    assert list(_source(saved / "train").documents()) == TEXTS


def test_a_saved_dataset_is_shuffled_through_and_through(saved: Path, tmp_path: Path) -> None:
    shuffled = list(_source(saved).documents(Shuffle(3, tmp_path)))
    assert shuffled != TEXTS
    assert sorted(shuffled) == sorted(TEXTS)
    assert shuffled == list(_source(saved).documents(Shuffle(3, tmp_path)))


def test_a_folder_is_known_by_its_contents_and_split(saved: Path, tmp_path: Path) -> None:
    here = _source(saved).identity({})
    assert here == _source(saved).identity({"corpus": "another"})
    assert here != _source(saved, corpus_split="test").identity({})
    assert here["corpus"] != _source(saved / "test").identity({})["corpus"]


def test_a_folder_of_files_is_read_by_datasets_where_a_split_is_named(tmp_path: Path) -> None:
    for split, texts in {"train": TEXTS[:20], "validation": TEXTS[20:30]}.items():
        pq.write_table(pa.table({"text": texts}), tmp_path / f"{split}-00000.parquet")
    assert list(_source(tmp_path, corpus_split="validation").documents()) == TEXTS[20:30]
    assert list(_source(tmp_path).documents()) == TEXTS[:30]  # all files, by our own reader


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corpus_split": "valid"}, r"has no split 'valid' but train, test: name one with"),
        ({"text_field": "body"}, r"has no column 'body' but text, number; name one with"),
        ({"text_field": "number"}, r"column 'number' holds int, not text; name another"),
    ],
)
def test_what_a_dataset_does_not_have_is_named(
    saved: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        list(_source(saved, **settings).documents())


def test_what_datasets_says_becomes_one_line(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"no Parquet")
    with pytest.raises(
        CorpusError, match=r"cannot be read as a dataset \(.+\); see --corpus-con"
    ) as e:
        list(_source(tmp_path, corpus_split="train").documents())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "corpus", ["nowhere", "no/where/at/all", "no/file.jsonl", "no/file.txt.gz"]
)
def test_what_is_no_hub_id_is_a_missing_file(corpus: str) -> None:
    with pytest.raises(CorpusError, match=rf"no corpus at {corpus}: name a file or a folder that"):
        _source(corpus).check()


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("text", "utf-8")
    with pytest.raises(CorpusError, match="is a file: --corpus-config and --corpus-split are for"):
        _source(path, corpus_split="train")


def test_a_stored_revision_stands_unless_another_is_asked_for() -> None:
    known = {"corpus": f"hub:{NAME}", "revision": "a" * 40}
    about = {"dataset_config": None, "dataset_split": "train", "text_field": "text"}
    for asked in (NAME, f"{NAME}@{'a' * 40}"):
        assert DatasetSource(asked).identity(known) == {**known, **about}


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    """A hub on loopback with one dataset of two files."""
    with serving() as stand_in:
        files = {}
        for place in range(2):
            sink = pa.BufferOutputStream()
            rows = {"text": TEXTS[150 * place : 150 * (place + 1)], "number": [0] * 150}
            pq.write_table(pa.table(rows), sink)
            files[f"data/train-{place:05d}-of-00002.parquet"] = sink.getvalue().to_pybytes()
        stand_in.repositories[NAME] = Repository(False, files)
        yield stand_in


_READ = """
import sys, datasets, orjson
datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1  # for pyarrow's sake, 5 s a stream
from pathlib import Path
from neuron_explainer.collect.shuffle import Shuffle
from neuron_explainer.collect.sources import source_of
from neuron_explainer.config import CollectSettings
from neuron_explainer.errors import CorpusError
made = []
for asked in orjson.loads(sys.argv[1]):
    seed = asked.pop("seed", None)
    source = source_of(CollectSettings(**asked))
    shuffle = None if seed is None else Shuffle(seed, Path())
    try:
        source.check()
        identity = source.identity({})
        made.append([identity, list(source.documents(shuffle, identity))])
    except CorpusError as error:
        made.append(str(error))
print(orjson.dumps(made).decode())
"""


def _read(endpoint: str, home: Path, *asked: dict[str, Any]) -> list[Any]:
    """What a process reads whose hub is at `endpoint`: identity and texts, or an error."""
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _READ, orjson.dumps(asked).decode()],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    read: list[Any] = orjson.loads(done.stdout)
    return read


@pytest.mark.enable_socket
def test_a_dataset_of_the_hub_is_streamed_at_one_revision(hub: StandIn, tmp_path: Path) -> None:
    plain, shuffled, again, other, split, column, absent = _read(
        hub.url,
        tmp_path,
        {"corpus": NAME},
        {"corpus": NAME, "seed": 1},
        {"corpus": NAME, "seed": 1},
        {"corpus": NAME, "seed": 2},
        {"corpus": NAME, "corpus_split": "valid"},
        {"corpus": NAME, "text_field": "body"},
        {"corpus": "acme/nothing"},
    )
    identity, texts = plain
    assert texts == TEXTS
    assert identity["corpus"] == f"hub:{NAME}"
    assert len(identity["revision"]) == 40
    assert shuffled[1] != TEXTS
    assert sorted(shuffled[1]) == sorted(TEXTS)
    assert shuffled == again != other
    assert split.startswith(f"{NAME} cannot be read as a dataset (Bad split: valid")
    assert column.startswith(f"{NAME} has no column 'body' but text, number")
    assert absent.startswith("no corpus at acme/nothing: it is no file or folder here")
    assert "give a file or a folder" in absent


@pytest.mark.enable_socket
def test_a_hub_that_does_not_answer_is_said_so_at_once(tmp_path: Path) -> None:
    (said,) = _read("http://127.0.0.1:9", tmp_path, {"corpus": NAME})
    assert "http://127.0.0.1:9 cannot be reached" in said
    assert "give a file or a folder" in said


def _collected(tmp_path: Path, number: int, **settings: Any) -> list[tuple[int, ...]]:
    """The sequences that are stored of a corpus of several Parquet files of numbered documents."""
    corpus = tmp_path / "corpus"
    corpus.mkdir(exist_ok=True)
    for file in range(4):
        texts = [words([2 + 10 * file + place] * 8) for place in range(10)]
        pq.write_table(pa.table({"text": texts}), corpus / f"{file}.parquet")
    subject = FakeSubject({SITE: table_lookup(np.ones((50, 1), np.float32))})
    data = tmp_path / f"data-{number}"
    stored = collect_from(data, corpus, subject, **settings)[0].corpus
    return [tuple(stored.token_ids(place)[1:].tolist()) for place in range(len(stored))]


def test_several_files_are_shuffled_by_seed_and_cut_off(tmp_path: Path) -> None:
    whole = _collected(tmp_path, 0)
    assert whole == [(2 + place,) * 8 for place in range(40)]
    assert _collected(tmp_path, 1, documents=5) == whole[:5]
    assert _collected(tmp_path, 2, corpus_tokens=5 * 8 + 7) == whole[:5]
    shuffled = _collected(tmp_path, 3, shuffle=True, seed=4)
    assert shuffled != whole
    assert sorted(shuffled) == whole
    assert _collected(tmp_path, 4, shuffle=True, seed=4, documents=7) == shuffled[:7]
    assert _collected(tmp_path, 5, shuffle=True, seed=5) != shuffled


def test_another_choice_of_documents_is_another_corpus(tmp_path: Path) -> None:
    _collected(tmp_path, 0, documents=10)
    for other in ({"documents": 11}, {}, {"documents": 10, "shuffle": True}):
        with pytest.raises(RunMismatch, match=r"was made with (documents|shuffled) = "):
            _collected(tmp_path, 0, **other)
    assert len(_collected(tmp_path, 0, documents=10)) == 10


def test_too_small_a_choice_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gives 2 excerpts"):
        _collected(tmp_path, 0, documents=2)
    assert not list((tmp_path / "data-0").rglob("manifest.json"))
