"""`inspect`: what it says of a model and of autoencoders that fit and that do not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from commands import Command, in_process

from neuron_explainer.collect.corpus import CorpusSource
from neuron_explainer.collect.inspection import SelfCheck, check, groups, self_check
from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.sparse_formats import load

_SITE = "blocks.2.hook_resid_post"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture
def arguments(tiny: Path) -> list[object]:
    """The example's model and autoencoder, and its corpus to try it on."""
    sae = tiny / "sae" / f"{_SITE}.pt"
    return ["inspect", tiny / "model", "--sae", sae, "--corpus", tiny / "corpus.jsonl.gz"]


def test_a_model_is_described_on_a_screen(command: Command, tiny: Path) -> None:
    done = command("inspect", tiny / "model")
    assert done.code == 0
    assert "gpt2, 4 layers of width 128 with 4 heads, float32" in done.out
    assert "vocabulary 2,000, context 256 tokens" in done.out
    assert "mlp.hook_post        512 neurons in blocks 0 to 3" in done.out
    assert len(done.out.splitlines()) == 11
    report = command("inspect", tiny / "model", "--json").json()
    assert (report["architecture"], report["context"]) == ("gpt2", 256)


def test_experts_are_one_line(tiny: Path) -> None:
    config, settings, _ = tiny_models.MODELS["mixtral"]
    model = tiny_models.build(config, settings)
    sites = HuggingFaceSubject(model, tiny_models.tokenizer(tiny)).sites()
    found = {group.hook: group for group in groups(sites)}
    assert found["mlp.experts.N.hook_post"].sites == 8
    assert found["mlp.experts.N.hook_post"].layers == (0, 1)
    assert len(found) == 8


def test_an_autoencoder_that_fits_gets_no_warning(
    command: Command, arguments: list[object]
) -> None:
    report: Any = command(*arguments, "--site", _SITE, "--json").json()
    found = report["autoencoder"]
    assert (found["architecture"], found["k"], found["latents"]) == ("topk", 16, 1024)
    assert (found["hook"], found["width"], found["normalisation"]) == (_SITE, 128, "layer norm")
    assert found["check"]["tokens"] == 4096
    assert 0.1 < found["check"]["normalised_mse"] < 0.2
    assert found["check"]["l0"] == pytest.approx(16, abs=0.5)
    assert found["warnings"] == []
    said = command(*arguments, "--site", _SITE).out
    assert "topk, k 16: 1,024 latents of width 128, normalisation layer norm" in said
    assert "warning" not in said


def test_an_autoencoder_at_another_site_is_noticed(
    command: Command, arguments: list[object]
) -> None:
    done = command(*arguments, "--site", "blocks.0.hook_attn_out")
    assert done.code == 0
    assert "warning: its normalised MSE is" in done.out
    assert "it may be of another site or model" in done.out


def test_an_autoencoder_loaded_without_its_normalisation_is_noticed(
    command: Command, arguments: list[object], tmp_path: Path
) -> None:
    state = torch.load(Path(str(arguments[3])), weights_only=True)
    torch.save({**state, "activation": "ReLU"}, tmp_path / "relu.pt")
    arguments[3] = tmp_path / "relu.pt"
    assert "warning: its normalised MSE is" in command(*arguments, "--site", _SITE).out


def test_few_active_latents_and_undefined_errors_are_told() -> None:
    assert SelfCheck(100, None, None, 5.0, 0.5).warnings == ()
    assert SelfCheck(100, 0.1, 0.9, 0.2, 0.99).warnings == (
        "only 0.2 latents are active at a token",
    )


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("--sae", "x.pt"), "no autoencoder at x.pt"),
        (("--site", _SITE), "give --sae PATH"),
        (("--dtype", "int8"), "choose float32 or float16 or bfloat16"),
        (("--module", "oops"), "write SITE=MODULE:input or :output"),
    ],
)
def test_what_cannot_be_inspected_is_one_line(
    command: Command, tiny: Path, extra: tuple[str, ...], said: str
) -> None:
    done = command("inspect", tiny / "model", *extra)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_corpus_without_text_to_try_on_is_reported(
    command: Command, arguments: list[object], tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("Short.")
    done = command(*arguments[:4], "--corpus", tmp_path / "short.txt", "--site", _SITE)
    assert done.code == 2
    assert "holds too little text to try an autoencoder on" in done.err


def test_a_transcoder_is_judged_by_the_site_that_it_reconstructs(
    tiny: Path, tiny_subject: HuggingFaceSubject
) -> None:
    sae = load(str(tiny / "sae" / f"{_SITE}.pt"))
    transcoder = replace(sae, transcodes=True, subtracts_bias=False)
    x = torch.randn(300, sae.d_in, generator=torch.Generator().manual_seed(0))
    assert self_check(transcoder, x, transcoder.reconstruct(x)).normalised_mse == 0
    corpus = CorpusSource(tiny / "corpus.jsonl.gz", "file", "text")
    with pytest.raises(SubjectError, match="a site that its files do not name, of width 128"):
        check(tiny_subject, _SITE, transcoder, corpus)
    far = replace(transcoder, site_out="blocks.3.hook_mlp_out")
    found = check(tiny_subject, _SITE, far, corpus).normalised_mse
    assert found is not None
    assert found > 1
