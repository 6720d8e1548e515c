"""What collect keeps of one site while the corpus streams through the subject."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.bands import BandReservoirs
from neuron_explainer.collect.excerpts import Batch
from neuron_explainer.collect.moments import MomentAccumulator
from neuron_explainer.collect.reservoirs import Reservoir, activation_keys, priority_keys
from neuron_explainer.collect.state import Composite, Mergeable
from neuron_explainer.collect.token_table import TableLayout, TokenTableAccumulator

RANDOM_SEED, BAND_SEED = 0x51, 0xB4  # so that the two samples are independent
_TURNED_EXCERPTS = 512  # after so many, few of the default sizes' records still change


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is kept."""

    top: int = 20
    random: int = 20
    per_band: int = 4
    time: int = 65  # the longest sequence, in tokens
    excerpts: int = 0  # in the corpus
    remembered: int = 0  # per-excerpt maxima kept to find the quantiles


class SiteCollector(Composite):
    """Records, moments and token tables of all neurons of a site."""

    def __init__(
        self, neurons: int, sizes: Sizes, layouts: dict[str, TableLayout], seed: int
    ) -> None:
        self.neurons = neurons
        self.seed = seed
        self.top = Reservoir(neurons, sizes.top, sizes.time)
        self.random = Reservoir(neurons, sizes.random, sizes.time)
        self.bands = BandReservoirs(
            neurons,
            sizes.time,
            sizes.per_band,
            sizes.excerpts,
            sizes.remembered,
            sizes.top,
            seed,
        )
        self._seen = 0
        self._turned: Tensor | None = None
        self.moments = MomentAccumulator(neurons)
        self.tables = {
            name: TokenTableAccumulator(layout, neurons) for name, layout in layouts.items()
        }

    def update(self, batch: Batch, activations: Tensor) -> None:
        """Take in `activations` (batch, time, neurons) of one batch."""
        values = activations.to("cpu", torch.float32)
        maxima = _maxima(values, batch)  # (neurons, batch)
        positions = torch.from_numpy(batch.positions)
        offered = self._laid_out(values)
        self.top.update(activation_keys(maxima, positions), maxima, offered)
        self.random.update(self._priorities(RANDOM_SEED, positions), maxima, offered)
        self.bands.update(self._priorities(BAND_SEED, positions), maxima, offered, positions)
        self._seen += len(positions)
        rows = {name: table.layout.rows_of(batch.tokens) for name, table in self.tables.items()}
        for sequence, scored in enumerate(batch.scored):
            tokens = _scored_rows(values[sequence], scored)
            self.moments.update(tokens)
            for name, table in self.tables.items():
                table.update(rows[name][sequence, scored], tokens)

    def parts(self) -> Mapping[str, Mergeable]:
        """Records, moments and token tables."""
        records: dict[str, Mergeable] = {"top": self.top, "random": self.random}
        return {**records, "bands": self.bands, "moments": self.moments, **self.tables}

    def _laid_out(self, values: Tensor) -> Tensor:
        """`values`, each neuron's activations of an excerpt side by side while many are kept.

        To pick them from afar is slow, but to turn the whole batch around pays only at first.
        """
        if self._seen > _TURNED_EXCERPTS:
            self._turned = None
            return values
        batch, time, neurons = values.shape
        if self._turned is None or self._turned.numel() < values.numel():
            self._turned = torch.empty(values.numel())
        turned = self._turned[: values.numel()].view(batch, neurons, time)
        return turned.copy_(values.transpose(1, 2)).transpose(1, 2)

    def _priorities(self, purpose: int, positions: Tensor) -> Tensor:
        return priority_keys(self.seed + purpose, self.neurons, positions)


def _maxima(values: Tensor, batch: Batch) -> Tensor:
    """Each neuron's largest activation at a scored position of each excerpt, (neurons, batch)."""
    if batch.scored[:, 1:].all() and not batch.scored[:, 0].any():
        return values[:, 1:].amax(1).T.contiguous()
    hidden = torch.from_numpy(~batch.scored)[:, :, None]
    return values.masked_fill(hidden, -torch.inf).amax(1).T.contiguous()


def _scored_rows(values: Tensor, scored: NDArray[np.bool_]) -> Tensor:
    """The rows of `values` (time, neurons) that count: a view where they lie together."""
    places = np.flatnonzero(scored)
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return values[places[0] : places[-1] + 1]
    return values[torch.from_numpy(places)]
