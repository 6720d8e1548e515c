"""How many neurons it takes to see a difference."""

from dataclasses import dataclass
from math import ceil, sqrt

from scipy import stats

DIFFERENCES = (0.01, 0.02, 0.05)
POWER = 0.8
SIGNIFICANCE = 0.05  # two-sided
_CONFIDENCE = 0.95
_FEWEST = 6  # with five neurons no pattern of signs has a two-sided p-value below 5 %


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison needs and what one of the present size can see."""

    spread: float  # standard deviation of the paired differences, layers included
    planned_spread: float  # the one that was planned with
    pilot: int | None  # how many neurons it is known from
    needed: dict[float, int]  # difference -> neurons
    visible: float | None  # the smallest difference that the pilot's number sees


def plan(
    spread: float,
    pilot: int | None = None,
    design_effect: float = 1.0,
    differences: tuple[float, ...] = DIFFERENCES,
) -> Plan:
    """Neurons needed to see each of `differences` with 80 % power, two-sided 5 %.

    A spread that is known from `pilot` neurons is itself uncertain: planned with is its upper
    95 % limit, so that nineteen plans in twenty are large enough (Browne 1995).
    """
    known = spread * sqrt(design_effect)
    planned = upper_limit(known, pilot) if pilot is not None else known
    needed = {difference: neurons_needed(planned, difference) for difference in differences}
    visible = None if pilot is None or pilot < 2 else _deviates() * known / sqrt(pilot)
    return Plan(known, planned, pilot, needed, visible)


def neurons_needed(spread: float, difference: float) -> int:
    """Paired neurons to see a mean difference with 80 % power, two-sided 5 %: Guenther 1981."""
    if difference == 0:
        raise ValueError("no number of neurons shows a difference of 0")
    significant = float(stats.norm.ppf(1 - SIGNIFICANCE / 2))
    return max(_FEWEST, ceil((_deviates() * spread / difference) ** 2 + significant**2 / 2))


def upper_limit(spread: float, pilot: int) -> float:
    """The upper 95 % limit of a standard deviation that is known from `pilot` normal values."""
    if pilot < 2:
        return spread
    return spread * sqrt((pilot - 1) / float(stats.chi2.ppf(1 - _CONFIDENCE, pilot - 1)))


def _deviates() -> float:
    return float(stats.norm.ppf(1 - SIGNIFICANCE / 2) + stats.norm.ppf(POWER))
