"""What a workspace holds, from manifests alone: subjects, sites, runs, and what is wrong with them.

Whatever a request names is looked up here, among what was found; nothing that it says becomes a
path. Folders and files that lead out of the workspace by links are not read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from neuron_explainer.errors import NeuronExplainerError
from neuron_explainer.record_set import RecordSet
from neuron_explainer.runs import Run
from neuron_explainer.store import Folder
from neuron_explainer.view.contract import Unavailable, key_of, shown
from neuron_explainer.view.entries import RunEntry, SimulatorEntry, SiteEntry, require_contained
from neuron_explainer.view.snapshot import SeenRecords, Snapshot
from neuron_explainer.workspace import Workspace

_SITE = re.compile(r"blocks\.\d{1,6}\..+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """A folder that is damaged or unfinished, and the command that mends it."""

    what: str
    run: str | None


@dataclass(frozen=True, eq=False)
class Catalog:
    """All that is listed, by key."""

    sites: Mapping[str, SiteEntry]
    runs: Mapping[str, RunEntry]
    problems: Sequence[Problem]

    def resource(self) -> dict[str, Any]:
        """The part of workspace.json that says what there is."""
        subjects: dict[str, list[str]] = {}
        for site in self.sites.values():
            subjects.setdefault(site.records.subject, []).append(site.key)
        return {
            "problems": [{"what": each.what, "run": each.run} for each in self.problems],
            "subjects": [
                {"key": key_of(name), "name": shown(name), "sites": keys}
                for name, keys in subjects.items()
            ],
            "sites": {key: _site_resource(site) for key, site in self.sites.items()},
            "runs": {key: _run_resource(entry) for key, entry in self.runs.items()},
        }


def read_catalog(workspace: Workspace, only: str | None = None) -> Catalog:
    """Everything in `workspace`, or what belongs to the run of the name `only`."""
    problems: list[Problem] = []
    root = workspace.root.resolve()
    record_sets = list(_record_sets(workspace, root, problems))
    known = {(records.subject, records.site) for records in record_sets}
    runs = list(_runs(workspace, root, known, problems))
    if only is not None:
        runs = [entry for entry in runs if entry.run.name == only]
        wanted = {(entry.subject, site) for entry in runs for site in entry.sites}
        record_sets = [each for each in record_sets if (each.subject, each.site) in wanted]
    sites = [_site(records, runs, root) for records in record_sets]
    sites.sort(key=lambda site: (site.records.subject, site.layer, site.name))
    return Catalog(
        {site.key: site for site in sites}, {entry.key: entry for entry in runs}, problems
    )


def _site(records: SeenRecords, runs: Sequence[RunEntry], root: Path) -> SiteEntry:
    about = [run for run in runs if run.subject == records.subject and records.site in run.sites]
    return SiteEntry(key_of(records.subject, records.site), records, tuple(about), root)


def _site_resource(site: SiteEntry) -> dict[str, Any]:
    manifest = site.folder.manifest()
    return {
        "key": site.key,
        "subject": key_of(site.records.subject),
        "name": shown(site.name),
        "layer": site.layer,
        "unit": site.unit,
        "width": site.width,
        "neurons": site.neurons,
        "excerpts": _excerpts(site),
        "complete": bool(manifest.get("complete")),
        "runs": [entry.key for entry in site.runs],
    }


def _excerpts(site: SiteEntry) -> int:
    """How many sequences its corpus has; 0 while that is not known."""
    try:
        shards = Folder(site.records.data / site.records.subject / "corpus").manifest()["shards"]
        return int(shards["sequences.arrow"]["rows"])
    except (NeuronExplainerError, OSError, KeyError, TypeError, ValueError):
        return 0


def _run_resource(entry: RunEntry) -> dict[str, Any]:
    main = entry.main
    return {
        "key": entry.key,
        "name": shown(entry.run.name),
        "subject": key_of(entry.subject),
        "explainer": entry.explainer,
        "model": entry.model,
        "sites": [key_of(entry.subject, site) for site in entry.sites],
        "complete": bool(entry.folder.manifest().get("complete")),
        "simulators": [
            {
                "name": shown(each.name),
                "null": each.null,
                "predicts": each.predicts,
                "metrics": list(each.metrics),
            }
            for each in entry.simulators
        ],
        "main": main and {"simulator": shown(main.name), "metric": main.leading},
    }


def _record_sets(
    workspace: Workspace, root: Path, problems: list[Problem]
) -> Iterator[SeenRecords]:
    for subject in sorted(workspace.data.glob("*/")):
        for path in sorted(subject.glob("blocks.*/**/manifest.json")):
            name = path.parent.relative_to(subject).as_posix()
            if _SITE.fullmatch(name):
                folder = RecordSet(workspace.data, subject.name, name).folder
                if _snapshot(folder, root, problems) is not None:
                    yield SeenRecords(workspace.data, subject.name, name)


def _runs(
    workspace: Workspace, root: Path, known: set[tuple[str, str]], problems: list[Problem]
) -> Iterator[RunEntry]:
    for path in sorted(workspace.explanations.glob("*/manifest.json")):
        name = path.parent.name
        try:
            run = Run(workspace, name)
        except NeuronExplainerError as error:
            problems.append(Problem(shown(str(error)), None))
            continue
        folder = _snapshot(run.folder, root, problems)
        if folder is not None:
            subject = folder.config.get("subject")
            named = {file.rpartition("/")[0] for file in folder.manifest()["shards"]}
            sites = sorted(site for site in named if (subject, site) in known)
            if len(sites) < len(named):
                missing = sorted(named - set(sites))[0]
                what = f"run {name} explains {subject}/{missing}, of which there are no records"
                problems.append(
                    Problem(shown(what), f"neuron-explainer collect --site {quote(missing)}")
                )
            simulators = tuple(_simulators(run, root, problems))
            yield RunEntry(key_of(name), run, folder, tuple(sites), simulators)


def _simulators(run: Run, root: Path, problems: list[Problem]) -> Iterator[SimulatorEntry]:
    for name in run.simulators():
        try:
            folder = _snapshot(run.simulations(name), root, problems)
        except NeuronExplainerError as error:
            problems.append(Problem(shown(str(error)), None))
            continue
        if folder is not None:
            yield SimulatorEntry(name, folder)


def _snapshot(folder: Folder, root: Path, problems: list[Problem]) -> Snapshot | None:
    """A folder within `root` as it is now; what is wrong with it goes to `problems`."""
    try:
        require_contained(root, folder.path)
        found = Snapshot(folder)
    except Unavailable as error:
        problems.append(Problem(str(error), error.run))
        return None
    except (NeuronExplainerError, OSError) as error:
        problems.append(Problem(shown(str(error)), shown(folder.rebuild)))
        return None
    if not found.manifest().get("complete"):
        what = f"{shown(str(folder.path))} is not complete"
        problems.append(Problem(what, shown(folder.rebuild)))
    return found
