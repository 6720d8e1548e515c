"""Runs of a workspace as a table: only what may be compared, with its nulls and references."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuron_explainer import registry
from neuron_explainer.compare.budget import budget_of
from neuron_explainer.compare.sources import SITE_BITS, Source, cells_of, differences, named
from neuron_explainer.compare.table import Column, Method, Selection, Table, aligned, pair
from neuron_explainer.errors import ConfigError, DataError, RunMismatch
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.runs import Run, all_runs
from neuron_explainer.score.stage import read_scores
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace

PREFERRED = ("correlation_top_and_random", "balanced_accuracy", "auroc")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is compared, and how strictly."""

    split: str = "valid"
    simulator: str | None = None
    metric: str | None = None
    lookup: str | None = None  # a run; default: the largest token table of the same record sets
    allow: str | None = None  # why runs that differ are compared all the same


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """A table with where it came from."""

    table: Table
    sources: Sequence[Sequence[Source]]  # by method, a source a seed
    sites: Sequence[str]


def read(workspace: Workspace, names: Sequence[str], choice: Choice) -> Runs:
    """Read the scores of runs, each named RUN or RUN/SIMULATOR, seeds joined by commas.

    Raises RunMismatch when they differ in subject, record sets or simulator and `choice.allow`
    gives no reason, and DataError when there is nothing to read.
    """
    sources = named(workspace, names, choice.split, choice.simulator)
    flat = [source for group in sources for source in group]
    if (found := differences(flat)) and not choice.allow:
        raise RunMismatch(
            f"these runs are not comparable: {'; '.join(found)}. "
            'To compare them all the same give --allow "REASON", which the report keeps'
        )
    sites = list(dict.fromkeys(site for source in flat for site in source.sites))
    metric = _metric(flat, choice.metric)
    columns = [
        Column(
            name,
            [cells_of(source, sites, metric) for source in group],
            _selection(group[0]),
            budget_of(
                [source.run.folder for source in group],
                [folder for source in group for folder in _candidates(source)],
                [source.folder for source in group],
            ),
        )
        for name, group in zip(names, sources, strict=True)
    ]
    keys, methods = pair(columns)
    table = Table(
        metric=metric,
        keys=keys,
        labels=[f"{sites[key >> SITE_BITS]}/{key & ((1 << SITE_BITS) - 1)}" for key in keys],
        layers=np.array([int(site.split(".")[1]) for site in sites])[keys >> SITE_BITS],
        methods=methods,
        facts=_facts(flat, choice, found),
    )
    return Runs(_with_references(table, sources, sites, choice), sources, sites)


def _metric(sources: Sequence[Source], asked: str | None) -> str:
    """The column asked for, else the first preferred one that every source has defined values in.

    Raises ConfigError when there is no such column.
    """
    known: list[str] | None = None
    for source in sources:
        scores = read_scores(source.folder, source.sites[0], source.settings).scores
        has = [name for name, found in scores.items() if np.isfinite(found.values).any()]
        if asked is not None and asked not in scores:
            raise ConfigError(registry.unknown("metric", asked, list(scores)))
        known = has if known is None else [name for name in known if name in has]
    if asked is not None:
        return asked
    ranked = [name for wanted in PREFERRED for name in known or () if name.startswith(wanted)]
    if not ranked and not known:
        raise DataError("these runs have no metric in common that is defined anywhere")
    return (ranked or known or [""])[0]


def _candidates(source: Source) -> list[Folder]:
    """The runs that a selected run's explanations were chosen from, those still there."""
    chosen = (source.explained.get("selection") or {}).get("runs", [])
    folders = [Run(source.run.workspace, entry["run"]).folder for entry in chosen]
    return [folder for folder in folders if folder.exists]


def _selection(source: Source) -> Selection | None:
    found = source.explained.get("selection")
    return Selection(int(found["among"]), str(found["split"])) if found else None


def _facts(sources: Sequence[Source], choice: Choice, found: Sequence[str]) -> dict[str, Any]:
    return {
        "subject": sources[0].run.subject,
        "split": choice.split,
        "simulator": sources[0].label,
        **({"allowed": choice.allow, "differences": list(found)} if found else {}),
    }


def _with_references(
    table: Table, sources: Sequence[Sequence[Source]], sites: Sequence[str], choice: Choice
) -> Table:
    """The table with the nulls of its runs and the lookup, and a note for each that is missing."""
    notes: list[str] = []
    nulls: dict[str, Method] = {}
    constant = None
    for method, group in zip(table.methods, sources, strict=True):
        shuffled = [null for source in group for null in _nulls(source, "shuffled")]
        if shuffled:
            cells = [cells_of(null, sites, table.metric) for null in shuffled]
            nulls[method.name] = aligned(Column(f"shuffled, {method.name}", cells), table.keys)
        else:
            run, simulator = group[0].run.name, group[0].label
            how = (
                f"--simulator {simulator} --option shuffled=true --as {simulator}-shuffled"
                if group[0].folder.manifest().get("predicts") == "sequences"
                else f"--simulator shuffled --option of={simulator}"
            )
            notes.append(
                f"no shuffled null of {method.name}: neuron-explainer simulate {run} {how}, then "
                f"neuron-explainer score {run}"
            )
        for null in _nulls(group[0], "constant") if constant is None else ():
            constant = aligned(
                Column("constant", [cells_of(null, sites, table.metric)]), table.keys
            )
    lookup, note = _lookup_of(table, sources, sites, choice)
    return replace(
        table,
        nulls=nulls,
        constant=constant,
        lookup=lookup,
        notes=(*notes, note) if note else tuple(notes),
    )


def _nulls(source: Source, kind: str) -> list[Source]:
    """The scored nulls of the same run; a shuffled one only if the same simulator made it."""
    found = []
    for label in source.run.simulators():
        null = Source(source.run, label, source.settings)
        of = null.config["simulator"] if null.config.get("shuffled") else null.config.get("of")
        same = kind == "constant" or of == source.config["simulator"]
        if null.null == kind and same and null.sites:
            found.append(null)
    return found


def _lookup_of(
    table: Table, sources: Sequence[Sequence[Source]], sites: Sequence[str], choice: Choice
) -> tuple[Method | None, str]:
    """The token lookup on the table's neurons, and what is to be said of it."""
    found = _lookup(sources[0][0], choice)
    name = _lookup_name(sources[0][0])
    if found is None:
        whole = "" if name == "pair-lookup" else " --table-size all"
        return None, (
            f"no {name.replace('-', ' ')}: explain with --explainer {name}{whole}, simulate with "
            f"{name} and score"
        )
    for method, group in zip(table.methods, sources, strict=True):
        if group == [found]:
            return method, f"the {name.replace('-', ' ')} is {method.name}"
    if table.metric not in read_scores(found.folder, found.sites[0], found.settings).scores:
        return None, f"the token lookup has no {table.metric}: it predicts tokens"
    column = Column(
        f"{name.replace('-', ' ')}, {found.run.name}", [cells_of(found, sites, table.metric)]
    )
    return aligned(column, table.keys), ""


def _lookup_name(source: Source) -> str:
    """The lookup for what a run explains, explainer and simulator: neurons or attention heads."""
    return "pair-lookup" if any(map(is_pattern, source.run.sites())) else "token-lookup"


def _lookup(source: Source, choice: Choice) -> Source | None:
    """The scored lookup with the largest table over the same record sets."""
    name = _lookup_name(source)
    if choice.lookup is not None:
        asked = Source(Run(source.run.workspace, choice.lookup), name, source.settings)
        asked.require()
        return asked
    mine = source.explained.get("inputs", {}).items()
    found = []
    for run in all_runs(source.run.workspace):
        manifest = run.folder.manifest()
        candidate = Source(run, name, source.settings)
        same = manifest.get("inputs", {}).items() >= mine
        is_lookup = manifest["config"].get("explainer") == name
        if is_lookup and same and candidate.folder.exists and candidate.sites:
            size = manifest["config"].get("table_size", 0)
            found.append((np.inf if size == "all" else float(size), run.name, candidate))
    return max(found, key=lambda item: item[:2])[2] if found else None
