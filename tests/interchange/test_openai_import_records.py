"""Published records as record sets."""

import errno
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_objects import (
    contents,
    neuron_record,
    neuron_records,
    record,
    result,
    whole_files,
    write,
)

from neuron_explainer.errors import ConfigError, DataError, RunMismatch
from neuron_explainer.interchange import import_job, openai, source
from neuron_explainer.interchange.openai_export import export_records
from neuron_explainer.interchange.openai_import import import_records, import_source
from neuron_explainer.record_set import RecordSet
from neuron_explainer.workspace import Workspace

SITE = "blocks.3.mlp.hook_post"


@whole_files
@given(st.tuples(neuron_records(3, 0), neuron_records(3, 600), neuron_records(11, 0)))
def test_records_that_are_imported_are_exported_as_equal_json(
    records: tuple[openai.NeuronRecord, ...],
) -> None:
    with TemporaryDirectory() as folder:
        published = write(Path(folder) / "in", *records)
        result = import_records(published, Path(folder) / "data", "gpt2-xl")
        assert (result.imported, result.failures, result.ignored) == (3, (), ())
        export_records(Path(folder) / "data", "gpt2-xl", Path(folder) / "out")
        assert contents(Path(folder) / "out/collated-activations") == contents(published)


def test_older_files_are_exported_in_the_present_form(tmp_path: Path) -> None:
    legacy = {
        "neuron_id": {"layer_index": 3, "neuron_index": 7},
        "most_positive_activation_records": [{"tokens": ["a"], "activations": [2]}],
    }
    (tmp_path / "3").mkdir()
    (tmp_path / "3/7.json").write_text(json.dumps(legacy))
    import_records(tmp_path, tmp_path / "data", "old")
    export_records(tmp_path / "data", "old", tmp_path / "out")
    exported = openai.loads((tmp_path / "out/collated-activations/3/7.json").read_bytes())
    assert exported == openai.loads(json.dumps(legacy))


def test_record_sets_hold_what_the_files_say(tmp_path: Path) -> None:
    import_records(write(tmp_path / "in", neuron_record(3, 5)), tmp_path, "gpt2-xl")
    records = RecordSet(tmp_path, "gpt2-xl", SITE)
    records.require_complete()
    neuron = records.neuron(5)
    assert [len(neuron.of_kind(kind)) for kind in ("top", "random", "quantile")] == [20, 20, 5]
    best = neuron.of_kind("top")[0]
    assert best.tokens == (b" top", b" 20")
    assert best.activations.tolist() == [20.0, 0.0]
    assert best.scored.all()  # position 0 counts: there is no BOS
    assert [item.band for item in neuron.of_kind("quantile")] == [0, 1, 2, 3, 4]
    assert all(item.split is None for item in neuron.of_kind("quantile"))


def test_moments_are_kept_and_what_is_not_published_is_undefined(tmp_path: Path) -> None:
    import_records(write(tmp_path / "in", neuron_record(3, 5)), tmp_path, "gpt2-xl")
    found = RecordSet(tmp_path, "gpt2-xl", SITE).neuron(5).statistics
    assert found is not None
    assert (found.mean, found.variance, found.skewness, found.kurtosis) == (0.25, 1.5, None, 3.0)
    assert (found.density, found.tokens, found.maximum) == (None, 0, 20.0)
    assert not len(found.histogram)


def test_splits_take_turns_down_the_top_records(tmp_path: Path) -> None:
    import_records(write(tmp_path / "in", neuron_record(3, 5)), tmp_path, "gpt2-xl")
    neuron = RecordSet(tmp_path, "gpt2-xl", SITE).neuron(5)
    tops, randoms = neuron.of_kind("top"), neuron.of_kind("random")
    order = ["train", "calibration", "valid", "test"]
    assert [item.split for item in tops] == order * 5
    assert [item.split for item in randoms] == order[1:] * 5 + [None] * 5


def test_splits_follow_the_maximum_where_a_file_is_not_sorted(tmp_path: Path) -> None:
    sequences = [record(value, tokens=[f"{value}"]) for value in (1.0, 4.0, 2.0, 3.0)]
    shuffled = openai.NeuronRecord(
        openai.NeuronId(3, 0),
        tuple(record(0.0, tokens=[f"r{place}"]) for place in range(3)),
        most_positive_activation_records=tuple(sequences),
    )
    import_records(write(tmp_path / "in", shuffled), tmp_path, "x")
    tops = RecordSet(tmp_path, "x", SITE).neuron(0).of_kind("top")
    assert {item.maximum: item.split for item in tops} == {
        4.0: "train",
        3.0: "calibration",
        2.0: "valid",
        1.0: "test",
    }


def test_each_distinct_sequence_is_stored_once(tmp_path: Path) -> None:
    import_records(
        write(tmp_path / "in", *(neuron_record(3, place) for place in range(4))), tmp_path, "x"
    )
    corpus = RecordSet(tmp_path, "x", SITE).corpus
    assert len(corpus) == 20 + 20 + 5
    assert len(corpus.vocabulary[0]) == 3 + 21
    assert len({tuple(corpus.token_ids(place)) for place in range(len(corpus))}) == len(corpus)


def test_a_sequence_that_a_split_has_twice_can_be_told_apart(tmp_path: Path) -> None:
    same = (record(2.0, tokens=["a"]), record(1.0, tokens=["a"]))
    twice = openai.NeuronRecord(openai.NeuronId(3, 0), same)
    import_records(write(tmp_path / "in", twice), tmp_path, "x")
    randoms = RecordSet(tmp_path, "x", SITE).neuron(0).of_kind("random")
    assert [item.activations.tolist() for item in randoms] == [[2.0], [1.0]]
    assert randoms[0].sequence != randoms[1].sequence


def test_activations_take_four_bytes_where_that_is_exact(tmp_path: Path) -> None:
    for name, value in (("narrow", 0.5), ("wide", 0.1)):
        # the neurons are in different shards: all must have one type
        files = write(tmp_path / name, neuron_record(3, 0), neuron_record(3, 600, value))
        import_records(files, tmp_path, f"x-{name}")
        table = RecordSet(tmp_path, f"x-{name}", SITE).folder.read_all("records")
        assert table.schema.field("activations").type == pa.list_(
            pa.float32() if name == "narrow" else pa.float64()
        )
    assert RecordSet(tmp_path, "x-wide", SITE).neuron(600).of_kind("top")[0].maximum == 20 * 0.1


def test_only_the_neurons_asked_for_are_imported(tmp_path: Path) -> None:
    files = write(tmp_path / "in", *(neuron_record(3, place) for place in (1, 2, 700)))
    result = import_records(files, tmp_path, "x", neurons=[2, 700, 5])
    assert result.imported == 2
    records = RecordSet(tmp_path, "x", SITE)
    assert records.width == 701
    assert not records.neuron(1).records
    assert records.neuron(700).records
    with pytest.raises(DataError, match="of the neurons asked for"):
        import_records(files, tmp_path, "y", neurons=[4])


def test_a_bad_file_costs_one_neuron_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "in", *(neuron_record(3, place) for place in range(5)))
    (files / "3/1.json").write_text('{"neuron_id": 3}')
    (files / "3/2.json").write_bytes(openai.dumps(neuron_record(4, 2)))
    (files / "3/3.json").write_bytes(b" " * 20_000)
    monkeypatch.setattr(source, "LARGEST_FILE", 19_999)
    result = import_records(files, tmp_path, "x")
    assert result.imported == 2
    found = {item.neuron.index: (item.stage, item.cause, item.message) for item in result.failures}
    assert {index: cause for index, (_, cause, _) in found.items()} == {
        1: "malformed",
        2: "malformed",
        3: "too-large",
    }
    assert {stage for stage, _, _ in found.values()} == {"import"}
    assert found[1][2].startswith("3/1.json is malformed: field neuron_id: ")
    assert found[2][2] == "3/2.json is malformed: field neuron_id: it is neuron 2 of layer 4"
    assert RecordSet(tmp_path, "x", SITE).neuron(4).records


def test_a_file_that_cannot_be_read_costs_one_neuron(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, follow: bool) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(source, "_opened", refuse)
    result = import_records(write(tmp_path / "in", neuron_record(3, 0)), tmp_path, "x")
    assert [(item.cause, item.message) for item in result.failures] == [
        ("unreadable", "cannot read 3/0.json: permission denied")
    ]


def test_a_list_too_long_to_be_numbered_is_a_failure(tmp_path: Path) -> None:
    long = openai.NeuronRecord(openai.NeuronId(3, 0), (record(),) * 40_000)
    result = import_records(write(tmp_path / "in", long), tmp_path, "x")
    assert "field random_sample: 40000 items; at most 32767" in result.failures[0].message


def test_links_and_other_names_are_reported_and_not_followed(tmp_path: Path) -> None:
    files = write(tmp_path / "in", neuron_record(3, 0))
    write(tmp_path / "elsewhere", neuron_record(3, 1), neuron_record(4, 1))
    (files / "3/1.json").symlink_to(tmp_path / "elsewhere/3/1.json")
    (files / "4").symlink_to(tmp_path / "elsewhere/4")
    for name in ("02.json", "x.json", "٣.json", "2.jsonl", "99999999.json", "b\x1b.json"):
        (files / "3" / name).write_bytes(openai.dumps(neuron_record(3, 2)))
    (files / "3/5.json").mkdir()
    os.mkfifo(files / "3/6.json")
    (files / "README.md").touch()
    result = import_records(files, tmp_path, "x")
    assert result.imported == 1
    assert result.sites == (SITE,)
    assert set(result.ignored) == {
        *("3/1.json", "4", "3/02.json", "3/x.json", "3/٣.json", "3/2.jsonl", "3/99999999.json"),
        *("3/b\\x1b.json", "3/5.json", "3/6.json", "README.md"),
    }


def test_one_file_can_be_imported_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "my file").write_bytes(openai.dumps(neuron_record(3, 5)))
    result = import_records(tmp_path / "my file", tmp_path, "x")
    assert (result.imported, result.sites) == (1, (SITE,))
    assert RecordSet(tmp_path, "x", SITE).neuron(5).records


def test_what_is_wrong_with_one_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "5.json"
    file.write_text('{"neuron_id": {"layer_index": 3, "neuron_index": 5}, "mean": NaN}')
    with pytest.raises(DataError, match=r"5\.json is malformed: field mean: .* not NaN"):
        import_records(file, tmp_path, "x")
    file.write_text('{"neuron_id": {"layer_index": 3, "neuron_index": 99999999999}}')
    with pytest.raises(DataError, match="there is none such"):
        import_records(file, tmp_path, "x")
    assert not (tmp_path / "x").exists()


def test_a_source_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        import_records(tmp_path / "nowhere", tmp_path, "x")
    with pytest.raises(DataError, match=r"holds no LAYER/NEURON\.json, such as 0/12\.json"):
        import_records(tmp_path, tmp_path, "x")


def test_what_is_imported_follows_from_the_names_of_the_files(tmp_path: Path) -> None:
    here = Workspace(tmp_path)
    records = write(tmp_path / "records", neuron_record(3, 0))
    explanations = write(tmp_path / "explanations", result(3, 0))
    for source_, name in ((records, "a"), (records / "3/0.json", "b")):
        assert import_source(here, source_, name).imported == 1
        assert not (tmp_path / "scoring").exists()
    for source_, name in ((explanations, "c"), (explanations / "3/0.jsonl", "d")):
        assert import_source(here, source_, name).imported == 1
        assert (tmp_path / "scoring" / name).is_dir()
    write(records, result(3, 0))
    for wrong, message in (
        (records, "both records and explanations"),
        (tmp_path / "scoring", "neither records nor explanations"),
        (tmp_path / "nowhere", "does not exist"),
    ):
        with pytest.raises(DataError, match=message):
            import_source(here, wrong, "e")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp", ".hidden", "a b", "x\n"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of an import"):
        import_records(write(tmp_path / "in", neuron_record(3, 0)), tmp_path, name)


def test_a_name_keeps_what_was_imported_under_it(tmp_path: Path) -> None:
    files = write(tmp_path / "in", neuron_record(3, 0))
    import_records(files, tmp_path, "x")
    before = snapshot(tmp_path / "x")
    assert import_records(files, tmp_path, "x").imported == 1
    write(files, neuron_record(3, 0, 2.0))
    with pytest.raises(RunMismatch, match="sha256"):
        import_records(files, tmp_path, "x")
    assert snapshot(tmp_path / "x") == before


def test_an_import_that_was_interrupted_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "in", neuron_record(3, 0), neuron_record(3, 600))
    import_records(files, tmp_path / "whole", "x")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(import_job, "widen", stop)
        with pytest.raises(KeyboardInterrupt):
            import_records(files, tmp_path / "cut", "x")
    with pytest.raises(DataError, match="not complete"):
        RecordSet(tmp_path / "cut", "x", SITE).require_complete()
    import_records(files, tmp_path / "cut", "x")
    assert snapshot(tmp_path / "cut") == snapshot(tmp_path / "whole")


def test_a_shard_too_large_for_memory_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "in", *(neuron_record(3, place) for place in range(5)))
    monkeypatch.setattr(import_job, "MOST_NUMBERS", 100)
    import_records(files, tmp_path, "x")
    records = RecordSet(tmp_path, "x", SITE)
    assert [shard.stop for shard, _ in records.folder.shards("records")] == [2, 4, 5]
    export_records(tmp_path, "x", tmp_path / "out")
    assert contents(tmp_path / "out/collated-activations") == contents(files)


def test_activations_beyond_float32_keep_their_value(tmp_path: Path) -> None:
    huge = openai.NeuronRecord(openai.NeuronId(3, 0), (record(1e300, -1e-300),))
    import_records(write(tmp_path / "in", huge), tmp_path, "x")
    stored = RecordSet(tmp_path, "x", SITE).neuron(0).of_kind("random")[0].activations
    assert np.array_equal(stored, [1e300, -1e-300])


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_hostile_records_cost_one_neuron_each(tmp_path: Path) -> None:
    plain = {"neuron_id": {"layer_index": 3, "neuron_index": 0}}
    contents_: dict[str, object] = {
        "1 tokens but 2 activations": [{"tokens": ["a"], "activations": [0, 1]}],
        "expected a number, not 'null'": [{"tokens": ["a"], "activations": [None]}],
        "dataclass_name is 'Popen'": [{"tokens": [], "activations": [], "dataclass_name": "Popen"}],
        "expected a number, not NaN": [{"tokens": ["a"], "activations": [float("nan")]}],
    }
    (tmp_path / "in/3").mkdir(parents=True)
    for neuron, records in enumerate(contents_.values()):
        plain["neuron_id"]["neuron_index"] = neuron
        content = json.dumps({**plain, "random_sample": records})
        (tmp_path / f"in/3/{neuron}.json").write_text(content)
    deep = json.dumps(plain)[:-1] + ', "random_sample": ' + "[" * 100_000
    (tmp_path / "in/3/99.json").write_text(deep)
    done = import_records(tmp_path / "in", tmp_path, "x")
    assert done.imported == 0
    *messages, last = (failure.message for failure in done.failures)
    for says, message in zip(contents_, messages, strict=True):
        assert "field random_sample[0]" in message
        assert says in message
    assert last.startswith("3/99.json is malformed: ")
    assert {failure.cause for failure in done.failures} == {"malformed"}


def test_long_records_are_kept_as_far_as_files_may_be_large(tmp_path: Path) -> None:
    long = openai.NeuronRecord(
        openai.NeuronId(3, 0), (record(*[0.5] * 100_000, tokens=["a"] * 100_000),)
    )
    wide = openai.NeuronRecord(openai.NeuronId(3, 1), (record(1.0, tokens=["a" * 1_000_000]),))
    done = import_records(write(tmp_path / "in", long, wide), tmp_path, "x")
    assert (done.imported, done.failures) == (2, ())
    records = RecordSet(tmp_path, "x", SITE)
    assert len(records.neuron(0).records[0].tokens) == 100_000
    assert len(records.neuron(1).records[0].tokens[0]) == 1_000_000
