"""What is made small: the error, and what keeps few latents active and all of them in use.

error       mean over rows of mean((x̂−x)²), in the unit of training: 1 is what the mean gives
remainder   x − x̂ (rows, width)
dead        latents that have not fired for long (n,)
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from neuron_explainer.subjects.autoencoder import top_k
from neuron_explainer.train.weights import Weights

_AUXILIARY = 1 / 32  # of the error that dead latents leave, and
_MOST_SPARE = 512  # of them at a row: both as in Gao et al. 2024


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a batch came to."""

    loss: Tensor  # a number, to be made small
    error: Tensor  # a number, the part of it that counts
    latents: Tensor  # (rows, n)
    remainder: Tensor  # (rows, width)


class Objective(Protocol):
    """An activation function with its loss."""

    @property
    def k(self) -> int | None:
        """How many latents are active at a row; None where the loss decides it."""

    def __call__(self, weights: Weights, rows: Tensor, dead: Tensor, warmth: float) -> Outcome:
        """Judge `rows` (rows, width). `warmth` rises to 1 while the training warms up."""


@dataclass(frozen=True, slots=True)
class TopK:
    """The k largest latents at each row: Gao et al. 2024, "Scaling and evaluating …".

    Dead latents, `spare` of them at a row, learn to reconstruct what the others leave.
    """

    k: int
    spare: int

    @classmethod
    def of(cls, k: int, width: int) -> "TopK":
        """With the spare latents of that paper: the power of two at half the width, 512 at most."""
        return cls(k, min(_MOST_SPARE, 1 << max(0, (width // 2).bit_length() - 1)))

    def __call__(self, weights: Weights, rows: Tensor, dead: Tensor, warmth: float) -> Outcome:
        """The error, and a 32nd of the error that the dead latents leave of the remainder."""
        del warmth
        raw = weights.raw(rows)
        latents = top_k(raw, self.k)
        remainder = rows - weights.decode(latents)
        loss = error = remainder.square().mean()
        if spare := min(self.spare, int(dead.sum())):
            revived = top_k(raw.masked_fill(~dead, -float("inf")), spare) @ weights.decoder
            loss = error + _AUXILIARY * (remainder.detach() - revived).square().mean()
        return Outcome(loss, error, latents, remainder)


@dataclass(frozen=True, slots=True)
class Relu:
    """All latents above zero, their sum made small: Bricken et al. 2023, "Towards monosemanticity".

    `l1` is in units that hold for every width: times the mean of Σ latents over √width, which is
    about a row's own length.
    """

    l1: float

    @property
    def k(self) -> None:
        """The loss decides how many are active."""
        return

    def __call__(self, weights: Weights, rows: Tensor, dead: Tensor, warmth: float) -> Outcome:
        """The error and the sum of the latents, whose weight rises while the training warms up."""
        del dead  # they are resampled
        latents = weights.raw(rows).relu()
        remainder = rows - weights.decode(latents)
        error = remainder.square().mean()
        length = latents.sum(dim=1).mean() / rows.shape[1] ** 0.5
        return Outcome(error + warmth * self.l1 * length, error, latents, remainder)
