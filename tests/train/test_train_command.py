"""`train-sae` on the embedded example, and what the other commands make of it."""

from pathlib import Path
from typing import Any

import pytest
from commands import Command, in_process
from example_corpus import first_documents
from rich.console import Console

from neuron_explainer import workspace
from neuron_explainer.terminal import TerminalProgress

SITE = "blocks.2.hook_resid_post"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def corpus(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "some.jsonl"
    path.write_bytes(first_documents(tiny, 120))
    return path


def test_an_autoencoder_from_model_and_text_to_collected_latents(
    command: Command, tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    to = tmp_path / "saes" / "mine"
    arguments: list[object] = [
        *("train-sae", "--subject", tiny / "model", "--site", SITE, "--corpus", corpus),
        *("--to", to, "--latents", 128, "--k", 16, "--tokens", 30_000, "--batch", 128),
    ]
    report: Any = command(*arguments, "--lr", "4e-3", "--json").json()
    held = report["held_out"]
    assert report["sae"] == str(to)
    assert 15 < held["l0"] <= 16 == held["pca"]["components"]
    assert held["normalised_mse"] < 0.8 * held["pca"]["normalised_mse"]
    assert held["pca"]["normalised_mse"] < held["mean_normalised_mse"]
    assert held["unexplained_variance"] < held["pca"]["unexplained_variance"] < 1
    assert report["training"]["dead"] < 0.2
    again = command(*arguments, "--lr", "4e-3")
    assert again.code == 0
    assert "(was trained already)" in again.out
    assert f"collect --sae {to} --subject" in again.out
    inspected: Any = command("inspect", tiny / "model", "--sae", to, "--corpus", corpus, "--json")
    found = inspected.json()["autoencoder"]
    assert (found["hook"], found["latents"], found["k"]) == (SITE, 128, 16)
    assert found["check"]["normalised_mse"] == pytest.approx(held["normalised_mse"], rel=0.2)
    assert not found["warnings"]
    workspace.init(tmp_path / "here")
    few = tmp_path / "few.jsonl"
    few.write_bytes(first_documents(tiny, 8))
    collected: Any = command(
        *("collect", "--subject", tiny / "model", "--corpus", few, "--sae", to),
        *("--workspace", tmp_path / "here", "--json"),
    )
    assert collected.json()["sites"] == {f"{SITE}/mine": 128}


def test_a_mistake_is_one_line_and_leaves_nothing(
    command: Command, tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    arguments: list[object] = [
        *("train-sae", "--subject", tiny / "model", "--corpus", corpus, "--to", tmp_path / "mine"),
    ]
    for more, said in (
        (("--site", SITE, "--format", "openai"), "gives topk autoencoders the normalisation"),
        (("--site", SITE, "--format", "onnx"), "choose saelens or sparsify or openai"),
        (("--site", SITE, "--k", "8", "--l1", "1"), "give one of them"),
        (("--site", "blocks.2.nothing"), "there is no site 'blocks.2.nothing'"),
    ):
        done = command(*arguments, *more)
        assert done.code == 2
        assert said in done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not (tmp_path / "mine").exists()


def test_figures_are_shown_below_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(stderr=True, force_terminal=True, width=160)
    with TerminalProgress(console).with_figures("train", 100, "tokens") as told:
        told(50, "loss 0.250, L0 15.9, dead 1.0%, density 0.40%")
    shown = capsys.readouterr()
    assert "50/100" in shown.err
    assert "loss 0.250, L0 15.9, dead 1.0%, density 0.40%" in shown.err
    assert not shown.out
    with TerminalProgress(Console(stderr=True)).with_figures("train", 100, "tokens") as told:
        told(50, "loss")
    assert not capsys.readouterr().err
