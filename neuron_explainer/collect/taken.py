"""Which neurons of a site are collected, and the numbers they have there."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer.neuron_list import parse_neurons
from neuron_explainer.store import Shard


@dataclass(frozen=True, slots=True)
class Taken:
    """The neurons of a site of `width` neurons that are collected, in order; None: all."""

    width: int
    indices: list[int] | None = None

    @classmethod
    def of(cls, width: int, neurons: str | None) -> "Taken":
        """Those that `0-99,512` names. Raises ConfigError."""
        return cls(width, None if neurons is None else parse_neurons(neurons, width))

    def __len__(self) -> int:
        return self.width if self.indices is None else len(self.indices)

    def named(self, places: Shard) -> Shard:
        """From the first to the last neuron at these places: what lies between may be missing."""
        if self.indices is None:
            return places
        return Shard(self.indices[places.start], self.indices[places.stop - 1] + 1)

    def at(self, places: Shard) -> list[int]:
        """The neurons at these places."""
        every = range(self.width) if self.indices is None else self.indices
        return list(every[places.start : places.stop])

    def placed(self, table: pa.Table) -> pa.Table:
        """`table`, whose neurons have their own numbers, with their places."""
        if self.indices is None:
            return table
        return _with_neurons(table, np.searchsorted(self.indices, table["neuron"].to_numpy()))

    def numbered(self, table: pa.Table) -> pa.Table:
        """`table`, whose neurons are places, with their own numbers."""
        if self.indices is None:
            return table
        return _with_neurons(table, np.array(self.indices)[table["neuron"].to_numpy()])


def _with_neurons(table: pa.Table, neurons: NDArray[np.int64]) -> pa.Table:
    column = table.schema.get_field_index("neuron")
    values = pa.array(neurons.astype(np.int32))
    return table.set_column(column, table.schema.field(column), values)
