"""Every site of every architecture, against forward passes that use none of its modules."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from reference_forward import forward
from torch import Tensor

from neuron_explainer.subjects.huggingface import HuggingFaceSubject

_TOKENS = torch.randint(0, 1900, (3, 9), generator=torch.Generator().manual_seed(1))


def close(actual: Tensor, expected: Tensor, where: str = "") -> None:
    """Equal to 1e-5, whatever the precisions."""
    actual, expected = actual.detach().double(), expected.detach().double()
    torch.testing.assert_close(
        actual, expected, atol=1e-5, rtol=1e-5, msg=lambda text: f"{where}: {text}"
    )


def observed(subject: HuggingFaceSubject, tokens: Tensor) -> dict[str, Tensor]:
    """All sites of `tokens`, copied as they pass."""
    values: dict[str, Tensor] = {}

    def keeping(site: str) -> Any:
        def keep(activations: Tensor) -> None:
            values[site] = activations.double().clone()

        return keep

    subject.observe(tokens, {site: keeping(site) for site in subject.sites()})
    return values


@pytest.fixture(scope="module", params=tiny_models.MODELS)
def name(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> Any:
    """A tiny random one."""
    config, settings, _ = tiny_models.MODELS[name]
    return tiny_models.build(config, settings)


@pytest.fixture(scope="module")
def subject(model: Any, tiny: Path) -> HuggingFaceSubject:
    """The model as a subject."""
    return HuggingFaceSubject(model, tiny_models.tokenizer(tiny))


@pytest.fixture(scope="module")
def expected(name: str, model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Sites and logits of the reference."""
    made = tiny_models.MODELS[name][2](model.config, model.state_dict())
    return forward(made, _TOKENS)


def test_every_site_is_that_of_a_plain_forward_pass(
    model: Any, subject: HuggingFaceSubject, expected: tuple[dict[str, Tensor], Tensor]
) -> None:
    sites, logits = expected
    close(model(_TOKENS).logits, logits)
    values = observed(subject, _TOKENS)
    assert values.keys() == sites.keys() == subject.sites().keys()
    for site, value in values.items():
        close(value, sites[site], site)
        assert value.shape == (3, 9, subject.sites()[site])


def test_padding_on_the_right_changes_nothing_before_it(subject: HuggingFaceSubject) -> None:
    padded = torch.cat([_TOKENS, torch.zeros(3, 5, dtype=torch.int64)], 1)
    alone = observed(subject, _TOKENS[1:2])
    for site, value in observed(subject, padded).items():
        close(value[1:2, :9], alone[site])


def test_the_forward_pass_ends_at_the_last_site_asked_for(
    model: Any, subject: HuggingFaceSubject
) -> None:
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in model.named_modules()
    ]
    subject.observe(_TOKENS, {"blocks.0.hook_attn_out": lambda _: None})
    for handle in handles:
        handle.remove()
    assert ran
    assert not any(".1." in name or "down" in name or "c_proj" in name[-10:-6] for name in ran)
    assert not any("lm_head" in name for name in ran)


def test_what_neurons_write_adds_up_to_what_attention_and_mlp_add(
    model: Any, subject: HuggingFaceSubject, expected: tuple[dict[str, Tensor], Tensor]
) -> None:
    """Up to biases, and the scale of a norm behind: both fall out of a difference at one place."""
    sites, _ = expected
    for inner, outer in (("attn.hook_z", "hook_attn_out"), ("mlp.hook_post", "hook_mlp_out")):
        if f"blocks.1.{inner}" not in sites:
            continue  # experts, which are tested below
        place = subject._places[f"blocks.1.{inner}"]
        rows = subject.writes(f"blocks.1.{inner}", slice(None))
        assert rows is not None
        rows = rows.double().clone()
        values = sites[f"blocks.1.{inner}"].reshape(-1, len(rows))
        added = sites[f"blocks.1.{outer}"].reshape(-1, subject.width)
        written = values @ rows
        if place.norm is None:
            difference = added - written
            close(difference, difference[:1].expand_as(difference))
        else:
            ratio = added / written
            close(ratio, ratio[:, :1].expand_as(ratio))


def test_what_neurons_read_is_what_enters_the_mlp(
    subject: HuggingFaceSubject, expected: tuple[dict[str, Tensor], Tensor]
) -> None:
    """Up to biases, which fall out of a difference, and to the norm's scale at each of two places.

    The two scales are fitted: two numbers for all neurons.
    """
    sites, _ = expected
    stream = sites.get("blocks.1.hook_resid_mid", sites["blocks.1.hook_resid_pre"])
    one, other = stream.reshape(-1, subject.width)[:2].double()
    hooks = [hook for hook in ("hook_pre", "hook_pre_linear") if f"blocks.1.mlp.{hook}" in sites]
    for hook in hooks:
        site = f"blocks.1.mlp.{hook}"
        rows = subject.reads(site, slice(None))
        assert rows is not None
        before = sites[site].reshape(-1, len(rows)).double()
        products = torch.stack([rows.double() @ one, -(rows.double() @ other)], 1)
        scales = torch.linalg.lstsq(products, (before[0] - before[1])[:, None]).solution
        assert (scales > 0).all()
        close(products @ scales, (before[0] - before[1])[:, None], site)
    if hooks:
        gates = [
            subject.reads(f"blocks.1.mlp.{hook}", slice(3)) for hook in ("hook_pre", "hook_post")
        ]
        assert gates[0] is not None
        assert gates[1] is not None
        assert gates[0].equal(gates[1])


@torch.no_grad()
def test_experts_write_what_the_mlp_adds(tiny: Path) -> None:
    config, settings, _ = tiny_models.MODELS["mixtral"]
    model = tiny_models.build(config, settings)
    subject = HuggingFaceSubject(model, tiny_models.tokenizer(tiny))
    sites = observed(subject, _TOKENS)
    block = model.model.layers[1]
    normed = block.post_attention_layernorm(sites["blocks.1.hook_resid_mid"].float())
    _, weights, chosen = block.mlp.gate(normed)
    total = torch.zeros(27, subject.width, dtype=torch.float64)
    for expert in range(4):
        site = f"blocks.1.mlp.experts.{expert}.hook_post"
        rows = subject.writes(site, slice(None))
        assert rows is not None
        share = (weights * (chosen == expert)).sum(-1, keepdim=True)
        total += share * (sites[site].reshape(27, -1) @ rows.double().clone())
    close(total.view(3, 9, -1), sites["blocks.1.hook_mlp_out"])


def test_directions_read_as_the_logits_that_they_add(
    name: str, model: Any, subject: HuggingFaceSubject
) -> None:
    """The final norm and the head of the reference, but for the norm's scale and biases."""
    made = tiny_models.MODELS[name][2](model.config, model.state_dict())
    generator = torch.Generator().manual_seed(2)
    stream, direction = torch.randn(2, 1, subject.width, generator=generator).double()
    head = model.get_output_embeddings()
    weight = head.weight.double()
    odd = ((made.final(stream) - made.final(-stream)) @ weight.T).detach()
    own = subject.unembed(stream)
    assert own.shape == (1, 2000)
    factor = (odd / own).median()
    assert factor > 0
    close(own * factor, odd)
    parts = subject.unembed(direction) + subject.unembed(stream - direction)
    close(own, parts)
