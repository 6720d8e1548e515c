"""Some neurons of a site: what is collected of them, under which numbers, and what comes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, in_process
from example_corpus import first_documents
from fake_subject import SITE, FakeSubject, collect_from, table_lookup, write_documents
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer import workspace
from neuron_explainer.collect import parts
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import ConfigError, RunMismatch, SubjectError
from neuron_explainer.neuron_list import neuron_text, parse_neurons
from neuron_explainer.record_set import RecordSet
from neuron_explainer.store import Shard

NEURONS = [0, 1, 2, 7, 599, 600]
LISTED = "0-2,7,599-600"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one of random tokens."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 50, 10) for _ in range(60)]
    return write_documents(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", documents)


@pytest.fixture(scope="module")
def subject() -> FakeSubject:
    """601 neurons: two shards when all are collected."""
    values = np.random.default_rng(1).normal(size=(50, 601)).astype(np.float32)
    return FakeSubject({SITE: table_lookup(values)})


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, subject: FakeSubject
) -> RecordSet:
    """All neurons."""
    return collect_from(tmp_path_factory.mktemp("whole"), corpus, subject)[1]


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory, corpus: Path, subject: FakeSubject) -> RecordSet:
    """The chosen ones."""
    given = {"neurons": "599,0-2,600,7"}
    return collect_from(tmp_path_factory.mktemp("some"), corpus, subject, **given)[1]


@given(st.sets(st.integers(0, 60), min_size=1))
def test_a_list_of_neurons_is_read_as_it_was_written(neurons: set[int]) -> None:
    assert parse_neurons(neuron_text(sorted(neurons)), 61) == sorted(neurons)


def test_neurons_keep_the_sites_own_numbers(whole: RecordSet, some: RecordSet) -> None:
    assert some.width == 601
    assert some.neurons == NEURONS
    assert whole.neurons == list(range(601))
    assert some.folder.manifest()["config"]["neurons"] == LISTED
    assert [file for _, file in some.folder.shards("records")] == ["records-00000-00600.parquet"]
    for table in ("records", "neurons", "tokens"):
        rows = some.folder.read_all(table)
        assert sorted(set(rows["neuron"].to_pylist())) == NEURONS
        assert rows.schema == whole.folder.read_all(table).schema


def test_top_records_and_statistics_are_those_of_a_collection_of_all(
    whole: RecordSet, some: RecordSet
) -> None:
    for index in NEURONS:
        one, other = some.neuron(index), whole.neuron(index)
        assert one.neuron.index == index
        assert [
            (record.sequence, record.activations.tolist()) for record in one.of_kind("top")
        ] == [(record.sequence, record.activations.tolist()) for record in other.of_kind("top")]
        assert one.statistics is not None
        assert other.statistics is not None
        assert one.statistics.maximum == other.statistics.maximum
        assert one.statistics.histogram.tolist() == other.statistics.histogram.tolist()
        assert len(one.of_kind("random")) == len(other.of_kind("random"))


def test_neurons_that_were_not_collected_have_no_rows(some: RecordSet) -> None:
    found = list(some.shard(Shard(0, 9)))
    assert [neuron.neuron.index for neuron in found if neuron.records] == [0, 1, 2, 7]
    with pytest.raises(SubjectError, match=r"holds the neurons 0-2,7,599-600, not 3: choose among"):
        some.neuron(3)
    with pytest.raises(SubjectError, match="not 8: choose"):
        some.chosen("7-8")
    assert some.chosen("7,599") == [7, 599]


@pytest.mark.parametrize("other", [None, "0-2", "0-600"])
def test_other_neurons_of_the_same_site_are_refused(
    corpus: Path, subject: FakeSubject, some: RecordSet, other: str | None
) -> None:
    before = some.folder.digest()
    asked = "all neurons" if other is None else f"the neurons {other}"
    with pytest.raises(RunMismatch, match=f"of the neurons {LISTED}, not of {asked}: collect"):
        collect_from(some.data, corpus, subject, neurons=other)
    assert some.folder.digest() == before
    again, _ = collect_from(some.data, corpus, subject, neurons="0,1,2,7,599-600")
    assert again.skipped == (SITE,)


def test_a_neuron_that_the_site_does_not_have_is_refused(
    tmp_path: Path, corpus: Path, subject: FakeSubject
) -> None:
    with pytest.raises(ConfigError, match="there is no neuron 601: the site has 0 to 600"):
        collect_from(tmp_path, corpus, subject, neurons="7,601")
    assert not list(tmp_path.rglob("*.parquet"))


def test_parts_of_some_neurons_merge(
    tmp_path: Path, corpus: Path, subject: FakeSubject, some: RecordSet
) -> None:
    settings = CollectSettings(
        corpus=str(corpus), sites=(SITE,), excerpt_tokens=8, minimum_tokens=2, neurons=LISTED
    )
    for number in (1, 2):
        part = parts.Part(number, 2)
        parts.collect_part(tmp_path, SubjectSettings("fake"), settings, part, subject=subject)
    merged = parts.merge(tmp_path, "fake")
    assert merged.widths == {SITE: 6}
    together = RecordSet(tmp_path, "fake", SITE)
    assert together.neurons == NEURONS
    assert together.width == 601
    assert together.folder.read_all("records").equals(some.folder.read_all("records"))


def _run(command: Command, *arguments: Any) -> dict[str, Any]:
    return dict(command(*arguments, "--json").json())


def test_every_later_stage_works_with_some_neurons(
    command: Command, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.init(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.jsonl").write_bytes(first_documents(tiny, 15))
    collect = ["collect", "--subject", tiny / "model", "--name", "tiny", "--corpus", "small.jsonl"]
    sites: dict[str, list[Any]] = {
        "blocks.0.mlp.hook_post": ["--layer", "0"],
        "blocks.0.mlp.hook_post.negative": ["--layer", "0", "--sign", "negative"],
        "blocks.2.hook_resid_post/topk": [
            *("--sae", tiny / "sae" / "blocks.2.hook_resid_post.pt"),
            *("--site", "blocks.2.hook_resid_post"),
        ],
    }
    for options in sites.values():
        _run(command, *collect, *options, "--neurons", "1,3-4,500")
    (latents,) = (tmp_path / "data" / "tiny").glob("blocks.2.hook_resid_post/*")
    named = [*list(sites)[:2], f"blocks.2.hook_resid_post/{latents.name}"]
    _run(command, "explain")
    _run(command, "simulate", "tiny-token-lookup")
    _run(command, "score", "tiny-token-lookup")
    for site in named:
        shown = _run(command, "show", f"tiny/{site}/500")
        assert shown["neuron"] == f"tiny/{site}/500"
        assert shown["explanations"]
        rows = RecordSet(tmp_path / "data", "tiny", site)
        assert rows.neurons == [1, 3, 4, 500]
    refused = command("show", f"tiny/{named[0]}/2")
    assert refused.code == 2
    assert "holds the neurons 1,3-4,500, not 2" in refused.err
    published = ["publish", "tiny-token-lookup", "--to", "out", "--license", "cc0-1.0", "--partial"]
    assert command(*published).code == 0
    about = ["--model-id", "m", "--site", named[0], "--source", "0-mlp-neurons-acme"]
    export = ["export", "neuronpedia", "tiny-token-lookup", *about, "--to", "np", "--all-neurons"]
    exported = _run(command, *export)
    assert exported["features"] == 4


def test_some_heads_are_collected_alone(
    command: Command, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.init(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.jsonl").write_bytes(first_documents(tiny, 10))
    site = "blocks.1.attn.hook_pattern"
    collect = ["collect", "--subject", tiny / "model", "--corpus", "small.jsonl", "--site", site]
    _run(command, *collect, "--name", "some", "--neurons", "1,3")
    _run(command, *collect, "--name", "all")
    some, whole = (RecordSet(tmp_path / "data", name, site) for name in ("some", "all"))
    assert some.neurons == [1, 3]
    for head in (1, 3):
        one, other = (found.neuron(head).of_kind("top") for found in (some, whole))
        assert [(record.sequence, record.pair) for record in one] == [
            (record.sequence, record.pair) for record in other
        ]
