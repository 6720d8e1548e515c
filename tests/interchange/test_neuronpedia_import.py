"""Neuronpedia's files as record sets and runs."""

import gzip
import json
import resource
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import files, in_process
from hypothesis import given, settings
from hypothesis import strategies as st
from neuronpedia_schema import rows

from neuron_explainer import workspace
from neuron_explainer.errors import ConfigError, DataError, RunMismatch
from neuron_explainer.interchange import json_lines, neuronpedia_source, sequences
from neuron_explainer.interchange.import_job import ImportResult
from neuron_explainer.interchange.neuronpedia_export import ExportSettings, export_run
from neuron_explainer.interchange.neuronpedia_import import import_source
from neuron_explainer.interchange.sequences import token_text
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Effects, NeuronRecord
from neuron_explainer.runs import Run
from neuron_explainer.workspace import Workspace

RUN = "tiny-token-lookup"
MLP, LATENTS = "blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk"
SOURCE = "6-res-jb"
SITE = "blocks.6.hook_resid_pre/res-jb"

Json = Any


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return workspace.init(tmp_path / "workspace")


def feature(index: int = 0, **fields: Json) -> dict[str, Json]:
    """A feature line with what is needed, as in the public exports."""
    return {"modelId": "gpt2-small", "layer": SOURCE, "index": str(index), **fields}


def activation(index: int = 0, **fields: Json) -> dict[str, Json]:
    """An activation line."""
    line = {"id": f"a{index}", "tokens": [" a", " b"], "values": [0, 1.5]}
    return {**feature(index), **line, **fields}


def explanation(index: int = 0, **fields: Json) -> dict[str, Json]:
    """An explanation line, with an embedding as the public exports have it."""
    line = {"id": f"e{index}", "description": "words about rain", "embedding": "[0.1,0.2]"}
    return {**feature(index), **line, **fields}


def write(folder: Path, content: Mapping[str, list[Json]]) -> Path:
    """A source's folder with batch 0 of each part, or of the file named; bytes are lines as is."""
    for name, lines in content.items():
        path = folder / (name if "/" in name else f"{name}/batch-0.jsonl.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        made = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        path.write_bytes(gzip.compress(b"\n".join(made) + b"\n", 1))
    return folder


def imported(here: Workspace, content: Mapping[str, list[Json]], **options: Json) -> ImportResult:
    """What comes of importing these lines."""
    folder = write(here.root.parent / "in", content)
    return import_source(here, folder, "np", site=options.pop("site", SITE), **options)


def neuron(here: Workspace, index: int, site: str = SITE) -> NeuronRecord:
    """What was imported of a neuron."""
    return RecordSet(here.data, "np", site).neuron(index)


@pytest.mark.parametrize(("site", "source"), [(MLP, "0-mlp-neurons-acme"), (LATENTS, "2-res-acme")])
def test_what_we_export_comes_back_as_far_as_the_format_carries_it(
    small_workspace: Workspace, here: Workspace, tmp_path: Path, site: str, source: str
) -> None:
    exported = export_run(
        small_workspace.root, RUN, ExportSettings("tiny", source, site), tmp_path
    ).to
    done = import_source(here, exported, "np")
    assert (done.imported, done.failures, done.sites) == (64, (), (site,))
    back = RecordSet(here.data, "np", site)
    own = RecordSet(small_workspace.data, "tiny", site)
    back.require_complete()
    assert back.corpus.excludes_first
    for index in range(64):
        before, after = own.neuron(index), back.neuron(index)
        assert len(before.records) == len(after.records)
        assert _named(before.promoted) == _named(after.promoted)
        assert _named(before.suppressed) == _named(after.suppressed)
        for one, other in zip(before.records, after.records, strict=True):
            assert (one.kind, one.band, one.split) == (other.kind, other.band, other.split)
            assert np.array_equal(one.activations, other.activations)
            assert len(one.tokens) == len(other.tokens)
        assert before.statistics is not None
        assert after.statistics is not None
        for name in ("tokens", "density", "maximum"):
            assert getattr(before.statistics, name) == getattr(after.statistics, name)
        assert np.array_equal(before.statistics.histogram, after.statistics.histogram)
        assert _text(small_workspace, RUN, site, index) == _text(here, "np", site, index)
    bounds = [
        folder.read_all("neurons", ["neuron", "quantile_boundaries"]).to_pylist()[:64]
        for folder in (own.folder, back.folder)
    ]
    assert bounds[0] == bounds[1]


def _named(effects: Effects | None) -> list[tuple[str, float]]:
    """Tokens as the format has them: bytes that are no UTF-8 are lost."""
    assert effects
    return [(token_text(token), effect) for token, effect in effects]


def _text(here: Workspace, run: str, site: str, index: int) -> str | None:
    subject = Run(here, run).subject
    found = Run(here, run).explanation(RecordSet(here.data, subject, site).neuron(index).neuron)
    return None if found is None else found.text


def _without_alike(batches: Any) -> list[Any]:
    """Features without their similar neurons, which an import keeps beside and does not export."""
    names = ("topkCosSimIndices", "topkCosSimValues")
    return [
        [{key: value for key, value in row.items() if key not in names} for row in batch]
        for batch in batches
    ]


def test_what_was_imported_is_exported_as_it_was(
    small_workspace: Workspace, here: Workspace, tmp_path: Path
) -> None:
    chosen = ExportSettings("tiny", "0-mlp-neurons-acme", MLP)
    first = export_run(small_workspace.root, RUN, chosen, tmp_path / "first").to
    import_source(here, first, "np")
    second = export_run(here.root, "np", chosen, tmp_path / "second").to
    ours, theirs = (_without_alike(rows(folder, "features")) for folder in (first, second))
    assert ours == theirs
    left_out = {"id", "dataSource", "dataIndex"}  # of which record set, and where in it
    assert _without(first, left_out) == _without(second, left_out)


def _without(folder: Path, names: set[str]) -> list[dict[str, Json]]:
    return [
        {name: value for name, value in row.items() if name not in names}
        for row in rows(folder, "activations")[0]
    ]


def test_public_exports_are_sorted_as_text_and_lack_fields(here: Workspace) -> None:
    # their lines lack createdAt and notes, and have columns that are not documented
    content: dict[str, list[Json]] = {
        "features": [feature(index, umap_x=0.5, frac_nonzero=0.1) for index in (0, 1, 10, 2)],
        "activations": [
            activation(index, id=f"{index}-{place}", values=[0.0, 1.0 + place])
            for place in range(2)
            for index in (0, 10, 1, 2)
        ],
        "explanations": [explanation(10), explanation(2), explanation(10, id="x", description="b")],
    }
    done = imported(here, content, site=None)
    assert (done.imported, done.failures, done.sites) == (4, (), (SITE,))
    assert [record.maximum for record in neuron(here, 10).records] == [2.0, 1.0]
    assert _text(here, "np", SITE, 10) == "words about rain"
    assert _text(here, "np", SITE, 0) is None
    folder = Run(here, "np").folder
    assert folder.read_all(f"{SITE}/alternatives")["text"].to_pylist() == ["b"]


def test_what_has_no_column_is_kept_beside(here: Workspace) -> None:
    content: dict[str, list[Json]] = {
        "features": [feature(3, pos_str=[" rain"], pos_values=[2], neg_str=[], neg_values=[])],
        "activations": [activation(3, dfaValues=[1, 2.5], dataSource="pile")],
        "explanations": [explanation(3, notes="good", typeName="np_max-act-logits")],
    }
    imported(here, content)
    data = RecordSet(here.data, "np", SITE).folder
    (published,) = data.read_all("published_features").to_pylist()
    assert (published["pos_str"], published["pos_values"]) == ([" rain"], [2.0])
    (published,) = data.read_all("published_activations").to_pylist()
    assert (published["dfaValues"], published["dataSource"]) == ([1.0, 2.5], "pile")
    assert neuron(here, 3).promoted == ((b" rain", 2.0),)
    assert neuron(here, 3).suppressed == ()
    run = Run(here, "np").folder
    (published,) = run.read_all(f"{SITE}/published_explanations").to_pylist()
    assert published["notes"] == "good"
    found = Run(here, "np").explanation(neuron(here, 3).neuron)
    assert found is not None
    assert found.explainer == "max-act-logits"


@pytest.mark.parametrize(
    ("source", "fields", "site"),
    [
        ("6", {}, "blocks.6.mlp.hook_post"),
        ("6-mlp-neurons-acme", {}, "blocks.6.mlp.hook_post"),
        ("6-res-jb", {}, "blocks.6.hook_resid_pre/res-jb"),
        ("6-x-y", {"hookName": "blocks.6.hook_mlp_out"}, "blocks.6.hook_mlp_out/x-y"),
    ],
)
def test_the_site_is_found_out(
    here: Workspace, source: str, fields: dict[str, str], site: str
) -> None:
    lines = [feature(0, **fields) | {"layer": source, "frac_nonzero": 0.5}]
    assert imported(here, {"features": lines}, site=None).sites == (site,)


@pytest.mark.parametrize("source", ["6-att-kk", "../../6-res-jb", "6-res--jb", "x"])
def test_a_site_that_nobody_knows_must_be_named(here: Workspace, source: str) -> None:
    lines = [feature(0) | {"layer": source}]
    before = files(here.root)
    with pytest.raises(DataError, match=r"--site|field layer"):
        imported(here, {"features": lines}, site=None)
    with pytest.raises(ConfigError, match="is no site"):
        imported(here, {"features": lines}, site="../../elsewhere")
    assert files(here.root) == before


def test_notes_cannot_lead_out_of_the_workspace(here: Workspace, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"features": [feature(0, hookName="../../x")]})
    for notes in ("site: blocks.6.mlp.hook_post/../../../x", "site: /etc", "site: blocks.6"):
        (folder / "source.jsonl").write_text(json.dumps({"id": SOURCE, "notes": notes}))
        done = import_source(here, folder, "np")
        assert done.sites == (SITE,)
        shutil.rmtree(here.data / "np")


FAULTS: list[tuple[str, Json, str]] = [
    ("activations", activation(1, values=[0.0]), "field values: 1 items, expected 2"),
    ("activations", activation(1, tokens=None), "field tokens: missing"),
    ("activations", activation(1, tokens=["a" * 1_000_000, "b"]), "field tokens: one has over"),
    (
        "activations",
        activation(1, tokens=["a"] * 100_000, values=[0] * 100_000),
        "field tokens: 100000 items; at most 16384",
    ),
    ("activations", activation(1, values=[0, "1"]), "field values[1]: expected a number"),
    ("activations", activation(1, values=[0, None]), "field values[1]: expected a number"),
    ("activations", activation(1, layer="5-res-jb"), "field layer: another source"),
    ("activations", activation(1, dfaValues={}), "field dfaValues: expected a list"),
    ("features", feature(1, frac_nonzero=2), "field frac_nonzero: 2.0 is no share"),
    ("features", feature(1, pos_str=["a"]), "field pos_values: 0 items, expected 1"),
    ("features", feature(1, hasVector="yes"), "field hasVector: expected true or false"),
    ("explanations", explanation(1, description=None), "field description: missing"),
    ("explanations", explanation(1, notes=3), "field notes: expected text"),
    (
        "activations",
        json.dumps(activation(1)).replace("1.5", "NaN").encode(),
        "field values[1]: expected a number, not NaN",
    ),
    (
        "features",
        json.dumps(feature(1, maxActApprox=0)).replace('x": 0', 'x": -Infinity').encode(),
        "field maxActApprox: expected a number, not -Infinity",
    ),
]


@pytest.mark.parametrize(("part", "line", "says"), FAULTS)
def test_a_line_at_fault_is_named_and_the_rest_is_imported(
    here: Workspace, part: str, line: Json, says: str
) -> None:
    content: dict[str, list[Json]] = {
        "features": [feature(0, frac_nonzero=0.5)],
        "activations": [activation(0)],
        "explanations": [explanation(0)],
    }
    content[part].append(line)
    done = imported(here, content)
    assert done.imported == 1
    assert _text(here, "np", SITE, 0) == "words about rain"
    (failure,) = done.failures
    assert (failure.neuron.index, failure.stage, failure.cause) == (1, "import", "malformed")
    assert failure.message.startswith(f"{part}/batch-0.jsonl.gz, line 2: {says}")
    assert len(failure.message) < 200


def test_null_scores_and_missing_fields_are_undefined(here: Workspace) -> None:
    imported(here, {"features": [feature(0, frac_nonzero=None, maxActApprox=None)]})
    found = neuron(here, 0).statistics
    assert found is not None
    assert (found.density, found.maximum, found.tokens) == (None, None, 0)
    assert neuron(here, 0).promoted is None  # nothing is known of logit effects
    assert not here.explanations.joinpath("np").exists()  # no explanations, so no run


def test_what_is_there_twice_is_a_failure(here: Workspace) -> None:
    content: dict[str, list[Json]] = {
        "features": [feature(0, frac_nonzero=0.25), feature(0, frac_nonzero=0.75)],
        "activations": [activation(0), activation(0, values=[5, 5])],
        "explanations": [explanation(0), explanation(0, description="other")],
    }
    done = imported(here, content)
    messages = [failure.message for failure in done.failures]
    assert messages == [
        "features/batch-0.jsonl.gz, line 2: field index: feature 0 is there twice",
        "activations/batch-0.jsonl.gz, line 2: field id: it is there twice",
        "explanations/batch-0.jsonl.gz, line 2: field id: it is there twice",
    ]
    assert [record.maximum for record in neuron(here, 0).records] == [1.5]


def test_a_batch_that_is_missing_in_one_folder_is_named(here: Workspace) -> None:
    content: dict[str, list[Json]] = {
        "features": [feature(0, frac_nonzero=0.5)],
        "features/batch-1.jsonl.gz": [feature(1, frac_nonzero=0.5)],
        "activations": [activation(0)],
        "activations/batch-2.jsonl.gz": [activation(2)],
    }
    done = imported(here, content)
    assert done.imported == 3
    assert {(failure.neuron.index, failure.message) for failure in done.failures} == {
        (1, "activations/batch-1.jsonl.gz is missing"),
        (2, "features/batch-2.jsonl.gz is missing"),
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[" * 100_000, "nested too deep|no JSON"),
        (b'{"index": "1", "x": ' + b'{"a":' * 50_000, "nested too deep|no JSON"),
        (b'{"index": "1"', "no JSON"),
        (b"[]", "field index: it names no neuron"),
        (b'{"index": "../../1"}', "field index: it names no neuron"),
        (b'{"index": "99999999"}', "field index: it names no neuron"),
        (b'{"index": 1}', "field index: it names no neuron"),
        (b"\xff\xfe", "no JSON"),
    ],
)
def test_a_line_that_is_about_no_neuron_is_one_line_of_error(
    here: Workspace, line: bytes, says: str
) -> None:
    before = files(here.root)
    with pytest.raises(DataError, match=rf"features/batch-0.jsonl.gz, line 2: .*({says})"):
        imported(here, {"features": [feature(0), line]})
    assert files(here.root) == before


@pytest.mark.parametrize(("filler", "says"), [(b"0", "over 4 MB"), (b"\n", "300 times its size")])
def test_a_gzip_bomb_is_refused_in_bounded_memory(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filler: bytes, says: str
) -> None:
    monkeypatch.setattr(json_lines, "SMALL", 1 << 20)
    folder = write(tmp_path / "in", {"features": [feature(0)]})
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(filler * (1 << 20)) for _ in range(32)) + packer.flush()
    assert len(packed) < 100_000
    (folder / "features/batch-0.jsonl.gz").write_bytes(packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=says):
        import_source(here, folder, "np")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert not (here.data / "np").exists()


def test_a_file_that_is_cut_short_is_an_error(here: Workspace, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"features": [feature(0), feature(1)]})
    file = folder / "features/batch-0.jsonl.gz"
    whole = file.read_bytes()
    for damaged, says in ((whole[:-9], "cut short"), (whole[:10] + b"\x07" * 30, "no valid gzip")):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=says):
            import_source(here, folder, "np", site=SITE)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_lines_come_out_of_gzip_members_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, given: list[bytes], members: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl.gz"
    content = b"\n".join(given)
    cut = [content[len(content) * n // members : len(content) * (n + 1) // members]
           for n in range(members)]  # fmt: skip
    path.write_bytes(b"".join(map(gzip.compress, cut)))
    assert [line for _, line in json_lines.lines(path)] == [line for line in given if line.strip()]


def test_bounds_on_lines_and_vocabularies_hold(
    here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [activation(0, id=str(place)) for place in range(9)]
    with monkeypatch.context() as patch:
        patch.setattr(neuronpedia_source, "MOST_LINES", 8)
        with pytest.raises(DataError, match="over 8 lines: import it in parts"):
            imported(here, {"activations": many})
    with monkeypatch.context() as patch:
        patch.setattr(neuronpedia_source, "MOST_BYTES", 300)
        done = imported(here, {"activations": [*many, activation(1)]})
        assert [failure.cause for failure in done.failures] == ["too-large"]
        assert done.imported == 1
    shutil.rmtree(here.data / "np")
    with monkeypatch.context() as patch:
        patch.setattr(sequences, "MOST_DISTINCT", 1)
        with pytest.raises(DataError, match="field tokens: over 1 different ones"):
            imported(here, {"activations": many})


def test_links_and_other_names_are_not_read(here: Workspace, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"features": [feature(0, frac_nonzero=0.5)]})
    outside = write(tmp_path / "out", {"features": [feature(9)]})
    (folder / "features/batch-1.jsonl.gz").symlink_to(outside / "features/batch-0.jsonl.gz")
    (folder / "activations").symlink_to(outside / "features")
    (folder / "features/batch-..%2f.jsonl.gz").touch()
    done = import_source(here, folder, "np")
    assert done.imported == 1
    assert set(done.ignored) == {
        *("activations", "features/batch-..%2f.jsonl.gz", "features/batch-1.jsonl.gz"),
    }


def test_only_the_neurons_asked_for_are_imported(here: Workspace) -> None:
    lines = [feature(index, frac_nonzero=0.5) for index in range(5)]
    assert imported(here, {"features": lines}, neurons={1, 3}).imported == 2
    with pytest.raises(RunMismatch):
        imported(here, {"features": lines}, neurons={1})
    with pytest.raises(DataError, match="none of the neurons asked for"):
        imported(here, {"features": lines}, neurons={7})


def test_single_files_and_the_command(
    here: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content: dict[str, list[Json]] = {
        "features": [feature(0, frac_nonzero=0.5)],
        "activations": [activation(0), activation(1, values=[1])],
        "explanations": [explanation(0)],
    }
    folder = write(tmp_path / "in", content)
    run = in_process(monkeypatch, capsys)
    for part in content:
        file = folder / part / "batch-0.jsonl.gz"
        given = ("import", "neuronpedia", file, "--name", part, "--workspace", here.root)
        done = run(*given)
        assert done.code == (1 if part == "activations" else 0)
        assert f"{part}: 1 neurons imported ({SITE})" in done.out
        assert run(*given).out == done.out  # again: nothing changes
    assert "batch-0.jsonl.gz, line 2: field values" in run(
        "import", "neuronpedia", folder / "activations/batch-0.jsonl.gz",
        "--name", "activations", "--workspace", here.root,
    ).err  # fmt: skip
    bad = run("import", "neuronpedia", tmp_path, "--name", "x", "--workspace", here.root)
    assert bad.code == 2
    assert bad.err.startswith("error: ")
    assert bad.err.count("\n") == 1
