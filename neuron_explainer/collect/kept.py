"""The excerpts that are kept of every neuron of a site: top, random and of each quantile band."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuron_explainer.collect.bands import BandReservoirs
from neuron_explainer.collect.batches import Placed
from neuron_explainer.collect.reservoirs import (
    Reservoir,
    Reservoirs,
    Rows,
    activation_keys,
    priority_keys,
)
from neuron_explainer.collect.state import Commit, Composite, Mergeable

RANDOM_SEED, BAND_SEED = 0x51, 0xB4  # so that the two samples are independent
_FIRST_BLOCK = 64  # excerpts
_MOST_CELLS = 1 << 25  # offers, one a reservoir, neuron and excerpt, that are weighed at once


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
        orders = self._orders(maxima, batch.positions)
        take = self._all.weigh(orders, batch.positions, maxima, rows)
        remembered = self.bands.remembered(maxima, batch.batch.positions)

        def commit() -> None:
            take()
            self.bands.remember(remembered)

        return commit

    def _orders(self, maxima: Tensor, positions: Tensor) -> Tensor:
        """The order of each excerpt in each reservoir, (reservoirs, neurons, batch)."""
        random, drawn = (
            priority_keys(self._seed + purpose, self._neurons, positions)
            for purpose in (RANDOM_SEED, BAND_SEED)
        )
        bands = self.bands.orders(drawn, maxima)
        return torch.stack([activation_keys(maxima, positions), random, *bands])
