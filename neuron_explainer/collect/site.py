"""What collect keeps of one site while the corpus streams through the subject."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.batches import Batch
from neuron_explainer.collect.dense import DenseRows, Turning, maxima_of
from neuron_explainer.collect.kept import KeptExcerpts, Sizes
from neuron_explainer.collect.moments import MomentAccumulator
from neuron_explainer.collect.state import Composite, Mergeable
from neuron_explainer.collect.token_table import TableLayout, TokenTableAccumulator

_TURNED_EXCERPTS = 512  # after so many, few of the default sizes' records still change
_ROOM = 0.3  # of a device's memory that is left to the forward pass
_CPU = torch.device("cpu")


class SiteCollector(Composite):
    """Records, moments and token tables of all neurons of a site.

    They are kept and computed where the activations are, if that is a GPU with room for them, and
    otherwise in main memory.
    """

    def __init__(
        self, neurons: int, sizes: Sizes, layouts: dict[str, TableLayout], seed: int
    ) -> None:
        self.neurons = neurons
        self.seed = seed
        self._sizes = sizes
        self._layouts = layouts
        self._seen = 0
        self._turning = Turning()
        self._place(_CPU)
        self._placed = False

    def _place(self, device: torch.device) -> None:
        """Make everything anew on a device."""
        self.device = device
        self.kept = KeptExcerpts(self.neurons, self._sizes, self.seed, device)
        self.moments = MomentAccumulator(self.neurons, device)
        self.tables = {
            name: TokenTableAccumulator(layout, self.neurons, device)
            for name, layout in self._layouts.items()
        }

    def move(self, device: torch.device) -> None:
        """Put everything on another device."""
        if device != self.device:
            state = self.state()
            self._place(device)
            self.restore(state)

    def _settle(self, activations: Tensor) -> None:
        """Go where the activations are, once, if there is room."""
        if not self._placed and activations.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(activations.device)
            needed = sum(part.nbytes for part in self.state().values())
            if needed < free - _ROOM * total:
                self.move(activations.device)
        self._placed = True

    def update(self, batch: Batch, activations: Tensor) -> None:
        """Take in `activations` (batch, time, neurons) of one batch."""
        self._settle(activations)
        values = activations.to(self.device)
        if self.device == _CPU:
            values = values.float()
        placed = batch.on(self.device)
        maxima = maxima_of(values, placed)
        self.kept.update(placed, maxima, DenseRows(self._laid_out(values)))
        self._seen += len(batch.positions)
        if self.device == _CPU:
            self._by_sequence(batch, values)
        else:
            self.moments.update_batch(values, placed)
            for table in self.tables.values():
                table.update_batch(values, placed)

    def _by_sequence(self, batch: Batch, values: Tensor) -> None:
        """Moments and tables: what one sequence needs stays in the processor's cache."""
        rows = {name: table.layout.rows_of(batch.tokens) for name, table in self.tables.items()}
        for sequence, scored in enumerate(batch.scored):
            tokens = _scored_rows(values[sequence], scored)
            self.moments.update(tokens)
            for name, table in self.tables.items():
                table.update(rows[name][sequence, scored], tokens)

    def parts(self) -> Mapping[str, Mergeable]:
        """Records, moments and token tables."""
        return {"kept": self.kept, "moments": self.moments, **self.tables}

    def _laid_out(self, values: Tensor) -> Tensor:
        """`values`, each neuron's activations of an excerpt side by side while many are kept.

        To pick them from afar is slow, but to turn the whole batch around pays only at first.
        """
        if self.device != _CPU or self._seen > _TURNED_EXCERPTS:
            self._turning = Turning()
            return values
        return self._turning(values)


def _scored_rows(values: Tensor, scored: NDArray[np.bool_]) -> Tensor:
    """The rows of `values` (time, neurons) that count: a view where they lie together."""
    places = np.flatnonzero(scored)
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return values[places[0] : places[-1] + 1]
    return values[torch.from_numpy(places)]
