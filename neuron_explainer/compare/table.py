"""Scores of several methods on the same neurons, wherever they come from.

method     what is compared: a run with its simulator, or a name in a table; its seeds are columns
attempted  a method has a score, an undefined score or a failure for the neuron
undefined  attempted, without a score: NaN and a cause
absent     not attempted: the method says nothing of that neuron, and the comparison neither
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.compare.statistics import Floats, Ints
from neuron_explainer.errors import DataError
from neuron_explainer.records import BoolArray
from neuron_explainer.score.classification import CHANCE

NOT_IN_SEED = "not in this seed"


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """One column of scores: a method's, under one seed."""

    keys: Ints  # (cells,), ascending
    values: Floats  # (cells,), NaN where undefined
    causes: NDArray[np.object_]  # (cells,), None where defined
    scored: BoolArray  # (cells,), False where a failure stands instead of a score


@dataclass(frozen=True, slots=True)
class Selection:
    """That a method's explanations are the best of several, and by which split that was judged."""

    among: int
    split: str | None  # None: the scores that are reported


@dataclass(frozen=True, slots=True)
class Budget:
    """What a method takes for a neuron; None where it is not known."""

    tokens: float | None  # read and written
    cost: float | None  # US dollars
    cached: bool = False  # some replies came from the cache, and were not counted


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A method before it is paired with others."""

    name: str
    seeds: Sequence[Cells]
    selection: Selection | None = None
    budget: Budget = Budget(None, None)


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method's scores on the neurons of a `Table`."""

    name: str
    values: Floats  # (neurons, seeds), NaN where undefined
    undefined: Mapping[str, int]  # cause -> neurons and seeds, most frequent first
    absent: int  # neurons that another method has attempted
    selection: Selection | None
    budget: Budget

    @property
    def means(self) -> Floats:
        """The mean over the defined seeds (neurons,), NaN where there is none."""
        defined = np.isfinite(self.values)
        with np.errstate(invalid="ignore"):
            means: Floats = np.where(defined, self.values, 0.0).sum(axis=1) / defined.sum(axis=1)
        return means

    def or_chance(self, chance: float) -> Floats:
        """The mean over all seeds (neurons,) with undefined counted as `chance`."""
        return np.asarray(np.nan_to_num(self.values, nan=chance).mean(axis=1), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Methods and what they are held against, on the neurons that all methods attempted."""

    metric: str
    keys: Ints  # (neurons,)
    labels: Sequence[str]  # (neurons,), how a neuron is printed
    layers: Ints | None  # (neurons,)
    methods: tuple[Method, ...]
    nulls: Mapping[str, Method] = field(default_factory=dict)  # by method; a column a draw
    constant: Method | None = None
    lookup: Method | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # subject, split, simulator, …
    notes: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """What a method that knows nothing scores, and an undefined score counts as."""
        verdicts = ("balanced_accuracy", "auroc")
        return CHANCE if self.metric.startswith(verdicts) else 0.0


def pair(columns: Sequence[Column]) -> tuple[Ints, tuple[Method, ...]]:
    """The neurons that all methods attempted and one at least could score, and their scores.

    Raises DataError when there is none.
    """
    attempted = [_union(column.seeds) for column in columns]
    shared = attempted[0]
    for keys in attempted[1:]:
        shared = np.intersect1d(shared, keys, assume_unique=True)
    scored = np.unique(
        np.concatenate([cells.keys[cells.scored] for column in columns for cells in column.seeds])
    )
    shared = np.intersect1d(shared, scored, assume_unique=True)
    if not len(shared):
        names = ", ".join(column.name for column in columns)
        raise DataError(f"no neuron was scored in all of {names}: there is nothing to compare")
    everything = np.unique(np.concatenate(attempted))
    methods = tuple(
        replace(aligned(column, shared), absent=len(everything) - len(keys))
        for column, keys in zip(columns, attempted, strict=True)
    )
    return shared, methods


def aligned(column: Column, keys: Ints) -> Method:
    """A column's scores of the neurons `keys` (neurons,), ascending."""
    values = np.full((len(keys), len(column.seeds)), np.nan)
    causes: Counter[str] = Counter()
    for seed, cells in enumerate(column.seeds):
        place = np.searchsorted(cells.keys, keys).clip(max=max(len(cells.keys) - 1, 0))
        found = np.zeros(len(keys), np.bool_)
        if len(cells.keys):
            found = cells.keys[place] == keys
            values[found, seed] = cells.values[place[found]]
        causes.update(cause for cause in cells.causes[place[found]].tolist() if cause is not None)
        if missing := int(np.sum(~found)):
            causes[NOT_IN_SEED] += missing
    return Method(
        column.name, values, dict(causes.most_common()), 0, column.selection, column.budget
    )


def _union(seeds: Sequence[Cells]) -> Ints:
    return np.unique(np.concatenate([cells.keys for cells in seeds]))
