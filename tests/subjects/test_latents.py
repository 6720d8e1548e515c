"""Latents as lists of those that are not zero: the same numbers as all of them."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from neuron_explainer.subjects.autoencoder import Autoencoder, Magnitude
from neuron_explainer.subjects.base import Latents, Observer
from neuron_explainer.subjects.chosen import chosen_of
from neuron_explainer.subjects.sparse import SparseSubject

_N, _D = 24, 6
_BELOW, _SITE = "blocks.0.hook_resid_post", "blocks.0.hook_resid_post/sae"
_KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "standard": dict,
    "topk": lambda: {"k": 4, "normalisation": "layer_norm"},
    "jumprelu": lambda: {"threshold": torch.full((_N,), 0.3)},
    "gated": lambda: {"magnitude": Magnitude(torch.zeros(_N), torch.full((_N,), 0.1))},
}


def _autoencoder(kind: str) -> Autoencoder:
    torch.manual_seed(1)
    return Autoencoder(
        encoder_weight=torch.randn(_N, _D),
        encoder_bias=torch.randn(_N) - 1,
        decoder_weight=torch.randn(_D, _N),
        decoder_bias=torch.zeros(_D),
        **_KINDS[kind](),
    )


def _all_of(latents: Latents) -> Tensor:
    batch, time, count = latents.shape
    dense = torch.zeros(batch * time, count)
    dense[latents.place, latents.latent] = latents.value
    return dense.view(batch, time, count)


class _Noise:
    """One residual site of noise."""

    tokenizer: Any = None
    context = 64

    def sites(self) -> Mapping[str, int]:
        return {_BELOW: _D}

    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        torch.manual_seed(int(tokens.sum()))
        values = torch.randn(*tokens.shape, _D)
        for observer in observers.values():
            observer(values)


@pytest.mark.parametrize("kind", list(_KINDS))
def test_a_list_holds_each_latent_that_is_not_zero_in_order_of_place(kind: str) -> None:
    autoencoder, inputs = _autoencoder(kind), torch.randn(3, 5, _D)
    latents, expected = autoencoder.encode_sparse(inputs), autoencoder.encode(inputs)
    assert latents.shape == (3, 5, _N)
    assert torch.equal(_all_of(latents), expected)
    assert torch.equal(latents.place, latents.place.sort().values)
    assert 0 < len(latents.value) < expected.numel() / 1.5
    cells = latents.place * _N + latents.latent
    assert len(set(cells.tolist())) == len(cells)


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_chosen_latents_are_listed_under_their_places(kind: str) -> None:
    subject = SparseSubject(_Noise(), {_SITE: _autoencoder(kind)})
    chosen = chosen_of(subject, {_SITE: [1, 7, 20], _BELOW: [2]})
    tokens = torch.ones((2, 4), dtype=torch.int64)
    assert subject.latents() == {_SITE: _N}
    assert chosen.latents() == {_SITE: 3}
    seen: dict[str, Any] = {}
    chosen.observe(tokens, {_SITE: lambda values: seen.update(all=values)})
    chosen.observe_latents(
        tokens,
        {_BELOW: lambda values: seen.update(below=values)},
        {_SITE: lambda latents: seen.update(listed=latents)},
    )
    assert seen["below"].shape == (2, 4, 1)
    assert torch.equal(_all_of(seen["listed"]), seen["all"])
