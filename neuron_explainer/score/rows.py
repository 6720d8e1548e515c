"""Rows of numbers of which only some count, and sums over them that stay exact.

Sums of squares are taken in units of a row's own size, so that neither very large nor very small
activations overflow or vanish, and a constant row is recognised by its extremes, not by a variance
that rounding makes 1e-33.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import Scores

Floats = NDArray[np.float64]

_BLOCK = 1 << 15  # numbers in a block: a few float64 arrays of this size fit a core's cache


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """Sums of squares (neurons,), kept as `unit² · total` because `unit²` may overflow."""

    unit: Floats
    total: Floats

    @classmethod
    def of(cls, values: Floats) -> "Squares":
        """Of the rows of (neurons, tokens)."""
        unit = np.max(np.abs(values), axis=1, initial=0.0)
        scaled = values / _one_for_zero(unit)[:, None]
        return cls(unit, np.vecdot(scaled, scaled))

    def over(self, other: "Squares") -> Floats:
        """The ratio (neurons,)."""
        ratio: Floats = (self.unit / other.unit) ** 2 * (self.total / other.total)
        return ratio


class Rows:
    """Values (neurons, tokens) in float64, zero where the mask is False."""

    def __init__(self, values: FloatArray, mask: BoolArray) -> None:
        self.outside = None if mask.all() else ~mask
        self.count = mask.sum(axis=1)
        self.empty: BoolArray = self.count == 0
        self.values = self._zero_outside(np.array(values, dtype=np.float64))

    @cached_property
    def low(self) -> Floats:
        """The smallest value that counts (neurons,)."""
        return np.where(self.empty, 0.0, np.min(self.filled(np.inf), axis=1, initial=np.inf))

    @cached_property
    def high(self) -> Floats:
        """The largest value that counts (neurons,)."""
        return np.where(self.empty, 0.0, np.max(self.filled(-np.inf), axis=1, initial=-np.inf))

    @cached_property
    def range(self) -> Floats:
        """From the smallest to the largest value (neurons,)."""
        return self.high - self.low

    @property
    def constant(self) -> BoolArray:
        """Whether all values that count are the same number (neurons,)."""
        return np.equal(self.high, self.low, dtype=np.bool_)

    @cached_property
    def _in_range(self) -> tuple[Floats, Floats]:
        """Deviations from the mean, and the mean above `low`, both in units of the range."""
        scaled = self.values - self.low[:, None]
        scaled /= _one_for_zero(self.range)[:, None]
        mean = self._zero_outside(scaled).sum(axis=1) / np.maximum(self.count, 1)
        scaled -= mean[:, None]
        return self._zero_outside(scaled), mean

    @property
    def deviations(self) -> Floats:
        """Value minus mean, in units of the range (neurons, tokens); zero where not counted."""
        return self._in_range[0]

    @cached_property
    def mean(self) -> Floats:
        """(neurons,). Of a constant row exactly its value."""
        return self.low + self.range * self._in_range[1]

    @cached_property
    def squared_deviations(self) -> Squares:
        """n times the variance, in units of the range."""
        return Squares(self.range, np.vecdot(self.deviations, self.deviations))

    def filled(self, number: float) -> Floats:
        """The values, with `number` where they do not count (neurons, tokens)."""
        return self.values if self.outside is None else np.where(self.outside, number, self.values)

    def _zero_outside(self, values: Floats) -> Floats:
        if self.outside is not None:
            values[self.outside] = 0.0
        return values


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Groups of rows of (neurons, tokens) that are worked on together; at least one, if empty."""
    neurons, tokens = shape
    step = max(1, _BLOCK // max(tokens, 1))
    return (slice(start, start + step) for start in range(0, max(neurons, 1), step))


def check_shapes(*arrays: FloatArray | BoolArray) -> None:
    """Raises ValueError unless all have one shape (neurons, tokens)."""
    shapes = [array.shape for array in arrays]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        raise ValueError(f"the arrays must share one shape (neurons, tokens), they have {shapes}")


def by_block(
    score: Callable[[Rows, Rows], Scores],
    truth: FloatArray,
    predicted: FloatArray,
    mask: BoolArray,
) -> Scores:
    """`score(truth, predicted)` over groups of neurons, joined; without warnings."""
    check_shapes(truth, predicted, mask)
    with np.errstate(all="ignore"):
        return Scores.join(
            [
                score(Rows(truth[block], mask[block]), Rows(predicted[block], mask[block]))
                for block in blocks(truth.shape)
            ]
        )


def _one_for_zero(unit: Floats) -> Floats:
    return np.where(unit == 0, 1.0, unit)
