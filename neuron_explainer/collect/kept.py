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
from neuron_explainer.collect.state import Composite, Mergeable

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
        self._seen = 0

    def parts(self) -> Mapping[str, Mergeable]:
        """The three kinds."""
        return {"top": self.top, "random": self.random, "bands": self.bands}

    def update(self, batch: Placed, maxima: Tensor, rows: Rows) -> None:
        """Offer a batch: the `maxima` (neurons, batch) of its excerpts, and their activations.

        In blocks that grow with what was seen: of the first excerpts all would be kept, and what
        is weighed at once would not fit the memory.
        """
        self.bands.remember(maxima, batch.batch.positions)
        most = max(1, _MOST_CELLS // max(1, self._neurons * len(self._all.each)))
        first, count = 0, maxima.shape[1]
        while first < count:
            stop = min(count, first + min(most, max(_FIRST_BLOCK, self._seen)))
            block = slice(first, stop)
            offered = maxima[:, block]
            orders = self._orders(offered, batch.positions[block])
            self._all.update(orders, batch.positions[block], offered, _Later(rows, first))
            self._seen += stop - first
            first = stop

    def _orders(self, maxima: Tensor, positions: Tensor) -> Tensor:
        """The order of each excerpt in each reservoir, (reservoirs, neurons, batch)."""
        random, drawn = (
            priority_keys(self._seed + purpose, self._neurons, positions)
            for purpose in (RANDOM_SEED, BAND_SEED)
        )
        bands = self.bands.orders(drawn, maxima)
        return torch.stack([activation_keys(maxima, positions), random, *bands])


@dataclass(frozen=True, slots=True)
class _Later:
    """The excerpts of a batch from the `first` on."""

    rows: Rows
    first: int

    def pick(self, places: Tensor, neurons: Tensor) -> Tensor:
        """As `rows` has them."""
        return self.rows.pick(places + self.first, neurons)
