"""What the paired scores of two runs say: pure functions of arrays.

values      one score a neuron (neurons,), NaN where undefined; seeds are averaged before
difference  of run a less run b on the same neuron
unit        what is drawn again and whose sign is flipped: a neuron, or a layer of them
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.score import bootstrap
from neuron_explainer.score.bootstrap import Interval
from neuron_explainer.score.statistics import mean_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# With five layers no pattern of signs has a two-sided p-value below 5 %.
MINIMUM_CLUSTERS = 6
_EXACT_UNITS = 15  # 2^15 patterns of signs are all looked at
_LEVEL_RESAMPLES = 2000
_BLOCK = 1 << 18  # signs at a time
_ROUNDING = 1e-12  # sums that differ by less are tied


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals and p-values are drawn."""

    seed: int = 0
    resamples: int = 10_000
    level: float = 0.95

    @property
    def of_levels(self) -> "Resampling":
        """For what is no difference: no more resamples than `score` takes."""
        return replace(self, resamples=min(self.resamples, _LEVEL_RESAMPLES))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval, which is None where there are too few units."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Contrast:
    """Run a against run b, on the neurons where both are defined."""

    n: int
    clusters: int | None  # how many layers were drawn whole; None: neurons were drawn
    difference: Estimate  # mean of a - b
    p_value: float | None  # two-sided, sign flips
    effect_size: float | None  # mean over standard deviation of the differences
    better: float  # share of neurons on which a scores higher
    worse: float
    tied: float
    superiority: Estimate  # P(a beats b on a neuron), a tie counting as half
    spearman: float | None
    spread: float | None  # standard deviation of the differences
    design_effect: float  # how much the layers widen the variance of the mean


def clusters_of(layers: Sequence[int] | Ints | None) -> Ints | None:
    """Each neuron's cluster, numbered from 0; None when neurons are to be drawn one by one.

    Layers are clusters when there are at least six: fewer cannot stand for layers not seen.
    """
    if layers is None or not len(layers):
        return None
    distinct, place = np.unique(np.asarray(layers), return_inverse=True)
    return np.asarray(place, np.int64) if len(distinct) >= MINIMUM_CLUSTERS else None


def units_of(values: Floats, clusters: Ints | None) -> Floats:
    """Sums and counts of each unit (units, 2): of one neuron each, or of each cluster."""
    if clusters is None:
        return np.stack([values, np.ones_like(values)], axis=1)
    counts = np.bincount(clusters).astype(np.float64)
    sums = np.bincount(clusters, weights=values)
    return np.stack([sums, counts], axis=1)[counts > 0]


def mean_estimate(values: Floats, clusters: Ints | None, how: Resampling) -> Estimate:
    """The mean of finite `values` (neurons,) with its interval, as `score` takes it.

    Over clusters it is bootstrapped, with the quantiles of Student's t.
    """
    if clusters is None:
        interval = mean_interval(values, how.seed, how.level, how.resamples)
        return Estimate(float(np.mean(values)), interval)
    return bootstrapped_mean(values, clusters, how)


def bootstrapped_mean(values: Floats, clusters: Ints | None, how: Resampling) -> Estimate:
    """The mean of finite `values` (neurons,) with its BCa interval (Efron 1987), however many."""
    interval = bootstrap.interval(
        units_of(values, clusters),
        bootstrap.mean,
        how.seed,
        how.level,
        how.resamples,
        small_sample=clusters is not None,
    )
    return Estimate(float(np.mean(values)), interval)


def sign_flip_p_value(units: Floats, how: Resampling) -> float | None:
    """Two-sided p-value of a sum of `units` (units,) that is 0 when either sign is as likely.

    Exact for up to 15 units; else (b + 1) / (m + 1) with b of m random patterns of signs at least
    as extreme, which is never 0 (Phipson & Smyth 2010). None without units.
    """
    if not len(units):
        return None
    moving = units[units != 0]
    bound = abs(float(moving.sum())) - _ROUNDING * float(np.abs(moving).sum())
    if len(moving) <= _EXACT_UNITS:
        patterns = np.arange(1 << len(moving))[:, None] >> np.arange(len(moving)) & 1
        return float(np.mean(np.abs((2.0 * patterns - 1) @ moving) >= bound))
    rng = np.random.default_rng([how.seed, 1])
    rows = max(1, _BLOCK // len(moving))
    extreme = 0
    for start in range(0, how.resamples, rows):
        shape = (min(rows, how.resamples - start), -(-len(moving) // 8))
        bits = np.unpackbits(rng.integers(0, 256, shape, dtype=np.uint8), axis=1)
        sums = 2 * (bits[:, : len(moving)].astype(np.float64) @ moving) - moving.sum()
        extreme += int(np.sum(np.abs(sums) >= bound))
    return (extreme + 1) / (how.resamples + 1)


def contrast(
    a: Floats, b: Floats, clusters: Ints | None = None, how: Resampling = Resampling()
) -> Contrast | None:
    """Compare two runs' scores (neurons,); None when no neuron is defined in both.

    Neurons undefined in either are dropped: for the other policy give zeros. `clusters` is what
    `clusters_of` made.
    """
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return None
    a, b, clusters = a[both], b[both], None if clusters is None else clusters[both]
    difference = a - b
    units = units_of(difference, clusters)
    wins = 0.5 * (1 + np.sign(difference))
    n = len(difference)
    spread = float(np.std(difference, ddof=1)) if n > 1 else None
    mean = float(np.mean(difference))
    return Contrast(
        n=n,
        clusters=None if clusters is None else len(units),
        difference=bootstrapped_mean(difference, clusters, how),
        p_value=sign_flip_p_value(units[:, 0], how),
        effect_size=mean / spread if spread and spread > _ROUNDING * abs(mean) else None,
        better=float(np.mean(difference > 0)),
        worse=float(np.mean(difference < 0)),
        tied=float(np.mean(difference == 0)),
        superiority=mean_estimate(wins, clusters, how),
        spearman=spearman(a, b),
        spread=spread,
        design_effect=_design_effect(units, mean, spread, n) if clusters is not None else 1.0,
    )


def _design_effect(units: Floats, mean: float, spread: float | None, n: int) -> float:
    """The variance of a mean over clusters (Cochran 1977, section 9.7) over that of n neurons."""
    if not spread:
        return 1.0
    residuals = units[:, 0] - mean * units[:, 1]
    variance = len(units) / (len(units) - 1) * float(np.sum(residuals**2)) / n**2
    return variance / (spread**2 / n)


def spearman(a: Floats, b: Floats) -> float | None:
    """Spearman's rank correlation of finite scores (neurons,); None where one is constant."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that all that are below 5 % hold together (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values, np.float64)[order]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]
