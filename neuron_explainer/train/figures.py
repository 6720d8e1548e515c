"""What an autoencoder is worth on tokens that it was not trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuron_explainer.subjects.autoencoder import Autoencoder, normalised
from neuron_explainer.subjects.sparse_quality import (
    normalised_mean_squared_error,
    unexplained_variance,
)
from neuron_explainer.train.components import Components

_BLOCK = 1024  # rows that are encoded at once


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """How well rows are reconstructed."""

    normalised_mse: float | None  # None: a row is all zero, or there is none
    unexplained_variance: float | None  # None: all rows are equal


@dataclass(frozen=True, slots=True)
class Principal(Reconstruction):
    """The same of principal components, as many as latents are active at a token."""

    components: int


@dataclass(frozen=True, slots=True)
class Figures(Reconstruction):
    """Of an autoencoder on held-out tokens."""

    tokens: int
    mean_normalised_mse: float | None  # of the mean activation in place of x̂
    l0: float  # latents active at a token, on average
    silent: float  # share of latents that are active at none of the tokens
    density: float  # share of the tokens at which the median latent is active
    pca: Principal


@torch.no_grad()
def measure(autoencoder: Autoencoder, held: Tensor, components: Components, unit: float) -> Figures:
    """Judge `autoencoder` on activations `held` (tokens, width), on the device where they are.

    `components` are of rows as they are encoded, over `unit`: the components get the same
    normalisation, and what it takes off put back.
    """
    autoencoder = autoencoder.on(held.device)
    fired = torch.zeros(autoencoder.n, dtype=torch.int64, device=held.device)
    parts = []
    for block in torch.split(held, _BLOCK):
        fired += (autoencoder.encode(block) > 0).sum(dim=0)
        parts.append(autoencoder.reconstruct(block))
    found = _judged(torch.cat(parts), held)
    l0 = int(fired.sum()) / len(held)
    number = min(held.shape[1], max(1, round(l0)))
    projected = _judged(_projected(autoencoder, held, components, unit, number), held)
    return Figures(
        found.normalised_mse,
        found.unexplained_variance,
        len(held),
        normalised_mean_squared_error(held.mean(dim=0).expand_as(held), held),
        l0,
        int((fired == 0).sum()) / autoencoder.n,
        float(fired.double().median()) / len(held),
        Principal(projected.normalised_mse, projected.unexplained_variance, number),
    )


def _judged(reconstruction: Tensor, held: Tensor) -> Reconstruction:
    return Reconstruction(
        normalised_mean_squared_error(reconstruction, held),
        unexplained_variance(reconstruction, held),
    )


def _projected(
    autoencoder: Autoencoder, held: Tensor, components: Components, unit: float, number: int
) -> Tensor:
    rows, norm = normalised(held, autoencoder.normalisation)
    mean, axes = (part.to(held.device) for part in components.largest(number))
    centred = rows - mean * unit
    rows = centred @ axes @ axes.T + mean * unit
    return rows if norm is None else rows * norm.scale + norm.mean
