"""Columns of lists of numbers, built row by row at 8 bytes a number."""

import math
from array import array
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer.store import Folder

Numbers = Sequence[float | None]  # None: undefined, null on disk


class ListColumn:
    """One list of numbers a row, or None."""

    def __init__(self) -> None:
        self._values = array("d")
        self._ends = array("q", [0])
        self._absent: list[bool] = []

    def append(self, row: Numbers | None) -> None:
        """Add a row."""
        self._values.extend(math.nan if value is None else value for value in row or ())
        self._ends.append(len(self._values))
        self._absent.append(row is None)

    @property
    def size(self) -> int:
        """How many numbers all rows hold."""
        return len(self._values)

    def narrowest(self) -> pa.DataType:
        """float32 when that keeps every number exactly, else float64."""
        values = np.asarray(self._values)
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        exact = np.array_equal(narrow.astype(np.float64), values, equal_nan=True)
        return pa.float32() if exact else pa.float64()

    def to_arrow(self, number: pa.DataType | None = None) -> pa.ListArray:
        """The column, its numbers as `number`, by default float64."""
        values = pa.array(np.asarray(self._values), from_pandas=True).cast(number or pa.float64())
        mask = pa.array(self._absent) if any(self._absent) else None
        return pa.ListArray.from_arrays(_offsets(self._ends), values, mask=mask)


class NestedColumn:
    """A list of lists of numbers a row."""

    def __init__(self) -> None:
        self._inner = ListColumn()
        self._ends = array("q", [0])

    def append(self, row: Sequence[Numbers]) -> None:
        """Add a row."""
        for numbers in row:
            self._inner.append(numbers)
        self._ends.append(self._ends[-1] + len(row))

    @property
    def size(self) -> int:
        """How many numbers all rows hold."""
        return self._inner.size

    def to_arrow(self) -> pa.ListArray:
        """The column, in float64."""
        return pa.ListArray.from_arrays(_offsets(self._ends), self._inner.to_arrow())


def _offsets(ends: "array[int]") -> NDArray[np.int32]:
    return np.asarray(ends).astype(np.int32)


def widen(folder: Folder, name: str) -> None:
    """Give the `activations` of all shards of a table the type of the widest.

    A shard is written as narrow as is exact, before the next one is read.
    """
    shards = [(file, _activations(folder, file)) for _, file in folder.shards(name)]
    if any(kind == pa.list_(pa.float64()) for _, kind in shards):
        for file, kind in shards:
            if kind != pa.list_(pa.float64()):
                folder.write({file: _in_float64(folder.read(file))})


def _activations(folder: Folder, file: str) -> pa.DataType:
    return folder.read(file, ["activations"]).schema.field("activations").type


def _in_float64(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("activations")
    field = table.schema.field(place).with_type(pa.list_(pa.float64()))
    return table.set_column(place, field, table["activations"].cast(field.type))
