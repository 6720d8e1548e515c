"""Correlation over the whole corpus, estimated from records whose sampling rates are known.

Top records are the rarest excerpts there are, and half of what `top_and_random` looks at: a label
that also names what the neuron ignores loses little there. Here each excerpt counts for as many of
the corpus as it was drawn to stand for.

stratum     excerpts of one neuron by their maximum: the quantile bands lowest first, then the top
            records. Inside a stratum every sampled excerpt was drawn with the same probability
size        how many excerpts of the corpus are in a stratum
moments     of a set of tokens: their count, and the sums of t, p, t², p² and t·p

The estimate is post-stratified (Cochran 1977, Sampling Techniques, 5A.9). Its interval is that of
the stratified jackknife on Fisher's z, with finite-population correction and Satterthwaite's
degrees of freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import (
    NO_TOKENS,
    PREDICTION_CONSTANT,
    TRUTH_CONSTANT,
    Scores,
    judged,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TOO_FEW_EXCERPTS = "fewer than two random excerpts"
_LEAST = 2  # excerpts of a stratum, so that their spread is known
_ROUNDING = 1e-12  # of a variance, in units of the squared range


@dataclass(frozen=True, slots=True, eq=False)
class PopulationCorrelation:
    """One estimate a neuron, with the ends of its 95 % interval: NaN where there is none."""

    scores: Scores
    low: Floats  # (neurons,)
    high: Floats  # (neurons,)


def stratum_sizes(excerpts: int, quantiles: Sequence[float], top: Integers) -> Floats:
    """Sizes (neurons, bands + 1) in a corpus of `excerpts`, of which `top` (neurons,) are kept.

    The top records come out of the highest bands.
    """
    edges = np.array([0.0, *quantiles, 1.0]) * excerpts
    kept = np.asarray(top, np.float64)[:, None]
    below = np.minimum(edges[None, :], excerpts - kept)
    return np.concatenate([np.diff(below, axis=1), kept], axis=1)


def population_correlation(
    truth: FloatArray,
    predicted: FloatArray,
    mask: BoolArray,
    excerpt: Integers,
    neuron: Integers,
    stratum: Integers,
    sizes: Floats,
) -> PopulationCorrelation:
    """From the tokens of all records, one after the other: `truth`, `predicted`, `mask` (tokens,).

    `excerpt` (tokens,) says which record a token is of, `neuron` and `stratum` (excerpts,) whose
    record that is and where it belongs, `sizes` (neurons, strata) what `stratum_sizes` gives.
    A stratum with fewer than two excerpts is joined to the next lower one, the lowest to the next
    higher one.
    """
    owner = neuron[excerpt]
    t, p = (_in_range(values, mask, owner, len(sizes)) for values in (truth, predicted))
    sums = _sums(excerpt, len(neuron), (mask, t, p, t * t, p * p, t * p))
    home, held, counts = _joined(neuron, stratum, sizes)
    flat = neuron * sizes.shape[1] + home
    totals = _sums(flat, sizes.size, tuple(sums.T)).reshape(*sizes.shape, -1)
    with np.errstate(all="ignore"):
        weights = np.where(counts > 0, held / counts, 0.0)
        whole = (weights[:, :, None] * totals).sum(axis=1)
        estimate = _correlation(whole)
        scores = judged(
            estimate,
            (counts.sum(axis=1) < _LEAST, TOO_FEW_EXCERPTS),
            (whole[:, 0] <= 0, NO_TOKENS),
            (_variance(whole, 1) <= _ROUNDING, TRUTH_CONSTANT),
            (_variance(whole, 2) <= _ROUNDING, PREDICTION_CONSTANT),
        )
        less = held[neuron, home] / (counts[neuron, home] - 1)
        rest = totals[neuron, home] - sums
        without = whole[neuron] - (weights[neuron, home, None] * totals[neuron, home])
        values = np.arctanh(_bounded(_correlation(without + less[:, None] * rest)))
        low, high = _interval(_bounded(scores.values), values, flat, held, counts)
    return PopulationCorrelation(scores, low, high)


def _joined(neuron: Integers, stratum: Integers, sizes: Floats) -> tuple[Integers, Floats, Floats]:
    """The stratum that each excerpt counts in, and sizes and counts after joining, (neurons, …)."""
    shape = sizes.shape
    drawn = np.bincount(neuron * shape[1] + stratum, minlength=sizes.size).reshape(shape)
    counts: Floats = drawn.astype(np.float64)
    held = sizes.copy()
    target = np.tile(np.arange(shape[1]), (shape[0], 1))
    downwards = [(place, place - 1) for place in range(shape[1] - 1, 0, -1)]
    upwards = [(place, place + 1) for place in range(shape[1] - 1)]
    for place, other in downwards + upwards:
        few = (counts[:, place] < _LEAST) & ((counts[:, place] > 0) | (held[:, place] > 0))
        for array in (counts, held):
            array[few, other] += array[few, place]
            array[few, place] = 0
        moved = few[:, None] & (target == place)
        target[moved] = other
    return target[neuron, stratum], held, counts


def _in_range(values: FloatArray, mask: BoolArray, owner: Integers, neurons: int) -> Floats:
    """Values (tokens,) from 0 to 1 over each neuron's own range; 0 where they do not count."""
    low, high = np.full(neurons, np.inf), np.full(neurons, -np.inf)
    np.minimum.at(low, owner[mask], values[mask])
    np.maximum.at(high, owner[mask], values[mask])
    size = np.where(high > low, high - low, 1.0)
    with np.errstate(invalid="ignore"):
        return np.where(mask, (values - low[owner]) / size[owner], 0.0)


def _sums(place: Integers, places: int, columns: Sequence[FloatArray | BoolArray]) -> Floats:
    """Sums (places, columns) of the columns (rows,) by place."""
    return np.stack([np.bincount(place, column, minlength=places) for column in columns], axis=1)


def _variance(moments: Floats, first: int) -> Floats:
    """Of t (`first` 1) or of p (2), (rows,)."""
    count = moments[:, 0]
    variance: Floats = moments[:, first + 2] / count - (moments[:, first] / count) ** 2
    return variance


def _correlation(moments: Floats) -> Floats:
    count, t, p = moments[:, 0], moments[:, 1], moments[:, 2]
    covariance = moments[:, 5] / count - t / count * (p / count)
    spread = np.sqrt(np.maximum(_variance(moments, 1) * _variance(moments, 2), 0.0))
    return np.clip(covariance / spread, -1.0, 1.0)


def _bounded(correlation: Floats) -> Floats:
    """Short of ±1, where Fisher's z ends."""
    return np.clip(correlation, -1 + 1e-9, 1 - 1e-9)


def _interval(
    estimate: Floats, without: Floats, flat: Integers, held: Floats, counts: Floats
) -> tuple[Floats, Floats]:
    """The ends (neurons,) from the values of z without each excerpt."""
    shape = counts.shape
    means = np.bincount(flat, without, minlength=counts.size) / counts.ravel()
    squares = np.bincount(flat, (without - means[flat]) ** 2, minlength=counts.size)
    sampled = np.clip(counts / np.maximum(held, counts), 0.0, 1.0)
    free = (1 - sampled) * np.maximum(counts - 1, 0.0)  # 0 where all excerpts are at hand
    parts = np.where(free > 0, free / counts * squares.reshape(shape), 0.0)
    variance = parts.sum(axis=1)
    spread = np.where(free > 0, parts**2 / (counts - 1), 0.0).sum(axis=1)
    freedom = np.where(variance > 0, variance**2 / spread, np.where(variance == 0, 1.0, np.nan))
    half = stats.t.ppf(0.975, np.maximum(freedom, 1.0)) * np.sqrt(variance)
    centre = np.arctanh(estimate)
    return np.tanh(centre - half), np.tanh(centre + half)
