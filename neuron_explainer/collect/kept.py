"""The excerpts that are kept of every neuron of a site: top, random and of each quantile band."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuron_explainer.collect.bands import BandReservoirs
from neuron_explainer.collect.batches import Placed
from neuron_explainer.collect.fused import Fused
from neuron_explainer.collect.reservoirs import (
    Offers,
    Reservoir,
    Reservoirs,
    Rows,
    activation_ranks,
    behind,
    keys_of,
    ranks_of,
    seeded,
)
from neuron_explainer.collect.state import Commit, Composite, Mergeable

RANDOM_SEED, BAND_SEED = 0x51, 0xB4  # so that the two samples are independent
_FIRST_BLOCK = 8  # excerpts
_MOST_CELLS = 1 << 28  # offers, one a reservoir, neuron and excerpt, that are weighed at once


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is kept."""

    top: int = 20
    random: int = 20
    per_band: int = 4
    time: int = 65  # the longest sequence, in tokens
    excerpts: int = 0  # in the corpus
    remembered: int = 0  # per-excerpt maxima kept to find the quantiles


class KeptExcerpts(Composite):
    """All reservoirs of a site, filled together."""

    def __init__(
        self, neurons: int, sizes: Sizes, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self._neurons = neurons
        self._seed = seed
        excerpts, remembered = sizes.excerpts, sizes.remembered
        bands = BandReservoirs(
            neurons, sizes.per_band, excerpts, remembered, sizes.top, seed, device
        )
        capacities = (sizes.top, sizes.random, *bands.capacities)
        self._all = Reservoirs(neurons, capacities, sizes.time, device)
        self.top: Reservoir = self._all.each[0]
        self.random: Reservoir = self._all.each[1]
        self.bands = bands
        bands.reservoirs = self._all.each[2:]
        self._rates = torch.tensor(bands.rates, dtype=torch.int32, device=device)

    def parts(self) -> Mapping[str, Mergeable]:
        """The three kinds."""
        return {"top": self.top, "random": self.random, "bands": self.bands}

    def most(self, seen: int) -> int:
        """How many excerpts are to be weighed at once after so many.

        Of the first all would be kept, so that blocks grow; later, their offers must fit memory.
        """
        cells = max(1, self._neurons * len(self._all.each))
        return max(1, min(_MOST_CELLS // cells, max(_FIRST_BLOCK, seen)))

    def weigh(self, batch: Placed, maxima: Tensor, rows: Rows) -> Commit:
        """Offer excerpts with their `maxima` (neurons, batch) and activations."""
        offers = self._offers(maxima, batch.positions)
        take = self._all.weigh(offers, batch.positions, maxima, rows)
        remembered = self.bands.remembered(maxima, batch.batch.positions)

        def commit() -> None:
            take()
            self.bands.remember(remembered)

        return commit

    def _offers(self, maxima: Tensor, positions: Tensor) -> Offers:
        """Those excerpts that may be kept.

        Which those are is told from the upper halves of the keys alone: whole ones would be twice
        the memory, for all excerpts and reservoirs.
        """
        lowest = (self._all.lowest() >> 32).to(torch.int32)
        seeds = (self._seed + RANDOM_SEED, self._seed + BAND_SEED)
        parts = [seeded(seed, positions) for seed in seeds]
        worth = _worth(maxima, *parts, lowest, self._rates, tuple(self.bands.uniform))
        number, neuron, place = torch.nonzero(worth, as_tuple=True)
        by_maximum = activation_ranks(maxima[neuron, place])
        random, drawn = (ranks_of(part[place], neuron) for part in parts)
        uniform = torch.tensor([False, False, *self.bands.uniform], device=number.device)[number]
        rank = torch.where(uniform, drawn, by_maximum)
        rank = torch.where(number == 1, random, rank)
        by_priority = (number > 1) & ~uniform
        ties = torch.where(by_priority, drawn.to(torch.int64), behind(positions[place]))
        return Offers(number, neuron, place, keys_of(rank, ties))


def plainly_worth(
    maxima: Tensor,
    for_random: Tensor,
    for_bands: Tensor,
    lowest: Tensor,
    rates: Tensor,
    uniform: tuple[bool, ...],
) -> Tensor:
    """Which excerpts may be kept by which reservoir, (reservoirs, neurons, batch).

    `lowest` are the ranks of the last that each keeps (reservoirs, neurons), `rates` the smallest
    random ranks that are drawn for each band (bands,), `for_random` and `for_bands` what `seeded`
    gives (batch,).
    """
    by_maximum = activation_ranks(maxima)
    neurons = torch.arange(len(maxima), dtype=torch.int32, device=maxima.device)[:, None]
    random, drawn = ranks_of(for_random, neurons), ranks_of(for_bands, neurons)
    finite = maxima.abs() < torch.inf
    worth = [by_maximum >= lowest[0, :, None], random >= lowest[1, :, None]]
    for band, of_all in enumerate(uniform):
        ranks = drawn if of_all else by_maximum
        worth.append(finite & (drawn >= rates[band]) & (ranks >= lowest[band + 2, :, None]))
    return torch.stack(worth)


_worth = Fused(plainly_worth, after=1 << 35)
