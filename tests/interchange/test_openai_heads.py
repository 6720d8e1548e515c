"""Attention heads in OpenAI's record files: the flat index, files without loss, what is refused."""

import json
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import planted_head
import pyarrow as pa
import pytest
from commands import Command, in_process
from hypothesis import given
from hypothesis import strategies as st
from openai_objects import (
    FLOATS,
    HALVES,
    MAYBE,
    TOKENS,
    contents,
    neuron_record,
    tuples,
    whole_files,
)
from stand_in_server import Answer, StandIn, serving

from neuron_explainer import workspace
from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.head_pairs import flat_index, pair_at
from neuron_explainer.interchange import openai
from neuron_explainer.interchange.openai_download import root_of, sites_of
from neuron_explainer.interchange.openai_export import export_records
from neuron_explainer.interchange.openai_heads import ActivationRecord, NeuronRecord
from neuron_explainer.interchange.openai_import import import_explanations, import_records
from neuron_explainer.interchange.source import HEADS
from neuron_explainer.record_set import RecordSet
from neuron_explainer.workspace import Workspace

SITE = "blocks.3.attn.hook_pattern"
PUBLIC = "gpt2_small/attn_write_norm/collated-activations-by-token-pair"


def _triangle(count: int) -> int:
    return count * (count + 1) // 2


@st.composite
def _records(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> ActivationRecord:
    """Some tokens, none perhaps, and an activation for each pair of them."""
    tokens = draw(tuples(TOKENS, 4))
    pairs = _triangle(len(tokens))
    return ActivationRecord(tokens, tuple(draw(st.lists(numbers, min_size=pairs, max_size=pairs))))


@st.composite
def _heads(draw: st.DrawFn, layer: int, head: int) -> NeuronRecord:
    records = tuples(_records(draw(st.sampled_from([FLOATS, HALVES]))), 3)
    return NeuronRecord(
        openai.NeuronId(layer, head),
        draw(records),
        draw(st.none() | tuples(records, 3)),
        draw(st.none() | tuples(MAYBE, 5)),
        *draw(st.tuples(MAYBE, MAYBE, MAYBE, MAYBE)),
        draw(records),
    )


def _write(folder: Path, *heads: NeuronRecord) -> Path:
    for head in heads:
        path = folder / str(head.neuron_id.layer_index) / f"{head.neuron_id.neuron_index}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(openai.dumps(head))
    return folder


def _record(place: int, count: int = 5, strongest: int = 7) -> ActivationRecord:
    """A text whose strongest pair has the flat index `strongest`, with norm 20 - `place`."""
    values = np.linspace(0, 1, _triangle(count))
    values[strongest] = 20.0 - place
    return ActivationRecord(tuple(f" {place}-{at}" for at in range(count)), tuple(values.tolist()))


def _head(layer: int = 3, head: int = 2) -> NeuronRecord:
    return NeuronRecord(
        openai.NeuronId(layer, head),
        tuple(_record(place, count=9) for place in range(20, 40)),
        mean=0.25,
        most_positive_activation_records=tuple(map(_record, range(20))),
    )


@given(st.lists(st.integers(0, 2**25), min_size=1, max_size=20), st.data())
def test_the_flat_index_of_a_pair_gives_the_pair_back(
    queries: list[int], data: st.DataObject
) -> None:
    query = np.array(queries)
    key = np.array([data.draw(st.integers(0, at)) for at in queries])
    for found, given_ in zip(pair_at(flat_index(query, key)), (query, key), strict=True):
        np.testing.assert_array_equal(found, given_)


def test_pairs_are_numbered_row_by_row_without_a_gap() -> None:
    pairs = [(i, j) for i, j in product(range(40), repeat=2) if j <= i]
    assert [flat_index(i, j) for i, j in pairs] == list(range(_triangle(40)))


@whole_files
@given(st.tuples(_heads(3, 0), _heads(3, 600), _heads(11, 0)))
def test_heads_that_are_imported_are_exported_as_equal_json(
    heads: tuple[NeuronRecord, ...],
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        published = _write(root / "in", *heads)
        result = import_records(published, root / "data", "gpt2", sites=HEADS)
        assert (result.imported, result.failures, result.ignored) == (3, (), ())
        export_records(root / "data", "gpt2", root / "out")
        assert contents(root / "out/collated-activations") == contents(published)
        pairs = RecordSet(root / "data", "gpt2", SITE).folder.read_all("pairs")
        assert len(pairs) == sum(
            len(records)
            for head in heads[:2]
            for records in (
                head.most_positive_activation_records,
                head.random_sample,
                *(head.random_sample_by_quantile or ()),
            )
        )


def test_a_strong_text_is_kept_with_its_strongest_pair_and_a_random_one_with_any(
    tmp_path: Path,
) -> None:
    import_records(_write(tmp_path / "in", _head()), tmp_path, "gpt2", sites=HEADS)
    head = RecordSet(tmp_path, "gpt2", SITE).neuron(2)
    tops, randoms = head.of_kind("top"), head.of_kind("random")
    assert {record.pair for record in tops} == {(3, 1)}
    assert [record.maximum for record in tops] == [20.0 - place for place in range(20)]
    assert [record.split for record in tops[:4]] == ["train", "calibration", "valid", "test"]
    assert head.statistics is not None
    assert (head.statistics.maximum, head.statistics.mean) == (20.0, 0.25)
    drawn = {record.pair for record in randoms}
    assert len(drawn) > 10
    for record, published in zip(randoms, _head().random_sample, strict=True):
        assert record.pair is not None
        query, key = record.pair
        assert record.activations[query] == published.activations[flat_index(query, key)]
        assert np.count_nonzero(record.activations) <= 1
    import_records(_write(tmp_path / "in", _head()), tmp_path / "again", "gpt2", sites=HEADS)
    again = RecordSet(tmp_path / "again", "gpt2", SITE).neuron(2)
    assert [record.pair for record in again.records] == [record.pair for record in head.records]


def test_pairs_take_four_bytes_where_that_is_exact_in_all_shards(tmp_path: Path) -> None:
    for name, value in (("narrow", 0.5), ("wide", 0.1)):
        heads = [
            NeuronRecord(
                openai.NeuronId(3, at), (ActivationRecord(("a", "b"), (0.0, number, 1.0)),)
            )
            for at, number in ((0, 0.25), (600, value))
        ]
        import_records(_write(tmp_path / name, *heads), tmp_path, f"x-{name}", sites=HEADS)
        table = RecordSet(tmp_path, f"x-{name}", SITE).folder.read_all("pairs")
        expected = pa.float32() if name == "narrow" else pa.float64()
        assert table.schema.field("activations").type == pa.list_(expected)


@pytest.mark.parametrize(
    ("activations", "says"),
    [
        ([1.0, 2.0], "2 tokens have 3 pairs, but there are 2 activations"),
        ([1.0] * 4, "2 tokens have 3 pairs, but there are 4 activations"),
        ([1.0, None, 2.0], "expected a number"),
    ],
)
def test_what_is_no_triangle_costs_its_head_alone(
    tmp_path: Path, activations: list[Any], says: str
) -> None:
    _write(tmp_path / "in", _head())
    wrong = {
        "neuron_id": {"layer_index": 3, "neuron_index": 0},
        "random_sample": [{"tokens": ["a", "b"], "activations": activations}],
    }
    (tmp_path / "in/3/0.json").write_text(json.dumps(wrong))
    done = import_records(tmp_path / "in", tmp_path / "data", "x", sites=HEADS)
    assert done.imported == 1
    ((cause, message),) = [(failure.cause, failure.message) for failure in done.failures]
    assert cause == "malformed"
    assert "3/0.json is malformed: field random_sample[0]" in message
    assert says in message
    with pytest.raises(DataError, match=r"0\.json is malformed"):
        import_records(tmp_path / "in/3/0.json", tmp_path / "one", "x", sites=HEADS)
    assert not (tmp_path / "one/x" / SITE).exists()


def test_heads_that_are_read_as_neurons_say_how_to_read_them(tmp_path: Path) -> None:
    done = import_records(_write(tmp_path / "in", _head()), tmp_path / "data", "x")
    (failure,) = done.failures
    assert failure.cause == "malformed"
    assert "import with --site 'blocks.{layer}.attn.hook_pattern'" in failure.message


def test_heads_have_no_explanation_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="explanation files are of neurons"):
        import_explanations(tmp_path, tmp_path, "x", sites=HEADS)
    with pytest.raises(ConfigError, match="no public explanations of gpt2-small-attn-write-norm"):
        root_of("gpt2-small-attn-write-norm", "explanations")


def test_the_public_root_of_heads_has_a_name_and_a_site() -> None:
    address = root_of("gpt2-small-attn-write-norm", "records")
    assert address == f"https://openaipublic.blob.core.windows.net/neuron-explainer/{PUBLIC}"
    assert sites_of(address) == HEADS
    assert sites_of(f"copies/{PUBLIC}") == HEADS


# ── the command line ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return workspace.init(tmp_path / "workspace")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line."""
    return in_process(monkeypatch, capsys)


def _published(method: str, path: str, body: Any) -> Answer:
    layer, _, name = path.removeprefix(f"/{PUBLIC}/").partition("/")
    return (200, openai.dumps(_head(int(layer), int(name.removesuffix(".json")))), {})


@pytest.mark.enable_socket
def test_heads_are_fetched_explained_simulated_scored_and_exported(
    here: Workspace, command: Command, tmp_path: Path
) -> None:
    where = ("--workspace", here.root)
    with serving(StandIn(_published)) as server:
        fetched = command(
            *("import", "openai", "--url", f"{server.url}/{PUBLIC}", "--name", "heads", *where),
            *("--layer", "3", "--neurons", "0-2"),
        )
        assert (fetched.code, fetched.err) == (0, "")
        assert f"heads: 3 neurons imported ({SITE})" in fetched.out
    explain = ("explain", "--subject", "heads", "--site", SITE, "--explainer", "pair-lookup")
    for done in (
        command(*explain, "--run", "run", *where),
        command("simulate", "run", "--simulator", "pair-lookup", *where),
        command("score", "run", *where),
        command("show", f"heads/{SITE}/1", "--plain", *where),
    ):
        assert (done.code, done.err) == (0, "")
    assert "0-0[key: 0-1] 0-2[query: 0-3 10] 0-4" in done.out
    refused = command("export", "openai", "run", "--to", tmp_path / "out", *where)
    assert refused.code == 2
    assert "export openai heads --records" in refused.err
    written = command("export", "openai", "heads", "--records", "--to", tmp_path / "out", *where)
    assert written.out == f"3 files in {tmp_path / 'out'}\n"
    found = contents(tmp_path / "out/collated-activations")
    assert found == contents(_write(tmp_path / "in", *(_head(3, at) for at in range(3))))


def test_records_of_neurons_are_exported_without_a_run_too(
    here: Workspace, command: Command, tmp_path: Path
) -> None:
    published = tmp_path / "in" / "3"
    published.mkdir(parents=True)
    (published / "5.json").write_bytes(openai.dumps(neuron_record(3, 5)))
    import_records(tmp_path / "in", here.data, "gpt2")
    given_ = ("export", "openai", "gpt2", "--records", "--to", tmp_path / "out")
    assert command(*given_, "--workspace", here.root).code == 0
    assert contents(tmp_path / "out/collated-activations") == contents(tmp_path / "in")
    missing = command(*given_[:2], "gpt3", *given_[3:], "--workspace", here.root)
    assert missing.code == 2
    assert "holds no record sets" in missing.err


def test_heads_of_which_one_pair_a_text_is_kept_are_not_exported(
    tiny: Path, tmp_path: Path
) -> None:
    collected = planted_head.collected(tiny, tmp_path)
    with pytest.raises(DataError, match="holds one pair of each text"):
        export_records(collected.data, "planted", tmp_path / "out")
    assert not (tmp_path / "out").exists()
