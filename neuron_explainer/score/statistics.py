"""What many neurons' scores come to: means with intervals, shares, and why some are undefined."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.score.base import Scores
from neuron_explainer.score.bootstrap import Interval
from neuron_explainer.score.bootstrap import interval as bootstrap_interval
from neuron_explainer.score.bootstrap import mean as mean_of_sums

Floats = NDArray[np.float64]

THRESHOLDS = (0.3, 0.5, 0.7)

_BOOTSTRAP_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric over all neurons of a run. A figure over no neurons is None."""

    n: int
    defined: int
    undefined_share: float | None
    mean: float | None  # over defined neurons
    interval: Interval | None
    mean_undefined_as_zero: float | None  # over all neurons
    interval_undefined_as_zero: Interval | None
    median: float | None  # over defined neurons
    share_above: Mapping[float, float | None]  # of all neurons: undefined is not above
    reasons: Mapping[str, int]  # why undefined, most frequent first


def mean_interval(
    values: Floats, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval | None:
    """A confidence interval for the mean of `values` (neurons,), which must be finite.

    Up to 20,000 neurons: the bias-corrected and accelerated bootstrap over neurons (Efron 1987),
    seeded. Above that the interval is mean ± z · s / √n: with so many bounded values the two agree
    far below the digits that are printed, and the bootstrap takes seconds.
    None for fewer than two values; a point when all are equal.
    """
    if not np.isfinite(values).all():
        raise ValueError("an interval needs finite values: leave undefined scores out")
    if len(values) < 2:
        return None
    if np.min(values) == np.max(values):
        return Interval(float(values[0]), float(values[0]))
    if len(values) > _BOOTSTRAP_LIMIT:
        return _normal_interval(values, level)
    units = np.stack([values, np.ones_like(values)], axis=1)
    return bootstrap_interval(units, mean_of_sums, seed, level, resamples)


def summarise(scores: Scores, seed: int) -> Summary:
    """Count, means, intervals, median and shares of one metric; `seed` is for the intervals."""
    defined = scores.values[~np.isnan(scores.values)]
    or_zero = np.nan_to_num(scores.values, nan=0.0)
    n = len(scores.values)
    return Summary(
        n=n,
        defined=len(defined),
        undefined_share=_share(n - len(defined), n),
        mean=float(np.mean(defined)) if len(defined) else None,
        interval=mean_interval(defined, seed),
        mean_undefined_as_zero=float(np.mean(or_zero)) if n else None,
        interval_undefined_as_zero=mean_interval(or_zero, seed),
        median=float(np.median(defined)) if len(defined) else None,
        share_above={limit: _share(int(np.sum(defined > limit)), n) for limit in THRESHOLDS},
        reasons=dict(Counter(reason for reason in scores.reasons if reason).most_common()),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _normal_interval(values: Floats, level: float) -> Interval:
    half = float(stats.norm.ppf((1 + level) / 2)) * float(stats.sem(values))
    mean = float(np.mean(values))
    return Interval(mean - half, mean + half)
