"""What collect keeps of one site while the corpus streams through the subject."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.batches import Batch, Placed
from neuron_explainer.collect.dense import DenseRows, Turning, maxima_of
from neuron_explainer.collect.kept import KeptExcerpts, Sizes
from neuron_explainer.collect.moments import MomentAccumulator
from neuron_explainer.collect.sparse import SparseRows, excerpts_of, scored_of, sparse_maxima
from neuron_explainer.collect.state import Commit, Composite, Mergeable
from neuron_explainer.collect.token_table import TableLayout, TokenTableAccumulator
from neuron_explainer.subjects.base import Latents

_TURNED_EXCERPTS = 512  # after so many, few of the default sizes' records still change
_ROOM = 0.3  # of a device's memory that is left to the forward pass
_CPU = torch.device("cpu")


class _Block(NamedTuple):
    """Some excerpts of a batch."""

    batch: Placed
    rows: slice  # in the batch


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
        self._seen = 0  # excerpts
        self._whole: NDArray[np.int64] | None = None  # the batch at hand
        self._taken = 0  # excerpts of it
        self._turning = Turning()
        self._place(_CPU)
        self._empty = True
        self._placed = False
        self.lacks_room = False  # on the device where the activations are

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
            state = None if self._empty else self.state()
            self._place(device)
            if state is not None:
                self.restore(state)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must be of the same sizes and seed."""
        super().restore(state)
        self._empty = False

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in what such a one kept of other excerpts of the corpus."""
        super().merge(state)
        self._empty = False

    def _settle(self, activations: Tensor) -> None:
        """Go where the activations are, once, if there is room."""
        if not self._placed and activations.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(activations.device)
            needed = sum(part.nbytes for part in self.state().values())
            self.lacks_room = needed > free - _ROOM * total
            if not self.lacks_room:
                self.move(activations.device)
        self._placed = True

    def update(self, batch: Batch, activations: Tensor) -> None:
        """Take in `activations` (batch, time, neurons) of one batch."""
        self._settle(activations)
        values = activations.to(self.device)
        if self.device == _CPU:
            values = values.float()
        placed = batch.on(self.device)
        maxima, laid_out = maxima_of(values, placed), self._laid_out(values)
        for block in self._blocks(placed):
            of_block, rows = values[block.rows], DenseRows(laid_out[block.rows])
            commits = [self.kept.weigh(block.batch, maxima[:, block.rows], rows)]
            if self.device == _CPU:
                commits.append(partial(self._by_sequence, block.batch.batch, of_block))
            else:
                commits.append(self.moments.weigh(of_block, block.batch))
                commits += [table.weigh(of_block, block.batch) for table in self.tables.values()]
            self._take(block.batch.batch, commits)

    def update_latents(self, batch: Batch, latents: Latents) -> None:
        """Take in the listed latents of one batch: the same as all of them by `update`."""
        self._settle(latents.value)
        parts = (latents.place, latents.latent, latents.value)
        place, latent, value = (part.to(self.device) for part in parts)
        listed = Latents(place, latent, value, latents.shape)
        whole = batch.on(self.device)
        for block in self._blocks(whole):
            of_block = listed if block.batch is whole else excerpts_of(listed, block.rows)
            scored = scored_of(of_block, block.batch)
            maxima = sparse_maxima(scored, block.batch)
            commits = [self.kept.weigh(block.batch, maxima, SparseRows(of_block))]
            commits.append(self.moments.weigh_sparse(scored, block.batch.count))
            commits += [table.weigh_sparse(scored, block.batch) for table in self.tables.values()]
            self._take(block.batch.batch, commits)

    def _blocks(self, batch: Placed) -> Iterator["_Block"]:
        """The excerpts that were not taken in yet, some at a time.

        A batch that did not fit memory comes again in parts: what was taken in of it is left out.
        """
        if self._whole is not batch.batch.whole:
            self._whole, self._taken = batch.batch.whole, 0
        count = len(batch.batch.positions)
        first = max(0, self._taken - batch.batch.start)
        while first < count:
            stop = min(count, first + self.kept.most(self._seen))
            yield _Block(batch.part(first, stop), slice(first, stop))
            first = stop

    def _take(self, batch: Batch, commits: Sequence[Commit]) -> None:
        self._empty = False
        for commit in commits:
            commit()
        self._seen += len(batch.positions)
        self._taken = batch.start + len(batch.positions)

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
