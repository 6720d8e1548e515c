"""Runs in Neuronpedia's export layout."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import files, in_process
from neuronpedia_schema import ACTIVATION, CLASSES, check, rows

from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.interchange import neuronpedia, neuronpedia_export
from neuron_explainer.interchange.neuronpedia_export import ExportSettings, batches, export_run
from neuron_explainer.record_set import RecordSet
from neuron_explainer.workspace import Workspace

RUN, MLP, LATENTS = "tiny-token-lookup", "blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk"
SETTINGS = ExportSettings("tiny", "0-mlp-neurons-acme", MLP)


@pytest.fixture(scope="module")
def exported(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 64 MLP neurons of a layer."""
    to = tmp_path_factory.mktemp("published")
    return export_run(small_workspace.root, RUN, SETTINGS, to).to


def test_our_fields_are_the_published_ones() -> None:
    for part, fields in CLASSES.items():
        ours = [field.name for field in dataclasses.fields(neuronpedia.KINDS[part])]
        assert ours == list(fields)


@pytest.mark.parametrize(
    ("site", "source"), [(MLP, "0-mlp-neurons-acme"), (LATENTS, "2-res-acme-topk")]
)
def test_what_is_exported_is_as_published(
    small_workspace: Workspace, tmp_path: Path, site: str, source: str
) -> None:
    settings = ExportSettings("tiny", source, site)
    done = export_run(small_workspace.root, RUN, settings, tmp_path)
    assert done.to == tmp_path / "v1/tiny" / source
    assert done.rows["features"] == 64
    assert not done.failures
    check(done.to)


def test_records_come_in_groups_that_say_what_they_are(
    exported: Path, small_workspace: Workspace
) -> None:
    neuron = RecordSet(small_workspace.data, "tiny", MLP).neuron(5)
    found = [row for row in rows(exported, "activations")[0] if row["index"] == "5"]
    assert len(found) == len(neuron.records)
    assert neuron.statistics is not None
    for row, record in zip(found, neuron.records, strict=True):
        assert row["values"] == np.asarray(record.activations, np.float64).tolist()
        assert row["maxValue"] == record.maximum  # BOS does not count
        interval = row["binMin"], row["binMax"], row["binContains"]
        if record.kind == "top":
            assert interval == (-1, -1, -1)
        else:
            assert interval[0] <= record.maximum <= interval[1]
            share = {None: 1.0, 0: 0.5, 1: 0.4, 2: 0.09, 3: 0.009, 4: 0.001}[record.band]
            assert interval[2] == share


def test_density_and_histogram_are_those_of_the_corpus(
    exported: Path, small_workspace: Workspace
) -> None:
    for row in rows(exported, "features")[0]:
        statistics = (
            RecordSet(small_workspace.data, "tiny", MLP).neuron(int(row["index"])).statistics
        )
        assert statistics is not None
        assert row["frac_nonzero"] == statistics.density
        assert sum(row["freq_hist_data_bar_heights"]) == statistics.histogram[1:].sum()
        assert row["freq_hist_data_bar_values"] == sorted(row["freq_hist_data_bar_values"])
        assert row["hookName"] == MLP


def test_tokens_that_a_neuron_promotes_are_named(
    exported: Path, small_workspace: Workspace
) -> None:
    for row in rows(exported, "features")[0]:
        neuron = RecordSet(small_workspace.data, "tiny", MLP).neuron(int(row["index"]))
        assert neuron.promoted
        assert neuron.suppressed
        assert row["pos_values"] == [effect for _, effect in neuron.promoted]
        assert row["neg_values"] == sorted(row["neg_values"])
        assert row["neg_values"][0] < 0 < row["pos_values"][0]
        assert len(row["pos_str"]) == len(row["pos_values"])


def test_scores_stand_shortly_in_the_notes(exported: Path) -> None:
    notes = [row["notes"] for row in rows(exported, "explanations")[0]]
    assert all("top and random" in note and "(token-lookup, split valid)" in note for note in notes)
    assert max(map(len, notes)) < 100


def test_the_same_run_gives_the_same_bytes(
    exported: Path, small_workspace: Workspace, tmp_path: Path
) -> None:
    again = export_run(small_workspace.root, RUN, SETTINGS, tmp_path).to
    assert files(again) == files(exported)


def test_an_id_follows_from_the_content(
    exported: Path, small_workspace: Workspace, tmp_path: Path
) -> None:
    # ids that are known there are never updated: what changed must have another
    later = dataclasses.replace(SETTINGS, created="2026-01-01T00:00:00.000Z")
    other = export_run(small_workspace.root, RUN, later, tmp_path).to
    check(other)
    for part in ("activations", "explanations"):
        before, after = (
            {row["id"] for row in rows(folder, part)[0]} for folder in (exported, other)
        )
        assert not before & after


def test_files_hold_at_least_1024_features_and_are_fewer_than_1000() -> None:
    for width in (0, 1, 1023, 1024, 2047, 2048, 6400, 3_000_000):
        cut = batches(range(width))
        assert [index for part in cut for index in part] == list(range(width))
        assert len(cut) < 1000
        assert len(cut) == 1 or min(map(len, cut)) >= 1024
    assert max(map(len, batches(range(6400)))) < 2048


@pytest.mark.parametrize(
    ("model", "source", "says"),
    [
        ("tiny", "0", "cannot be a source"),
        ("tiny", "0-neurons", "reserved"),
        ("tiny", "0-Mlp-neurons-acme", "cannot be a source"),
        ("tiny", "0-mlp--neurons-acme", "cannot be a source"),
        ("tiny", "0-mlp-neurons-", "cannot be a source"),
        ("tiny", "../0-mlp-neurons-acme", "cannot be a source"),
        ("tiny", "3-mlp-neurons-acme", "another layer"),
        ("tiny", "0-mlp-acme", "0-mlp-neurons-organisation"),
        ("../tiny", "0-mlp-neurons-acme", "cannot be a model id"),
        ("a--b", "0-mlp-neurons-acme", "cannot be a model id"),
    ],
)
def test_names_that_are_refused_there_are_refused_here(
    small_workspace: Workspace, tmp_path: Path, model: str, source: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        export_run(small_workspace.root, RUN, ExportSettings(model, source, MLP), tmp_path)
    assert not files(tmp_path)


def test_an_export_is_whole_or_absent(
    small_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(row: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(neuronpedia_export, "dump", stop)
        with pytest.raises(KeyboardInterrupt):
            export_run(small_workspace.root, RUN, SETTINGS, tmp_path)
    assert not files(tmp_path)
    export_run(small_workspace.root, RUN, SETTINGS, tmp_path)
    before = files(tmp_path)
    with pytest.raises(DataError, match="exists"):
        export_run(small_workspace.root, RUN, SETTINGS, tmp_path)
    assert files(tmp_path) == before


def test_a_density_that_nobody_knows_is_estimated_or_refused(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(small_workspace.root, root)
    folder = RecordSet(root / "data", "tiny", MLP).folder
    (_, file), *_ = folder.shards("neurons")
    table = folder.read(file)
    unknown = [row | {"density": None} for row in table.to_pylist()]
    folder.write({file: type(table).from_pylist(unknown, schema=table.schema)})
    done = export_run(root, RUN, SETTINGS, tmp_path / "estimated")
    assert {row["frac_nonzero"] > 0 for row in rows(done.to, "features")[0]} == {True}
    (_, file), *_ = folder.shards("records")
    records = folder.read(file).to_pylist()
    tops = [row for row in records if row["kind"] == "top"]
    folder.write({file: type(table).from_pylist(tops, schema=folder.read(file).schema)})
    done = export_run(root, RUN, SETTINGS, tmp_path / "refused")
    assert {failure.cause for failure in done.failures} == {"no-density"}
    assert done.rows["features"] == 0


def test_the_command_says_what_it_wrote(
    small_workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = in_process(monkeypatch, capsys)
    given = ("--model-id", "tiny", "--to", tmp_path, "--workspace", small_workspace.root)
    done = run("export", "neuronpedia", RUN, *given, "--source", "0-mlp-neurons-a", "--json")
    assert done.code == 2
    assert "which site? --site takes one of" in done.err
    site = ("--source", "0-mlp-neurons-a", "--site", MLP)
    report = run("export", "neuronpedia", RUN, *given, *site, "--json").json()
    assert report["features"] == report["explanations"] == 64
    line = (tmp_path / "v1/tiny/0-mlp-neurons-a/source.jsonl").read_text()
    assert json.loads(line)["id"] == "0-mlp-neurons-a"
    assert len(ACTIVATION) == 22
