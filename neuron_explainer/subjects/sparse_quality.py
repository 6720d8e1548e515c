"""Whether an autoencoder fits the activations that it is given.

Weights loaded with the wrong normalisation, or at the wrong site, give latents that look plausible:
the reconstruction tells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuron_explainer.subjects.autoencoder import Autoencoder

_ROWS = 4096  # encoded at once
# Published autoencoders reconstruct with errors of 0.05 to 0.3; a misread one passes 1.
POOR_RECONSTRUCTION = 0.5
# A TopK one has its k; others are trained to some ten or hundred of thousands.
DENSE_SHARE = 0.1
DEAD_SHARE = 0.5
# latents that fire this often on average could each have fired
CHANCES = 10


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """How well an autoencoder reconstructs some activations, and how sparsely."""

    rows: int
    n: int
    normalised_mse: float | None  # None where a target row is all zero, or there are no rows
    l0: float | None  # latents that fire, mean over rows; None without rows
    dead_share: float  # latents that fire on no row, of all

    @property
    def warnings(self) -> tuple[str, ...]:
        """What `inspect` should warn of; empty where nothing looks wrong."""
        found = []
        if self.normalised_mse is None:
            found.append("the reconstruction error is undefined: an activation is all zero")
        elif self.normalised_mse > POOR_RECONSTRUCTION:
            found.append(
                f"normalised error {self.normalised_mse:.2f} is above {POOR_RECONSTRUCTION}: the "
                "autoencoder belongs to another model or site, or its normalisation is not this"
            )
        if self.l0 is not None and not 0 < self.l0 <= DENSE_SHARE * self.n:
            found.append(
                f"{self.l0:.1f} of {self.n:,} latents fire at a token: a sparse autoencoder has "
                f"some, and no more than {DENSE_SHARE:.0%}"
            )
        judged = self.l0 is not None and self.rows * self.l0 >= CHANCES * self.n
        if judged and self.dead_share > DEAD_SHARE:
            found.append(
                f"{self.dead_share:.0%} of the latents fire at none of {self.rows:,} tokens"
            )
        return tuple(found)


@torch.inference_mode()
def self_check(
    autoencoder: Autoencoder, activations: Tensor, targets: Tensor | None = None
) -> SelfCheck:
    """Reconstruct activations (rows, d_in). A transcoder needs its `targets` (rows, d_out).

    Raises SubjectError when the width is not d_in.
    """
    if autoencoder.transcodes == (targets is None):
        raise ValueError("a transcoder is judged by the site that it reconstructs")
    wanted = activations if targets is None else targets
    total, fired, alive = 0.0, 0, torch.zeros(autoencoder.n, dtype=torch.bool)
    undefined = False
    pairs = zip(torch.split(activations, _ROWS), torch.split(wanted, _ROWS), strict=True)
    for rows, truth in pairs:
        firing = autoencoder.encode(rows) > 0
        fired += int(firing.sum())
        alive |= firing.any(dim=0).cpu()
        error = normalised_mean_squared_error(autoencoder.reconstruct(rows), truth)
        undefined |= error is None
        total += (error or 0.0) * len(rows)
    count = len(activations)
    return SelfCheck(
        count,
        autoencoder.n,
        total / count if count and not undefined else None,
        fired / count if count else None,
        1 - float(alive.double().mean()),
    )


def normalised_mean_squared_error(reconstruction: Tensor, original: Tensor) -> float | None:
    """Mean over rows (rows, d_in) of mean((r−x)²) / mean(x²), uncentred as published.

    None when it is undefined: no rows, or a row of `original` that is all zero.
    """
    power = original.double().square().mean(dim=-1)
    error = (reconstruction.double() - original.double()).square().mean(dim=-1)
    return _mean_ratio(error, power)


def normalised_l1(latents: Tensor, original: Tensor) -> float | None:
    """Mean over rows of Σ|latent| / ‖x‖, for latents (rows, n) of inputs (rows, d_in).

    None when it is undefined: no rows, or a row of `original` that is all zero.
    """
    return _mean_ratio(latents.double().abs().sum(dim=-1), original.double().norm(dim=-1))


def _mean_ratio(parts: Tensor, wholes: Tensor) -> float | None:
    if wholes.numel() == 0 or bool((wholes == 0).any()):
        return None
    return float((parts / wholes).mean())
