"""Interventions in float64: what they change, what they leave, and that effects add up."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from test_architectures import close, observed
from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.interventions import (
    Intervenable,
    Intervention,
    head,
    mean,
    set_to,
    splice,
    zero,
)
from neuron_explainer.subjects.sparse import SparseSubject
from neuron_explainer.subjects.sparse_openai import from_state

_TOKENS = torch.randint(0, 1900, (2, 9), generator=torch.Generator().manual_seed(1))
_RESIDUAL, _MLP = "blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"
_LATENTS = 24


def _autoencoder(d_in: int, activation: str) -> Autoencoder:
    chance = torch.Generator().manual_seed(5)
    state: dict[str, Any] = {
        "pre_bias": torch.randn(d_in, generator=chance),
        "latent_bias": torch.randn(_LATENTS, generator=chance),
        "encoder.weight": torch.randn(_LATENTS, d_in, generator=chance),
        "decoder.weight": torch.randn(d_in, _LATENTS, generator=chance),
        "activation": activation,
        "activation_state_dict": {"k": 3, "postact_fn": "ReLU"},
    }
    return from_state(state, torch.float64)


def _subject(tiny: Path, name: str) -> HuggingFaceSubject:
    config, settings, _ = tiny_models.MODELS[name]
    return HuggingFaceSubject(tiny_models.build(config, settings), tiny_models.tokenizer(tiny))


@pytest.fixture(scope="module")
def subject(tiny: Path) -> HuggingFaceSubject:
    """A tiny random GPT-2."""
    return _subject(tiny, "gpt2")


@pytest.fixture(scope="module", params=["ReLU", "TopK"])
def sparse(subject: HuggingFaceSubject, request: pytest.FixtureRequest) -> SparseSubject:
    """The same with an autoencoder over a residual and one over an MLP site."""
    made = {f"{_RESIDUAL}/sae": _autoencoder(16, request.param)}
    return SparseSubject(subject, made | {f"{_MLP}/sae": _autoencoder(40, request.param)})


def _same(one: Tensor, other: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


def _read(subject: Any, site: str) -> Tensor:
    seen: list[Tensor] = []
    subject.observe(_TOKENS, {site: lambda activations: seen.append(activations.clone())})
    return seen[0]


def test_splicing_in_an_autoencoder_with_its_error_changes_nothing(sparse: SparseSubject) -> None:
    before = sparse.logits(_TOKENS)
    untouched: Intervention = lambda latents: latents  # noqa: E731
    with sparse.intervene({f"{_RESIDUAL}/sae": untouched, f"{_MLP}/sae": untouched}):
        _same(sparse.logits(_TOKENS), before, 1e-10)
    with sparse.intervene({_RESIDUAL: splice(_autoencoder(16, "ReLU"), keep_error=False)}):
        assert (sparse.logits(_TOKENS) - before).abs().max() > 1e-3
    assert torch.equal(sparse.logits(_TOKENS), before)


@pytest.mark.parametrize(("site", "width"), [(_RESIDUAL, 16), (_MLP, 40)])
def test_ablating_a_latent_takes_away_what_it_writes(
    subject: HuggingFaceSubject, site: str, width: int
) -> None:
    autoencoder = _autoencoder(width, "ReLU")
    sparse = SparseSubject(subject, {f"{site}/sae": autoencoder})
    before, latents = _read(sparse, site), _read(sparse, f"{site}/sae")
    index = int(latents.sum((0, 1)).argmax())
    with sparse.intervene({f"{site}/sae": zero([index])}):
        after = _read(sparse, site)
    written = latents[..., [index]] * autoencoder.decoder_weight[:, index]
    assert written.abs().max() > 0.1
    _same(before - after, written, 1e-12)


def test_the_effects_of_all_nodes_and_biases_are_the_difference_of_two_logits(
    subject: HuggingFaceSubject,
) -> None:
    values, logits = observed(subject, _TOKENS), subject.logits(_TOKENS)
    model: Any = subject._model
    norm, final = model.transformer.ln_f, values["blocks.1.hook_resid_post"]
    scale = (final.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()

    def difference(written: Tensor) -> Tensor:
        """On the logits of token 3 over those of token 8, for the stream's own scale."""
        read = subject.unembed(written.reshape(-1, 16))
        return (read[:, 3] - read[:, 8]).reshape(written.shape[:-1])

    total = difference(values["blocks.0.hook_resid_pre"] / scale)
    for layer, block in enumerate(model.transformer.h):
        for hook in ("attn.hook_z", "mlp.hook_post"):
            site = f"blocks.{layer}.{hook}"
            rows = subject.writes(site, slice(None))
            assert rows is not None
            nodes = values[site] / scale * difference(rows)  # (batch, time, neurons)
            total = total + nodes.sum(-1)
        biases = block.attn.c_proj.bias + block.mlp.c_proj.bias
        total = total + difference(biases.detach() / scale)
    ending = model.lm_head.weight @ norm.bias
    total = total + (ending[3] - ending[8]).detach()
    _same(total, logits[..., 3] - logits[..., 8], 1e-9)


def test_values_are_set_at_the_neurons_named_and_nowhere_else(subject: HuggingFaceSubject) -> None:
    before, means = _read(subject, _MLP), torch.arange(40.0)
    changes: dict[str, tuple[Intervention, Tensor]] = {
        "zero": (zero([3, 5]), torch.zeros(2)),
        "mean": (mean([3, 5], means), means[[3, 5]]),
        "value": (set_to([3, 5], 2.5), torch.full((2,), 2.5)),
    }
    for change, expected in changes.values():
        with subject.intervene({_MLP: change}):
            after = _read(subject, _MLP)
        close(after[..., [3, 5]], expected.expand(2, 9, 2))
        others = [index for index in range(40) if index not in {3, 5}]
        assert torch.equal(after[..., others], before[..., others])


def test_a_head_that_is_ablated_writes_nothing(subject: HuggingFaceSubject) -> None:
    site, columns = "blocks.0.attn.hook_z", head(1, subject.heads, 16)
    assert columns == slice(4, 8)
    z, before = _read(subject, site), _read(subject, "blocks.0.hook_attn_out")
    with subject.intervene({site: zero(columns)}):
        after = _read(subject, "blocks.0.hook_attn_out")
    rows = subject.writes(site, columns)
    assert rows is not None
    _same(before - after, z[..., columns] @ rows, 1e-12)


def _doubled(activations: Tensor) -> Tensor:
    return 2 * activations


def _moved(activations: Tensor) -> Tensor:
    return activations + torch.linspace(-1, 1, activations.shape[-1]).to(activations)


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_every_site_can_be_replaced_in_every_architecture(tiny: Path, name: str) -> None:
    subject = _subject(tiny, name)
    assert isinstance(subject, Intervenable)
    before, values = subject.logits(_TOKENS), observed(subject, _TOKENS)
    for site in subject.sites():
        with subject.intervene({site: lambda activations: activations.clone()}):
            close(subject.logits(_TOKENS), before, site)
        with subject.intervene({site: _moved}):
            if ".experts." not in site:  # which are computed apart
                close(_read(subject, site), _moved(values[site]), site)
            changed = subject.logits(_TOKENS)
        assert (changed - before).abs().max() > 1e-4 or not values[site].any(), site
    assert torch.equal(subject.logits(_TOKENS), before)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "opt"])
def test_what_is_put_into_the_stream_stays_in_it(tiny: Path, name: str) -> None:
    subject = _subject(tiny, name)
    values = observed(subject, _TOKENS)
    with subject.intervene({"blocks.0.hook_resid_mid": _moved}):
        middle, mlp = (
            _read(subject, f"blocks.0.{hook}") for hook in ("hook_resid_mid", "hook_mlp_out")
        )
        after = _read(subject, "blocks.0.hook_resid_post")
    close(middle, _moved(values["blocks.0.hook_resid_mid"]))
    close(after, middle + mlp)


def test_an_expert_writes_what_its_activations_say(tiny: Path) -> None:
    """Doubling an expert's neurons adds what they write once more."""
    subject = _subject(tiny, "mixtral")
    before = _read(subject, "blocks.1.hook_mlp_out")
    total = torch.zeros_like(before)
    for expert in range(4):
        with subject.intervene({f"blocks.1.mlp.experts.{expert}.hook_post": _doubled}):
            total += _read(subject, "blocks.1.hook_mlp_out") - before
    close(total, before)


def test_a_site_that_does_not_exist_cannot_be_changed(subject: HuggingFaceSubject) -> None:
    with (
        pytest.raises(SubjectError, match=r"no site 'blocks\.9\.x' to intervene at"),
        subject.intervene({"blocks.9.x": zero([0])}),
    ):
        pass


def test_interventions_end_with_an_error_inside(subject: HuggingFaceSubject) -> None:
    before = subject.logits(_TOKENS)
    with pytest.raises(KeyError), subject.intervene({_MLP: zero(slice(None))}):
        raise KeyError
    assert torch.equal(subject.logits(_TOKENS), before)
