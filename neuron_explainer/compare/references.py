"""How far a score is from knowing nothing and from a token lookup, and what selection gives away.

All arrays are one score a neuron (neurons,) unless said otherwise, NaN where undefined.
"""

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.compare.statistics import Estimate, Floats, Ints, Resampling, units_of
from neuron_explainer.score import bootstrap


def gap_closed(
    scores: Floats, null: Floats, lookup: Floats, clusters: Ints | None, how: Resampling
) -> Estimate | None:
    """(score - null) / (lookup - null) of the means: 0 is the null, 1 the lookup.

    Over the neurons where all three are defined; None where there are none, or where the lookup's
    mean is not above the null's, so that there is no gap.
    """
    all_three = np.isfinite(scores) & np.isfinite(null) & np.isfinite(lookup)
    if not all_three.any():
        return None
    groups = None if clusters is None else clusters[all_three]
    columns = np.stack(
        [units_of(values[all_three], groups)[:, 0] for values in (scores, null, lookup)], axis=1
    )
    total = columns.sum(axis=0)
    if total[2] <= total[1]:
        return None
    interval = bootstrap.interval(
        columns, _ratio, how.seed, how.level, how.resamples, small_sample=groups is not None
    )
    return Estimate(float(_ratio(total)), interval)


def _ratio(sums: Floats) -> Floats:
    return (sums[..., 0] - sums[..., 1]) / (sums[..., 2] - sums[..., 1])


def expected_maximum(draws: Floats, k: int) -> float:
    """The expected maximum of k draws with replacement from `draws` (draws,)."""
    ordered = np.sort(draws)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(np.sum(ordered * np.diff(steps**k)))


def null_maximum(null: NDArray[np.float64], k: int) -> Floats:
    """What the best of k explanations that know nothing would score on each neuron.

    `null` is (neurons, draws). The lift over a neuron's mean is the expected maximum of k draws
    from the deviations of all neurons' draws. With one draw a neuron its own spread is not known:
    the spread between neurons stands in, which is too large, so the null's maximum is an upper
    bound.
    """
    with np.errstate(all="ignore"):
        defined = np.isfinite(null)
        counts = defined.sum(axis=1)
        own: Floats = np.where(defined, null, 0.0).sum(axis=1) / counts
    if not (counts > 0).any():
        return own
    several = counts > 1
    if several.any():
        widening = np.sqrt(counts / np.maximum(counts - 1, 1))
        deviations = ((null - own[:, None]) * widening[:, None])[several[:, None] & defined]
    else:
        deviations = own[counts > 0] - own[counts > 0].mean()
    return np.where(counts > 0, own + expected_maximum(deviations, k), np.nan)
