"""Runs with their simulators: what a comparison reads, and whether it may."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from neuron_explainer.compare.statistics import Ints
from neuron_explainer.compare.table import Cells
from neuron_explainer.config import ScoreSettings, build
from neuron_explainer.errors import ConfigError, DataError, RunMismatch
from neuron_explainer.runs import Run
from neuron_explainer.score.base import Scores
from neuron_explainer.score.stage import read_scores, table_name
from neuron_explainer.simulate.base import NULLS
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace

SITE_BITS = 32  # a key is the site's number, then the neuron's
_NOT_COMPARED = {"splits", "seed"}  # of a simulator's configuration


@dataclass(frozen=True)
class Source:
    """A run with one simulator: where one column of scores comes from."""

    run: Run
    label: str  # the simulator's folder
    settings: ScoreSettings

    @cached_property
    def folder(self) -> Folder:
        """The simulations and scores."""
        return self.run.simulations(self.label)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Who simulated, with which options."""
        config: Mapping[str, Any] = self.folder.manifest()["config"]
        return config

    @cached_property
    def explained(self) -> Mapping[str, Any]:
        """The manifest of the explanations."""
        return self.run.folder.manifest()

    @property
    def null(self) -> str | None:
        """Which null it is, if it is one. Simulators of sequences shuffle by an option."""
        if self.config.get("shuffled"):
            return "shuffled"
        simulator = self.config.get("simulator")
        return simulator if simulator in NULLS else None

    @property
    def sites(self) -> list[str]:
        """The sites that are scored."""
        table = table_name(self.settings)
        return [site for site in self.run.sites() if self.folder.shards(f"{site}/{table}")]

    def require(self) -> None:
        """Raises DataError when it is not there or not scored."""
        self.run.require()
        if not self.folder.exists:
            raise DataError(
                f"{self.label} has not simulated run '{self.run.name}': {self.folder.rebuild}"
            )
        if not self.sites:
            extra = "" if self.settings.split == "valid" else f" --split {self.settings.split}"
            raise DataError(
                f"run '{self.run.name}' has no {self.settings.split} scores of {self.label}: "
                f"neuron-explainer score {self.run.name}{extra}"
            )


def named(
    workspace: Workspace, names: Sequence[str], split: str, simulator: str | None
) -> list[list[Source]]:
    """The sources of each name, RUN or RUN/SIMULATOR, seeds joined by commas.

    Raises ConfigError, DataError and RunMismatch when one of them cannot be had.
    """
    settings = build(ScoreSettings, {"split": split}, "compare")
    groups = [[name.partition("/")[::2] for name in group.split(",")] for group in names]
    runs = {name: Run(workspace, name) for group in groups for name, _ in group}
    for run in runs.values():
        run.require()
    unnamed = [runs[name] for group in groups for name, label in group if not label]
    default = _common_simulator(unnamed, simulator, settings) if unnamed else ""
    sources = [
        [Source(runs[name], label or default, settings) for name, label in group]
        for group in groups
    ]
    for source in (source for group in sources for source in group):
        source.require()
    return sources


def _common_simulator(runs: Sequence[Run], asked: str | None, settings: ScoreSettings) -> str:
    """The simulator that all runs are scored with, nulls aside.

    Raises ConfigError when there are several and RunMismatch when there is none.
    """
    if asked is not None:
        return asked
    had = {
        run.name: [
            label
            for label in run.simulators()
            if (source := Source(run, label, settings)).sites and not source.null
        ]
        for run in runs
    }
    common = set.intersection(*(set(labels) for labels in had.values()))
    if len(common) == 1:
        return common.pop()
    if common:
        raise ConfigError(f"which simulator? --simulator takes one of {', '.join(sorted(common))}")
    each = "; ".join(f"{name} has {', '.join(labels) or 'none'}" for name, labels in had.items())
    raise RunMismatch(
        f"these runs have no {settings.split} scores of a simulator in common: {each}. Simulate "
        "and score them with the same one, or name "
        'RUN/SIMULATOR for each and give --allow "REASON"'
    )


def differences(sources: Sequence[Source]) -> list[str]:
    """What makes scores of these sources not comparable, one line each."""
    first, found = sources[0], []
    for other in sources[1:]:
        names = f"{first.run.name} and {other.run.name}"
        if first.run.subject != other.run.subject:
            found.append(f"subject: {names} have {first.run.subject} and {other.run.subject}")
            continue
        mine, theirs = (source.explained.get("inputs", {}) for source in (first, other))
        changed = [site for site in mine.keys() & theirs.keys() if mine[site] != theirs[site]]
        if changed:
            found.append(f"record set: {names} have different ones of {sorted(changed)[0]}")
        for key in sorted((first.config.keys() | other.config.keys()) - _NOT_COMPARED):
            before, after = (source.config.get(key) for source in (first, other))
            if before != after:
                found.append(f"simulator's {key}: {names} have {before} and {after}")
    return list(dict.fromkeys(found))


def cells_of(source: Source, sites: Sequence[str], metric: str) -> Cells:
    """All scores and failures on `sites` by key; a site's number is its place among them."""
    keys, parts, scored = [np.array([], np.int64)], [Scores(np.array([]), ())], [0]
    for site in source.sites:
        if site not in sites:
            continue
        found = read_scores(source.folder, site, source.settings)
        if metric not in found.scores:
            continue
        first = sites.index(site) << SITE_BITS
        keys.append(found.neurons.astype(np.int64) | first)
        parts.append(found.scores[metric])
        failed, causes = _failures(source, site)
        keys.append(failed | first)
        parts.append(Scores(np.full(len(failed), np.nan), causes))
        scored += [1] * len(found.neurons) + [0] * len(failed)
    joined = Scores.join(parts)
    # a score goes before a failure of the same neuron: it was tried again
    distinct, first_of = np.unique(np.concatenate(keys), return_index=True)
    return Cells(
        distinct,
        joined.values[first_of],
        np.array(joined.reasons, np.object_)[first_of],
        np.array(scored[1:], np.bool_)[first_of],
    )


def _failures(source: Source, site: str) -> tuple[Ints, tuple[str, ...]]:
    """The neurons of a site without a result, and why."""
    neurons: list[int] = []
    causes: list[str] = []
    for stage, folder in (("explain", source.run.folder), ("simulate", source.folder)):
        if folder.shards(f"{site}/failures"):
            table = folder.read_all(f"{site}/failures", ["neuron", "cause"])
            neurons += table["neuron"].to_pylist()
            causes += [f"{stage}: {cause}" for cause in table["cause"].to_pylist()]
    return np.array(neurons, np.int64), tuple(causes)
