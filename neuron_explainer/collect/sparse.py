"""One batch's latents as the few that are not zero: what they come to costs what they are."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from neuron_explainer.collect.batches import Placed
from neuron_explainer.subjects.base import Latents


class ByCell(NamedTuple):
    """Latents in order of excerpt and latent, and within those of position."""

    cell: Tensor  # (listed,) excerpt * latents + latent
    position: Tensor  # (listed,)
    value: Tensor  # (listed,)


@dataclass(slots=True)
class SparseRows:
    """Listed latents, of which some excerpts of some latents are picked."""

    latents: Latents
    _sorted: ByCell | None = field(default=None, init=False)

    def pick(self, places: Tensor, neurons: Tensor, time: int) -> Tensor:
        """The activations of these latents in these excerpts, float32 (picked, time)."""
        if self._sorted is None:
            self._sorted = _by_cell(self.latents)
        cell, position, value = self._sorted
        wanted = places * self.latents.shape[2] + neurons
        start = torch.searchsorted(cell, wanted)
        counts = torch.searchsorted(cell, wanted, right=True) - start
        found = torch.repeat_interleave(counts)  # (values,) for which of the picked rows
        first = (counts.cumsum(0) - counts)[found]
        source = start[found] + torch.arange(len(found), device=found.device) - first
        picked = torch.zeros((len(places), time), device=value.device)
        picked[found, position[source]] = value[source].float()
        return picked


def _by_cell(latents: Latents) -> ByCell:
    _, time, count = latents.shape
    excerpt, position = latents.place // time, latents.place % time
    cell, order = (excerpt * count + latents.latent).sort(stable=True)
    return ByCell(cell, position[order], latents.value[order])


def excerpts_of(latents: Latents, rows: slice) -> Latents:
    """Those of some excerpts of the batch, which then are the whole."""
    _, time, count = latents.shape
    edges = torch.tensor([rows.start * time, rows.stop * time], device=latents.place.device)
    first, stop = torch.searchsorted(latents.place, edges).tolist()
    shape = (rows.stop - rows.start, time, count)
    place = latents.place[first:stop] - rows.start * time
    return Latents(place, latents.latent[first:stop], latents.value[first:stop], shape)


def scored_of(latents: Latents, batch: Placed) -> Latents:
    """Those at scored positions, in the same order."""
    counted = batch.scored.flatten()[latents.place]
    place, latent = latents.place[counted], latents.latent[counted]
    return Latents(place, latent, latents.value[counted], latents.shape)


def sparse_maxima(scored: Latents, batch: Placed) -> Tensor:
    """Each latent's largest value at a scored position of each excerpt (latents, batch), float32.

    `scored` are those at scored positions. Minus infinity where an excerpt has none.
    """
    excerpts, time, count = scored.shape
    maxima = torch.zeros(count * excerpts, device=scored.value.device)
    cells = scored.latent * excerpts + scored.place // time
    maxima.scatter_reduce_(0, cells, scored.value.float(), "amax")
    maxima = maxima.view(count, excerpts)
    if not batch.batch.scored.any(1).all():
        maxima[:, ~batch.scored.any(1)] = -torch.inf
    return maxima


def summed(cells: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Cells and what `index_add_` is to add to them, of `values` (listed, …) at `cells` (listed,).

    On a GPU each cell once: to the same cell it would add in whatever order its threads come.
    """
    return (cells, values) if cells.device.type == "cpu" else in_segments(cells, values)


def in_segments(cells: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The different cells and the sums of their values, added up in order."""
    ordered, order = cells.sort(stable=True)
    distinct, lengths = torch.unique_consecutive(ordered, return_counts=True)
    return distinct, torch.segment_reduce(values[order], "sum", lengths=lengths, axis=0)
