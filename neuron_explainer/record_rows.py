"""Rows of a record set's tables, neuron by neuron."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neuron_explainer.records import Neighbour
from neuron_explainer.store import Folder, Shard


class Grouped:
    """Rows by neuron of one table, one shard in memory at a time."""

    def __init__(self, folder: Folder, name: str, splits: Sequence[str] | None) -> None:
        self.folder = folder
        self.splits = splits if name == "records" else None
        self.shards = folder.shards(name)
        self.current: tuple[Shard, pa.Table, NDArray[np.int64]] | None = None

    def __getitem__(self, neuron: int) -> pa.Table | None:
        if self.current is None or neuron not in self.current[0]:
            self.current = self._load(neuron)
        if self.current is None:
            return None
        shard, table, offsets = self.current
        start, stop = offsets[neuron - shard.start], offsets[neuron - shard.start + 1]
        return table.slice(start, stop - start)

    def _load(self, neuron: int) -> tuple[Shard, pa.Table, NDArray[np.int64]] | None:
        for shard, file in self.shards:
            if neuron in shard:
                table = self.folder.read(file)
                if self.splits is not None:
                    table = table.filter(pc.is_in(table["split"], pa.array(self.splits)))
                table = table.combine_chunks()
                bounds = np.arange(shard.start, shard.stop + 1)
                return shard, table, np.searchsorted(table["neuron"].to_numpy(), bounds)
        return None


def neighbours(table: pa.Table) -> tuple[Neighbour, ...]:
    """One neuron's rows of `nearest`, in stored order."""
    columns = (table[name].to_pylist() for name in ("direction", "other", "cosine"))
    return tuple(Neighbour(*row) for row in zip(*columns, strict=True))
