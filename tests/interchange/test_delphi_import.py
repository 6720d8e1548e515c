"""Delphi's caches and explanations as record sets and runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import files, in_process
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from neuron_explainer import workspace
from neuron_explainer.errors import DataError, SubjectError, UserError
from neuron_explainer.interchange import delphi_cache, delphi_import
from neuron_explainer.interchange.delphi_cache import site_of
from neuron_explainer.interchange.import_job import ImportResult
from neuron_explainer.record_set import RecordSet
from neuron_explainer.runs import Run
from neuron_explainer.subjects.tokenizer import HuggingFaceTokenizer, load_tokenizer
from neuron_explainer.workspace import Workspace

HOOK, SITE = "layers.1.mlp", "blocks.1.hook_mlp_out/delphi"
SEQUENCES, LENGTH, LATENTS = 60, 8, 12


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> HuggingFaceTokenizer:
    """The embedded example's."""
    return load_tokenizer(tiny / "model")


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return workspace.init(tmp_path / "workspace")


def dense(seed: int = 0) -> NDArray[np.float16]:
    """Activations (latents, sequences, tokens), mostly 0; the last latent never fires."""
    generator = np.random.default_rng(seed)
    shape = (LATENTS, SEQUENCES, LENGTH)
    fires = generator.random(shape) < np.linspace(0.0, 0.2, LATENTS)[::-1, None, None]
    values: NDArray[np.float16] = np.where(fires, generator.random(shape) * 5, 0.0).astype(
        np.float16
    )
    return values


def tokens() -> NDArray[np.int64]:
    """Token ids (sequences, tokens)."""
    return np.random.default_rng(1).integers(1, 500, (SEQUENCES, LENGTH))


def cached(folder: Path, values: NDArray[np.float16], cut: int = 7, **changes: Any) -> Path:
    """A cache of two files, as Delphi writes it; `changes` replace tensors of the first file."""
    folder.mkdir(parents=True)
    for start, end in ((0, cut - 1), (cut, len(values) - 1)):
        part = values[start : end + 1]
        latent, sequence, position = np.nonzero(part)
        kind = np.uint16 if start else np.uint32
        tensors = {
            "locations": np.stack([sequence, position, latent], 1).astype(kind),
            "activations": part[latent, sequence, position],
            "tokens": tokens(),
        }
        tensors |= changes if not start else {}
        left = {name: item for name, item in tensors.items() if item is not None}
        save_file(left, folder / f"{start}_{end}.safetensors")
    (folder / "config.json").write_text(json.dumps({"width": len(values)}))
    return folder


def imported(
    here: Workspace, source: Path, tokenizer: HuggingFaceTokenizer, **options: Any
) -> ImportResult:
    """What comes of an import."""
    return delphi_import.import_source(here, source, "np", tokenizer, **options)


def test_records_are_exact_and_statistics_run_over_all_tokens(
    here: Workspace, tmp_path: Path, tokenizer: HuggingFaceTokenizer
) -> None:
    values = dense()
    source = cached(tmp_path / HOOK, values)
    done = imported(here, source, tokenizer)
    assert (done.imported, done.failures, done.sites) == (LATENTS, (), (SITE,))
    records = RecordSet(here.data, "np", SITE)
    records.require_complete()
    assert records.width == LATENTS
    for index in range(LATENTS - 1):
        neuron = records.neuron(index)
        own = values[index].astype(np.float64)
        top = np.argsort(-own.max(1), kind="stable")[:20]
        assert [record.sequence for record in neuron.of_kind("top")] == top.tolist()
        assert len(neuron.of_kind("random")) == 20
        for record in neuron.records:
            assert np.array_equal(record.activations, own[record.sequence])
            names = [tokenizer.vocabulary[token] for token in tokens()[record.sequence]]
            assert list(record.tokens) == names
        found = neuron.statistics
        assert found is not None
        assert found.tokens == own.size
        assert found.density == np.mean(own > 0)
        assert found.maximum == own.max()
        assert found.mean == pytest.approx(own.mean(), rel=1e-9)
        assert found.variance == pytest.approx(own.var(), rel=1e-9)
        normal = (own - own.mean()) / own.std()
        assert found.skewness == pytest.approx((normal**3).mean(), rel=1e-9)
        assert found.kurtosis == pytest.approx((normal**4).mean(), rel=1e-9)
        assert found.histogram.sum() == own.size
    silent = records.neuron(LATENTS - 1)
    assert not silent.records
    assert silent.statistics is not None
    assert silent.statistics.density == 0


def test_quantile_records_lie_in_their_bands(
    here: Workspace, tmp_path: Path, tokenizer: HuggingFaceTokenizer
) -> None:
    values = dense()
    imported(here, cached(tmp_path / HOOK, values), tokenizer)
    records = RecordSet(here.data, "np", SITE)
    rows = records.folder.read_all("neurons", ["neuron", "quantile_boundaries"]).to_pylist()
    for index in range(LATENTS - 1):
        edges = [-np.inf, *rows[index]["quantile_boundaries"], np.inf]
        assert edges[1:-1] == np.quantile(values[index].max(1), [0.5, 0.9, 0.99, 0.999]).tolist()
        for record in records.neuron(index).of_kind("quantile"):
            assert record.band is not None
            assert edges[record.band] <= record.maximum <= edges[record.band + 1]


def test_the_same_cache_gives_the_same_bytes_and_draws_are_uniform(
    here: Workspace, tmp_path: Path, tokenizer: HuggingFaceTokenizer
) -> None:
    source = cached(tmp_path / HOOK, dense())
    imported(here, source, tokenizer)
    before = files(here.root)
    shutil.rmtree(here.data / "np")
    imported(here, source, tokenizer)
    assert files(here.root) == before
    records = RecordSet(here.data, "np", SITE)
    drawn = [
        record.sequence
        for index in range(LATENTS - 1)
        for record in records.neuron(index).of_kind("random")
    ]
    assert len(set(drawn)) > 50  # each latent has draws of its own


def test_the_first_token_and_special_ones_do_not_count(
    here: Workspace, tmp_path: Path, tokenizer: HuggingFaceTokenizer
) -> None:
    values, ids = dense(), tokens()
    values[0, :, 0] = 9.0
    ids[:, 3] = int(np.flatnonzero(tokenizer.special)[0])
    imported(here, cached(tmp_path / HOOK, values, tokens=ids), tokenizer, bos_first=True)
    neuron = RecordSet(here.data, "np", SITE).neuron(0)
    counted = np.delete(values[0].astype(np.float64), [0, 3], axis=1)
    assert neuron.statistics is not None
    assert neuron.statistics.maximum == counted.max() < 9.0
    assert neuron.statistics.tokens == counted.size
    assert neuron.of_kind("top")[0].maximum == counted.max()
    assert neuron.of_kind("top")[0].activations[0] == 9.0  # shown


def test_explanations_make_a_run(
    here: Workspace, tmp_path: Path, tokenizer: HuggingFaceTokenizer
) -> None:
    source = tmp_path / "run"
    cached(source / "latents" / HOOK, dense())
    texts = source / "explanations"
    texts.mkdir()
    for name, content in {
        f"{HOOK}_latent0.txt": '"words about rain"',
        f"{HOOK}_latent3.txt": '"na\\u00efve"',
        f"{HOOK}_latent4.txt": "no JSON",
        f"{HOOK}_latent5.txt": "[" * 100_000,
        f"{HOOK}_latent6.txt": '"\\ud800"',
        f"{HOOK}_latent7.txt": "3",
        f"{HOOK}_latent900.txt": '"not in the cache"',
        f"{HOOK}_latent-1.txt": '"x"',
        "layers.9.mlp_latent1.txt": '"another hookpoint"',
    }.items():
        (texts / name).write_text(content)
    (texts / f"{HOOK}_latent8.txt").symlink_to(tmp_path / "elsewhere")
    (source / "scores").mkdir()
    done = imported(here, source, tokenizer)
    assert done.imported == LATENTS + 1
    assert {failure.neuron.index: failure.cause for failure in done.failures} == dict.fromkeys(
        (4, 5, 6, 7), "malformed"
    )
    assert all(failure.message.startswith(f"{HOOK}_latent") for failure in done.failures)
    assert set(done.ignored) == {
        *(f"{HOOK}_latent-1.txt", f"{HOOK}_latent8.txt", "layers.9.mlp_latent1.txt", "scores/"),
    }
    run, records = Run(here, "np"), RecordSet(here.data, "np", SITE)
    found = {
        index: explanation.text
        for index in range(LATENTS)
        if (explanation := run.explanation(records.neuron(index).neuron))
    }
    assert found == {0: "words about rain", 3: "naïve"}


@pytest.mark.parametrize(
    ("hookpoint", "site"),
    [
        ("layers.6.mlp", "blocks.6.hook_mlp_out"),
        ("layers.6", "blocks.6.hook_resid_post"),
        ("model.layers.12", "blocks.12.hook_resid_post"),
        ("transformer.h.6.mlp.act", "blocks.6.mlp.hook_post"),
        ("h.0.attn", "blocks.0.hook_attn_out"),
        ("gpt_neox.layers.3.attention", "blocks.3.hook_attn_out"),
        ("blocks.2.hook_resid_pre", "blocks.2.hook_resid_pre"),
    ],
)
def test_hookpoints_have_sites(hookpoint: str, site: str) -> None:
    assert site_of(hookpoint) == f"{site}/delphi"


@pytest.mark.parametrize("hookpoint", ["embed_in", "layers.x", "layers.6.mlp.odd", "../layers.6"])
def test_an_unknown_hookpoint_must_be_named(hookpoint: str) -> None:
    with pytest.raises(DataError, match="--site"):
        site_of(hookpoint)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"activations": np.zeros(3, np.float16)}, "field locations: .*expected"),
        ({"activations": None}, "field activations: missing"),
        ({"locations": np.zeros((5, 2), np.uint16)}, "field locations"),
        ({"locations": np.zeros((5, 3), np.float32)}, "field locations: F32"),
        ({"activations": np.zeros((5, 1), np.float16)}, "field activations"),
        ({"tokens": np.zeros((5, 3), np.float32)}, "field tokens: F32"),
        ({"tokens": -np.ones((5, 3), np.int64)}, "field tokens: no token ids"),
        ({"tokens": np.full((5, 3), 99_999)}, "the tokenizer has"),
        ({"tokens": np.zeros((1, 20_000), np.int64)}, "field tokens: .* too many"),
        (
            {
                "locations": np.array([[0, 0, 7]], np.uint16),
                "activations": np.ones(1, np.float16),
            },
            "latent 7 is not in it",
        ),
    ],
)
def test_a_file_that_is_not_a_cache_is_one_line_of_error(
    here: Workspace,
    tmp_path: Path,
    tokenizer: HuggingFaceTokenizer,
    changes: dict[str, Any],
    says: str,
) -> None:
    source = cached(tmp_path / HOOK, dense(), **changes)
    with pytest.raises(DataError, match=says) as error:
        imported(here, source, tokenizer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "value", "says"),
    [
        ((SEQUENCES, 0, 2), 1.0, f"field locations: sequence {SEQUENCES}; the cache has"),
        ((0, LENGTH, 2), 1.0, f"field locations: position {LENGTH}; a sequence has"),
        ((0, 0, 2), np.nan, "field activations: not a finite number"),
        ((0, 0, 2), np.inf, "field activations: not a finite number"),
    ],
)
def test_a_bad_row_costs_its_latent(
    here: Workspace,
    tmp_path: Path,
    tokenizer: HuggingFaceTokenizer,
    row: tuple[int, int, int],
    value: float,
    says: str,
) -> None:
    good = np.array([[1, 1, 0], row], np.uint16)
    changes: dict[str, Any] = {"locations": good, "activations": np.array([2.0, value], np.float16)}
    done = imported(here, cached(tmp_path / HOOK, dense(), **changes), tokenizer)
    (failure,) = done.failures
    assert failure.neuron.index == 2
    assert says in failure.message
    assert done.imported == LATENTS - 1


def test_a_position_that_is_there_twice_costs_its_latent(
    here: Workspace, tmp_path: Path, tokenizer: HuggingFaceTokenizer
) -> None:
    twice = np.array([[1, 1, 0], [1, 1, 0]], np.uint16)
    changes: dict[str, Any] = {"locations": twice, "activations": np.ones(2, np.float16)}
    done = imported(here, cached(tmp_path / HOOK, dense(), **changes), tokenizer)
    assert [failure.message for failure in done.failures] == [
        "latent 0: field locations: a position is there twice"
    ]


def test_damaged_and_overlapping_files_are_errors(
    here: Workspace,
    tmp_path: Path,
    tokenizer: HuggingFaceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = cached(tmp_path / HOOK, dense())
    good = (source / "0_6.safetensors").read_bytes()
    for content in (good[:-5], b"\xff" * 100, b""):
        (source / "0_6.safetensors").write_bytes(content)
        with pytest.raises(DataError, match=r"layers\.1\.mlp/0_6\.safetensors is malformed"):
            imported(here, source, tokenizer)
    (source / "0_6.safetensors").write_bytes(good)
    with monkeypatch.context() as patch:
        patch.setattr(delphi_cache, "MOST_ROWS", 5)
        with pytest.raises(DataError, match="over 5 activations"):
            imported(here, source, tokenizer)
    shutil.rmtree(here.data / "np")
    (source / "6_99999999.safetensors").write_bytes(good)
    with pytest.raises(DataError, match="about the same latents"):
        imported(here, source, tokenizer)
    (source / "6_99999999.safetensors").rename(source / "20_99999999.safetensors")
    with pytest.raises(DataError, match="latents are not read"):
        imported(here, source, tokenizer)


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(0, LATENTS - 1), min_size=1))
@settings(max_examples=8, deadline=None)
def test_any_latents_can_be_imported_alone(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: HuggingFaceTokenizer,
    seed: int,
    chosen: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("delphi")
    here = workspace.init(folder / "workspace")
    values = dense(seed)
    done = imported(here, cached(folder / HOOK, values), tokenizer, neurons=chosen)
    assert done.imported == len(chosen)
    for index in chosen:
        statistics = RecordSet(here.data, "np", SITE).neuron(index).statistics
        assert statistics is not None
        assert statistics.maximum == values[index].max()


def test_the_command_needs_a_tokenizer_and_tokens(
    here: Workspace,
    tmp_path: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = in_process(monkeypatch, capsys)
    source = cached(tmp_path / "odd-name", dense())
    given = ("import", "delphi", source, "--name", "np", "--workspace", here.root)
    refused = run(*given)
    assert refused.code == 2
    assert "give the folder of the model's tokenizer by --tokenizer" in refused.err
    assert "no hookpoint that is known" in run(*given, "--tokenizer", tiny / "model").err
    named = ("--tokenizer", tiny / "model", "--site", "blocks.0.hook_resid_post/x")
    done = run(*given, *named)
    assert done.code == 0, done.err
    assert f"np: {LATENTS} neurons imported (blocks.0.hook_resid_post/x)" in done.out
    assert run("show", "np/blocks.0.hook_resid_post/x/0", "--workspace", here.root).code == 0
    for path in source.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match="holds no HOOKPOINT"):
        imported(here, source, load_tokenizer(tiny / "model"))
    with pytest.raises(SubjectError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
