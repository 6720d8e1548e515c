"""Whether a run is whole: explained, simulated and scored, and all of it from the same records."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from neuron_explainer.errors import DataError, RunMismatch
from neuron_explainer.publish.tables import SCORE_TABLES, present
from neuron_explainer.record_set import RecordSet
from neuron_explainer.runs import Run
from neuron_explainer.store import Folder

_OF_RECORDS = {"records", "features"}  # configs made from record sets


@dataclass(frozen=True, slots=True)
class Lack:
    """What a run lacks, and what makes it."""

    what: str  # names no path: the card says it too
    remedy: str


def lacks_of(run: Run, without: Collection[str] = (), partial: bool = False) -> list[Lack]:
    """What is lacking, which must be nothing unless `partial`; `without` are configs left out.

    Raises DataError that says what to run. Partial or not, a file that is listed and not there is a
    DataError, and records or explanations that were made anew since are a RunMismatch.
    """
    run.require()
    for folder in (run.folder, *map(run.simulations, run.simulators())):
        _check_files(folder)
    if not any(present(run.folder, f"{site}/explanations") for site in run.sites()):
        raise DataError(f"run '{run.name}' holds no explanations yet: {run.folder.rebuild}")
    _check_records(run)
    _check_explanations(run)
    lacks = [
        *_unfinished(run.folder, "explaining"),
        *_judging(run),
        *(_records(run) if _OF_RECORDS - set(without) else ()),
    ]
    if lacks and not partial:
        more = f" (and {len(lacks) - 1} more)" if len(lacks) > 1 else ""
        raise DataError(
            f"run '{run.name}' is not whole: {lacks[0].what}{more}; {lacks[0].remedy}, "
            "or publish what there is with --partial"
        )
    return lacks


def _check_records(run: Run) -> None:
    for site, digest in run.folder.manifest().get("inputs", {}).items():
        folder = RecordSet(run.workspace.data, run.subject, site).folder
        if folder.exists and folder.digest() != digest:
            raise RunMismatch(
                f"{folder.path} has changed since run '{run.name}' explained it; "
                f"explain it again under another --run, or delete {run.folder.path} and explain"
            )


def _check_explanations(run: Run) -> None:
    now = {file: entry["sha256"] for file, entry in run.folder.manifest()["shards"].items()}
    for simulator in run.simulators():
        folder = run.simulations(simulator)
        for file, digest in folder.manifest().get("inputs", {}).items():
            if now.get(file) != digest:
                raise RunMismatch(
                    f"{folder.path} simulates other explanations than those now in "
                    f"{run.folder.path / file}; delete {folder.path} and run {folder.rebuild}"
                )


def _unfinished(folder: Folder, doing: str) -> Iterator[Lack]:
    if not folder.complete:
        yield Lack(f"{doing} is not finished", f"run {folder.rebuild}")


def _check_files(folder: Folder) -> None:
    for file in folder.manifest()["shards"]:
        if not (folder.path / file).is_file():
            raise DataError(
                f"{folder.path / file} is missing; delete {folder.path} and run {folder.rebuild}"
            )


def _judging(run: Run) -> Iterator[Lack]:
    """Simulations and scores that the run's explanations should have."""
    if not run.simulators():
        yield Lack("it has not been simulated", f"run neuron-explainer simulate {run.name}")
    for simulator in run.simulators():
        folder = run.simulations(simulator)
        yield from _unfinished(folder, f"simulating with {simulator}")
        for site in run.sites():
            simulated = {shard for shard, _ in folder.shards(f"{site}/simulations")}
            for shard, _ in run.folder.shards(f"{site}/explanations"):
                if shard not in simulated:
                    what = f"{simulator} has not simulated {site} {shard.start}-{shard.stop - 1}"
                    yield Lack(what, f"run {folder.rebuild}")
            scored = {
                shard for table in SCORE_TABLES for shard, _ in folder.shards(f"{site}/{table}")
            }
            for shard in sorted(simulated - scored):
                what = f"{simulator} on {site} {shard.start}-{shard.stop - 1} has no scores"
                yield Lack(what, f"run neuron-explainer score {run.name}")


def _records(run: Run) -> Iterator[Lack]:
    for site in run.sites():
        folder = RecordSet(run.workspace.data, run.subject, site).folder
        remedy = f"run {folder.rebuild}, leave them out with --without records,features"
        if not folder.exists:
            yield Lack(f"the records of {site} are not there", remedy)
        elif not folder.complete:
            yield Lack(f"collecting {site} is not finished", remedy)
