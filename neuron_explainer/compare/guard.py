"""Whether a method's scores are inflated by having been selected on."""

from dataclasses import dataclass

import numpy as np

from neuron_explainer.compare.references import null_maximum
from neuron_explainer.compare.statistics import Contrast, Ints, Resampling, contrast
from neuron_explainer.compare.table import Method, Table


@dataclass(frozen=True, slots=True)
class Guard:
    """A method that is the best of several, and what that is worth."""

    name: str
    among: int
    split: str | None  # by which it was selected; None: the scores that are reported
    flagged: bool
    null: str | None  # what it was held against
    null_upper_bound: bool  # a single draw a neuron: the null's maximum is too large
    above_null: Contrast | None  # the method less the null's maximum

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.flagged:
            return (
                f"{self.name} is the best of {self.among} by the {self.split} split, which is not "
                "the one reported: a fair selection"
            )
        told = (
            f"{self.name} is the best of {self.among} by the very scores that are reported: its "
            "mean is inflated and not comparable with an unselected one"
        )
        if self.null == self.name:
            return f"{told}; it is the null that others are held against"
        if self.above_null is None:
            return f"{told}; there is no null to say by how much"
        found = self.above_null
        ends = found.difference.interval
        bound = " (an upper bound)" if self.null_upper_bound else ""
        what = f"less the best of {self.among} of {self.null}{bound}"
        figure = f"{found.difference.value:+.3f}"
        if ends is not None:
            figure += f" [{ends.low:+.3f}, {ends.high:+.3f}]"
        return f"{told}; {what} it is {figure}"


def guard_of(method: Method, table: Table, clusters: Ints | None, how: Resampling) -> Guard:
    """Flag a selection by the reported split and hold it against as good a selection of nulls."""
    selection = method.selection
    assert selection is not None
    among, reported = selection.among, table.facts.get("split")
    flagged = among > 1 and selection.split in {None, reported}
    null = table.nulls.get(method.name)
    others = None if null is None or null.selection is None else null.selection.among
    if not flagged or null is None or null.name == method.name or others not in {None, among}:
        same = null.name if flagged and null is not None and null.name == method.name else None
        return Guard(method.name, among, selection.split, flagged, same, False, None)
    best = null.means if others else null_maximum(null.values, among)
    bound = others is None and bool(np.isfinite(null.values).sum(axis=1).max() < 2)
    found = contrast(method.means, best, clusters, how)
    return Guard(method.name, among, selection.split, True, null.name, bound, found)
