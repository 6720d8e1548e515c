"""What a training leaves on disk: in every format, after a kill, beside other files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from commands import files
from fake_subject import SITE, FakeSubject, table_lookup, write_documents

from neuron_explainer.config import SubjectSettings, TrainSettings
from neuron_explainer.errors import (
    ConfigError,
    CorpusError,
    DataError,
    RunMismatch,
    SubjectError,
    UserError,
    WorkspaceError,
)
from neuron_explainer.subjects.sparse_formats import files_of, load, site_of
from neuron_explainer.train.stage import Trained, train
from neuron_explainer.train.training import Told

_VOCABULARY, _WIDTH, _LATENTS = 120, 8, 16


def _subject(numbers: Any = None) -> FakeSubject:
    """Each token has activations of its own; they are of one sign and far from zero."""
    table = np.random.default_rng(0).normal(5.0, 2.0, (_VOCABULARY, _WIDTH)).astype(np.float32)
    return FakeSubject({SITE: table_lookup(table if numbers is None else numbers)}, _VOCABULARY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 documents of eight tokens."""
    tokens = np.random.default_rng(1).integers(2, _VOCABULARY, (200, 8))
    return write_documents(tmp_path_factory.mktemp("corpus") / "texts.jsonl", tokens.tolist())


@pytest.fixture
def settings(corpus: Path) -> TrainSettings:
    """A training of 60 steps."""
    return TrainSettings(
        site=SITE,
        corpus=str(corpus),
        excerpt_tokens=8,
        minimum_tokens=2,
        latents=_LATENTS,
        k=3,
        tokens=60 * 64,
        batch=64,
        forward=4,
        checkpoint=640,
    )


def _train(to: Path, settings: TrainSettings, **more: Any) -> Trained:
    return train(to, SubjectSettings(model="fake"), settings, **{"subject": _subject(), **more})


_KINDS = (
    ("saelens", 3, None, "none"),
    ("saelens", 3, None, "layer_norm"),
    ("saelens", None, 0.1, "constant_norm_rescale"),
    ("sparsify", 3, None, "none"),
    ("openai", 3, None, "layer_norm"),
    ("openai", None, 0.1, "none"),
)


@pytest.mark.parametrize(("name", "k", "l1", "normalisation"), _KINDS)
def test_what_was_trained_reads_back_from_every_format(
    settings: TrainSettings, tmp_path: Path, name: Any, k: Any, l1: Any, normalisation: Any
) -> None:
    chosen = replace(settings, file_format=name, k=k, l1=l1, normalisation=normalisation)
    done = _train(tmp_path / "mine", chosen)
    read = load(str(done.path))
    assert (read.k, read.normalisation, read.format) == (k, normalisation, name)
    assert (read.n, read.d_in, read.subtracts_bias) == (_LATENTS, _WIDTH, True)
    lengths = read.decoder_weight.norm(dim=0)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    held = done.report["held_out"]
    table = _subject()._functions[SITE](torch.arange(2, _VOCABULARY)[None])[0]
    error = (read.reconstruct(table) - table).square().sum()
    unexplained = float(error / (table - table.mean(dim=0)).square().sum())
    assert unexplained == pytest.approx(held["unexplained_variance"], rel=0.3)
    assert unexplained < 0.9
    assert done.named == (name == "saelens")
    assert site_of(str(done.path), None if done.named else SITE) == SITE
    assert not (tmp_path / "mine" / ".training").exists()


def test_sparsify_names_its_site_where_the_folder_does(
    settings: TrainSettings, tmp_path: Path
) -> None:
    site = "blocks.3.hook_mlp_out"
    subject = FakeSubject({site: _subject()._functions[SITE]}, _VOCABULARY)
    chosen = replace(settings, file_format="sparsify", site=site)
    done = _train(tmp_path / "layers.3.mlp", chosen, subject=subject)
    assert done.named
    assert not any("does not name" in notice for notice in done.notices)
    assert site_of(str(done.path), None) == site
    other = _train(tmp_path / "mine", chosen, subject=subject)
    assert not other.named
    assert any("does not name blocks.3.hook_mlp_out: give --site" in said for said in other.notices)


def test_the_report_lies_beside_the_weights_and_is_no_part_of_them(
    settings: TrainSettings, tmp_path: Path
) -> None:
    done = _train(tmp_path / "mine", settings)
    report = orjson.loads((tmp_path / "mine" / "training.json").read_bytes())
    assert report["held_out"] == done.report["held_out"]
    assert report["config"]["k"] == 3
    assert report["training"]["steps"] == 60
    assert report["training"]["passes"] == pytest.approx(60 * 64 / (180 * 8))
    assert report["held_out"]["tokens"] == 20 * 8
    assert report["held_out"]["l0"] <= 3
    assert [path.name for path in files_of(str(done.path))] == [
        "cfg.json",
        "sae_weights.safetensors",
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    settings: TrainSettings, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _train(tmp_path / name, replace(settings, seed=seed))
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert first["sae_weights.safetensors"] != other["sae_weights.safetensors"]


@contextmanager
def _killing(label: str, total: int, unit: str) -> Iterator[Told]:
    """A display that ends the process, so to say, at two thirds."""
    seen = [0]

    def told(amount: int, figures: str) -> None:
        seen[0] += amount
        if seen[0] > total * 2 / 3:
            raise KeyboardInterrupt

    yield told


@pytest.mark.parametrize("l1", [None, 0.1])
def test_a_killed_training_goes_on_to_the_same_bytes(
    settings: TrainSettings, tmp_path: Path, l1: float | None
) -> None:
    settings = replace(settings, l1=l1, k=None if l1 else 3, memory_mb=16)
    _train(tmp_path / "whole" / "mine", settings)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "mine", settings, display=_killing)
    with pytest.raises(SubjectError, match="it is no autoencoder's"):
        load(str(tmp_path / "mine"))
    assert (tmp_path / "mine" / ".training" / "state.pt").is_file()
    steps: list[int] = []

    @contextmanager
    def counting(label: str, total: int, unit: str) -> Iterator[Told]:
        yield lambda amount, _: steps.append(amount)

    _train(tmp_path / "mine", settings, display=counting)
    assert 640 <= steps[0] <= 60 * 64 * 2 / 3  # what a checkpoint had kept
    assert files(tmp_path / "mine") == files(tmp_path / "whole" / "mine")


def test_a_damaged_state_begins_again(settings: TrainSettings, tmp_path: Path) -> None:
    _train(tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "mine", settings, display=_killing)
    state = tmp_path / "mine" / ".training" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    _train(tmp_path / "mine", settings)
    assert files(tmp_path / "mine") == files(tmp_path / "whole")


def test_an_unfinished_training_is_not_gone_on_with_other_settings(
    settings: TrainSettings, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "mine", settings, display=_killing)
    before = files(tmp_path / "mine")
    with pytest.raises(RunMismatch, match=r"\.training was made with lr = 0\.016, not 0\.01"):
        _train(tmp_path / "mine", replace(settings, lr=0.01))
    assert files(tmp_path / "mine") == before


def test_a_finished_training_is_not_repeated_and_not_written_over(
    settings: TrainSettings, tmp_path: Path
) -> None:
    first = _train(tmp_path / "mine", settings)
    before = files(tmp_path / "mine")
    again = _train(tmp_path / "mine", replace(settings, checkpoint=0))
    assert again.skipped
    assert again.report["held_out"] == first.report["held_out"]
    with pytest.raises(RunMismatch, match="was trained with another seed; choose another --to"):
        _train(tmp_path / "mine", replace(settings, seed=1))
    assert files(tmp_path / "mine") == before
    (tmp_path / "mine" / "training.json").write_bytes(b"{")
    with pytest.raises(DataError, match="is damaged"):
        _train(tmp_path / "mine", settings)


def test_a_folder_of_something_else_is_left_alone(settings: TrainSettings, tmp_path: Path) -> None:
    (tmp_path / ".thesis.tmp").write_text("mine")
    with pytest.raises(WorkspaceError, match="holds files of something else"):
        _train(tmp_path, settings)
    with pytest.raises(WorkspaceError, match="is a file: --to takes a folder"):
        _train(tmp_path / ".thesis.tmp", settings)
    assert files(tmp_path) == {".thesis.tmp": b"mine"}


_CONSTANT = np.ones((_VOCABULARY, _WIDTH), np.float32)


@pytest.mark.parametrize(
    ("changed", "numbers", "error", "said"),
    [
        ({"l1": 0.1}, None, ConfigError, "--k is for TopK and --l1 for ReLU: give one"),
        ({"k": 17}, None, ConfigError, "--k 17 of 16 latents"),
        ({"k": None, "l1": -1.0}, None, ConfigError, r"--l1 is -1\.0: it must be a number above 0"),
        ({"lr": float("nan")}, None, ConfigError, "--lr is nan"),
        ({"warm_up": 0.6, "decay": 0.6}, None, ConfigError, "must not exceed 1"),
        ({"site": ""}, None, ConfigError, "no site was named"),
        ({"site": "blocks.0.attn.hook_pattern"}, None, ConfigError, "holds patterns"),
        ({"site": "blocks.9.hook_z"}, None, SubjectError, "there is no site 'blocks.9.hook_z'"),
        ({"corpus": "nowhere"}, None, CorpusError, "no corpus at nowhere"),
        ({"minimum_tokens": 9, "excerpt_tokens": 9}, None, CorpusError, "no document of 9 tokens"),
        ({"excerpt_tokens": 5000}, None, SubjectError, "--excerpt-tokens 1023 or less"),
        ({"lr": 1e30, "k": None, "l1": 0.1}, None, ConfigError, "choose a smaller --lr"),
        ({}, _CONSTANT, SubjectError, "the same activations at every token"),
        ({}, _CONSTANT * np.inf, SubjectError, "infinite or NaN"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    settings: TrainSettings,
    tmp_path: Path,
    changed: dict[str, Any],
    numbers: Any,
    error: type[UserError],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        _train(tmp_path / "mine", replace(settings, **changed), subject=_subject(numbers))
    left = tmp_path / "mine"
    assert not left.exists() or not files(left).keys() - {".lock"}
    shutil.rmtree(left, ignore_errors=True)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("sparsify", {"k": None, "l1": 0.1}, r"has no standard, only topk: choose --format openai"),
        ("sparsify", {"normalisation": "layer_norm"}, "takes --k with --normalisation none$"),
        ("openai", {}, "--format saelens or sparsify; --format openai takes --k with"),
        ("openai", {"k": None, "l1": 1.0, "normalisation": "layer_norm"}, "or --l1 with --norm"),
    ],
)
def test_a_format_that_cannot_hold_it_is_refused_before_anything_is_loaded(
    settings: TrainSettings, tmp_path: Path, name: Any, changed: dict[str, Any], said: str
) -> None:
    chosen = replace(settings, file_format=name, **changed)
    with pytest.raises(ConfigError, match=said):
        train(tmp_path / "mine", SubjectSettings(model="no such model"), chosen)
    assert not (tmp_path / "mine").exists()


def test_an_autoencoder_trained_without_bos_says_so(
    settings: TrainSettings, tmp_path: Path
) -> None:
    with_bos = load(str(_train(tmp_path / "a", settings).path))
    without = load(str(_train(tmp_path / "b", replace(settings, bos="none")).path))
    assert (with_bos.with_bos, without.with_bos) == (True, False)
    assert not with_bos.notes
    assert "without a beginning-of-sequence token: --bos none" in without.notes[0]
