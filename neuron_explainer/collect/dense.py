"""One batch's activations of a site as the subject computes them: all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuron_explainer.collect.batches import Placed


@dataclass(frozen=True, slots=True)
class DenseRows:
    """Activations (batch, time, neurons), of which some excerpts of some neurons are picked."""

    values: Tensor

    def pick(self, places: Tensor, neurons: Tensor, time: int) -> Tensor:
        """The activations of these neurons in these excerpts, float32 (picked, time)."""
        picked = self.values[places, :, neurons].float()
        return picked if picked.shape[1] == time else pad(picked, (0, time - picked.shape[1]))


def maxima_of(values: Tensor, batch: Placed) -> Tensor:
    """Each neuron's largest activation at a scored position of each excerpt, (neurons, batch).

    Float32, of `values` (batch, time, neurons) of any type.
    """
    if batch.whole:
        return values[:, 1:].amax(1).T.float().contiguous()
    hidden = ~batch.scored[:, :, None]
    return values.masked_fill(hidden, -torch.inf).amax(1).T.float().contiguous()


class Turning:
    """Lays each neuron's activations of an excerpt side by side, in memory used again."""

    def __init__(self) -> None:
        self._turned: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """`values` (batch, time, neurons), the same numbers laid out otherwise."""
        batch, time, neurons = values.shape
        if self._turned is None or self._turned.numel() < values.numel():
            self._turned = torch.empty(values.numel())
        turned = self._turned[: values.numel()].view(batch, neurons, time)
        return turned.copy_(values.transpose(1, 2)).transpose(1, 2)
