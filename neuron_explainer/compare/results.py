"""All figures of a comparison, from a table: what the reports and plots show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from neuron_explainer.compare.budget import pareto_front
from neuron_explainer.compare.guard import Guard, guard_of
from neuron_explainer.compare.power import Plan, plan
from neuron_explainer.compare.references import gap_closed
from neuron_explainer.compare.reliability import Reliability
from neuron_explainer.compare.statistics import (
    Contrast,
    Estimate,
    Floats,
    Ints,
    Resampling,
    clusters_of,
    contrast,
    holm,
    mean_estimate,
)
from neuron_explainer.compare.table import Budget, Method, Table

DISAGREEMENTS = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One method, null or reference."""

    name: str
    role: str  # "method", "null" or "lookup"
    neurons: int  # in the comparison
    defined: int
    absent: int  # neurons that another method attempted and this one did not
    undefined: Mapping[str, int]  # cause -> neurons and seeds
    mean: Estimate | None  # over defined neurons
    mean_undefined_as_chance: Estimate
    median: float | None
    seeds: int
    seed_spread: float | None  # standard deviation between seeds on one neuron
    above_lookup: Estimate | None  # mean difference to the lookup
    gap_closed: Estimate | None  # between null and lookup
    budget: Budget
    on_front_by_tokens: bool = False
    on_front_by_cost: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods against each other; the differences are of a less b."""

    a: str
    b: str
    contrast: Contrast | None  # neurons undefined in either dropped; None: none are left
    p_adjusted: float | None  # Holm, over all pairs
    undefined_as_chance: Contrast | None  # None: nothing is undefined, it is the same
    p_adjusted_undefined_as_chance: float | None
    layers: Mapping[int, tuple[int, Estimate]]  # layer -> neurons, mean difference
    plan: Plan | None

    @property
    def policies_disagree(self) -> bool:
        """Whether dropping and counting as chance differ as shown, or in significance."""
        dropped, zero = self.contrast, self.undefined_as_chance
        if dropped is None or zero is None:
            return zero is not None
        moved = abs(dropped.difference.value - zero.difference.value) >= 0.0005
        return moved or _significant(self.p_adjusted) != _significant(
            self.p_adjusted_undefined_as_chance
        )


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A neuron on which two methods differ much."""

    neuron: str
    a: str
    b: str
    scores: tuple[float, float]
    place: int  # in the table
    explanations: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is reported."""

    metric: str
    chance: float  # what an undefined score counts as in the second policy
    facts: Mapping[str, Any]
    resampling: Resampling
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    guards: tuple[Guard, ...]
    disagreements: tuple[Disagreement, ...]
    reliability: tuple[Reliability, ...]  # by method, where it can be had
    notes: tuple[str, ...]


def compare(table: Table, how: Resampling, all_pairs: bool = False) -> Comparison:
    """Compute everything but reliability and explanations, which need what is on disk."""
    clusters = clusters_of(table.layers)
    first = table.methods[0]
    planned = (
        list(combinations(reversed(table.methods), 2))
        if all_pairs
        else [(method, first) for method in table.methods[1:]]
    )
    pairs = _adjusted([_pair(a, b, table, clusters, how) for a, b in planned])
    guards = tuple(
        guard_of(method, table, clusters, how) for method in table.methods if method.selection
    )
    return Comparison(
        metric=table.metric,
        chance=table.chance,
        facts=table.facts,
        resampling=how,
        lines=_lines(table, clusters, how),
        pairs=pairs,
        guards=guards,
        disagreements=tuple(
            found for a, b in planned for found in _disagreements(a, b, table.labels)
        ),
        reliability=(),
        notes=(*table.notes, *_about_layers(table.layers, clusters)),
    )


def _significant(p_value: float | None) -> bool:
    return p_value is not None and p_value <= 0.05


def _pair(a: Method, b: Method, table: Table, clusters: Ints | None, how: Resampling) -> Pair:
    found = contrast(a.means, b.means, clusters, how)
    undefined = bool(a.undefined or b.undefined)
    zero = (
        contrast(a.or_chance(table.chance), b.or_chance(table.chance), clusters, how)
        if undefined
        else None
    )
    needed = None
    if found is not None and found.spread:
        needed = plan(found.spread, found.n, found.design_effect)
    by_layer = _by_layer(a.means - b.means, table.layers, how)
    return Pair(a.name, b.name, found, None, zero, None, by_layer, needed)


def _adjusted(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """With p-values adjusted over all of them (Holm), under either policy."""
    dropped = _holm([pair.contrast for pair in pairs])
    zero = _holm([pair.undefined_as_chance or pair.contrast for pair in pairs])
    return tuple(
        replace(
            pair,
            p_adjusted=one,
            p_adjusted_undefined_as_chance=other if pair.undefined_as_chance else None,
        )
        for pair, one, other in zip(pairs, dropped, zero, strict=True)
    )


def _holm(contrasts: Sequence[Contrast | None]) -> list[float | None]:
    values = [found.p_value if found else None for found in contrasts]
    adjusted = iter(holm([value for value in values if value is not None]))
    return [None if value is None else next(adjusted) for value in values]


def _by_layer(
    difference: Floats, layers: Ints | None, how: Resampling
) -> dict[int, tuple[int, Estimate]]:
    if layers is None:
        return {}
    defined = np.isfinite(difference)
    found = {}
    for layer in np.unique(layers).tolist():
        values = difference[defined & (layers == layer)]
        if len(values):
            found[layer] = (len(values), mean_estimate(values, None, how.of_levels))
    return found


def _lines(table: Table, clusters: Ints | None, how: Resampling) -> tuple[Line, ...]:
    """The methods, then nulls and lookup."""
    methods = [_line(method, "method", table, clusters, how) for method in table.methods]
    scores = [line.mean.value if line.mean else -np.inf for line in methods]
    fronts = [
        pareto_front(scores, [getattr(line.budget, what) for line in methods])
        for what in ("tokens", "cost")
    ]
    methods = [
        replace(line, on_front_by_tokens=tokens, on_front_by_cost=cost)
        for line, tokens, cost in zip(methods, *fronts, strict=True)
    ]
    others: dict[str, tuple[Method, str]] = {}
    for other, role in (
        (table.constant, "null"),
        *((null, "null") for null in table.nulls.values()),
        (table.lookup, "lookup"),
    ):
        if other is not None and other.name not in {line.name for line in methods}:
            others[other.name] = (other, role)
    return (
        *methods,
        *(_line(other, role, table, clusters, how) for other, role in others.values()),
    )


def _line(method: Method, role: str, table: Table, clusters: Ints | None, how: Resampling) -> Line:
    means = method.means
    defined = np.isfinite(means)
    groups = None if clusters is None else clusters[defined]
    above, closed = None, None
    if role == "method" and table.lookup is not None:
        lookup = table.lookup.means
        both = defined & np.isfinite(lookup)
        if both.any() and not np.array_equal(means[both], lookup[both]):
            above = mean_estimate(
                (means - lookup)[both], None if clusters is None else clusters[both], how
            )
        if (null := table.nulls.get(method.name)) is not None:
            closed = gap_closed(means, null.means, lookup, clusters, how.of_levels)
    return Line(
        name=method.name,
        role=role,
        neurons=len(means),
        defined=int(defined.sum()),
        absent=method.absent,
        undefined=method.undefined,
        mean=mean_estimate(means[defined], groups, how.of_levels) if defined.any() else None,
        mean_undefined_as_chance=mean_estimate(
            method.or_chance(table.chance), clusters, how.of_levels
        ),
        median=float(np.median(means[defined])) if defined.any() else None,
        seeds=method.values.shape[1],
        seed_spread=_seed_spread(method.values),
        above_lookup=above,
        gap_closed=closed,
        budget=method.budget,
    )


def _seed_spread(values: Floats) -> float | None:
    """The standard deviation between seeds on one neuron, pooled; None without a second seed."""
    defined = np.isfinite(values)
    counts = defined.sum(axis=1)
    several = counts > 1
    if not several.any():
        return None
    inside, counts = values[several], counts[several]
    centre = np.nanmean(inside, axis=1, keepdims=True)
    return float(np.sqrt(np.nansum((inside - centre) ** 2) / np.sum(counts - 1)))


def _disagreements(a: Method, b: Method, labels: Sequence[str]) -> list[Disagreement]:
    """The neurons with the largest difference either way, the largest first."""
    first, second = a.means, b.means
    size = np.nan_to_num(np.abs(first - second), nan=-1.0)
    order = np.argsort(-size, kind="stable")[:DISAGREEMENTS].tolist()
    return [
        Disagreement(
            labels[place], a.name, b.name, (float(first[place]), float(second[place])), place
        )
        for place in order
        if size[place] > 0
    ]


def _about_layers(layers: Ints | None, clusters: Ints | None) -> list[str]:
    if layers is None or len(np.unique(layers)) == 1:
        return []
    number = len(np.unique(layers))
    if clusters is None:
        return [
            f"{number} layers are too few to be drawn whole: intervals and p-values are over "
            "neurons of these layers, and say nothing of other layers"
        ]
    return [
        f"intervals and p-values are over {number} layers drawn whole, because neurons of one "
        "layer are alike"
    ]
