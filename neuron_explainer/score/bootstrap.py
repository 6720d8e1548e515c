"""Confidence intervals of functions of means: the bias-corrected and accelerated bootstrap.

Whole units are drawn again with replacement, as many as there are. A unit is a neuron, or a cluster
of neurons (a layer) that are alike; all that is kept of it are sums, so a statistic is a function
of the sums over the units drawn, and its jackknife is a subtraction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # sums (..., columns) -> values (...)

_BLOCK = 1 << 18  # numbers drawn at a time: they stay in a core's cache


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def interval(
    columns: Floats,
    statistic: Statistic,
    seed: int,
    level: float = 0.95,
    resamples: int = 10_000,
    small_sample: bool = False,
) -> Interval | None:
    """The BCa interval (Efron 1987) of `statistic` of the sums of `columns` (units, columns).

    `small_sample` widens the quantiles to those of Student's t with units - 1 degrees of freedom,
    as an interval over a few clusters needs (Hesterberg 2015, section 4.3). None for fewer than two
    units and where the statistic is not defined; a point when every resample gives the same.
    """
    units = len(columns)
    total = columns.sum(axis=0)
    with np.errstate(all="ignore"):
        estimate = float(statistic(total))
        if units < 2 or not np.isfinite(estimate):
            return None
        left_out = statistic(total - columns)
        drawn = statistic(_resampled_sums(columns, seed, resamples))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return None
    if drawn.min() == drawn.max():
        return Interval(estimate, estimate)
    tail = _tail(level, units if small_sample else None)
    low, high = np.quantile(drawn, _bca_tails(drawn, estimate, left_out, tail))
    return Interval(float(low), float(high))


def mean(columns: Floats) -> Floats:
    """The mean of a first column of sums, the second holding how many values went into each."""
    return columns[..., 0] / columns[..., 1]


def _resampled_sums(columns: Floats, seed: int, resamples: int) -> Floats:
    """Sums over units drawn with replacement (resamples, columns).

    The draws are those that scipy.stats.bootstrap makes from the same seed.
    """
    rng = np.random.default_rng(seed)
    units, kinds = columns.shape
    rows = max(1, _BLOCK // units)
    sums = np.empty((resamples, kinds))
    # a column of equal values needs no draws
    varying = [kind for kind in range(kinds) if np.ptp(columns[:, kind]) > 0]
    sums[:] = columns[0] * units
    contiguous = np.ascontiguousarray(columns.T)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        chosen = rng.integers(0, units, (stop - start, units), dtype=np.uint32)
        for kind in varying:
            sums[start:stop, kind] = contiguous[kind].take(chosen).sum(axis=1)
    return sums


def _tail(level: float, units: int | None) -> float:
    """The normal deviate of an interval's end, wider where `units` are few."""
    if units is None:
        return float(special.ndtri((1 + level) / 2))
    return float(special.stdtrit(units - 1, (1 + level) / 2)) * float(np.sqrt(units / (units - 1)))


def _bca_tails(drawn: Floats, estimate: float, left_out: Floats, tail: float) -> Floats:
    """Which quantiles of the resamples are the ends: Efron & Tibshirani 1993, section 14.3."""
    ends = np.array([-tail, tail])
    below = (np.sum(drawn < estimate) + np.sum(drawn <= estimate)) / (2 * len(drawn))
    influence = left_out.mean() - left_out
    with np.errstate(all="ignore"):
        bias = special.ndtri(below)
        skewness = np.sum(influence**3) / np.sum(influence**2) ** 1.5 / 6
        shifted = bias + ends
        tails = special.ndtr(bias + shifted / (1 - skewness * shifted))
    if np.isfinite(tails).all():
        return np.asarray(tails, np.float64)
    return np.asarray(special.ndtr(ends), np.float64)  # no bias or skewness to be had
