"""What the catalog lists: sites, and the runs and simulators that are about them."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.records import NEGATIVE
from neuron_explainer.runs import Run
from neuron_explainer.score.stage import SEQUENCE_SCORES, TOKEN_SCORES
from neuron_explainer.simulate.base import NULLS
from neuron_explainer.view.contract import Unavailable, shown
from neuron_explainer.view.snapshot import SeenRecords, Snapshot

LEADING = ("correlation_top_and_random", "auroc_top_and_random")
_SCORES = re.compile(r"(?P<site>.+)/scores-\d{5,}-\d{5,}\.parquet", re.DOTALL)


@dataclass(frozen=True, eq=False)
class SimulatorEntry:
    """A simulator that has been run on a run."""

    name: str
    folder: Snapshot

    @cached_property
    def null(self) -> bool:
        """Whether it knows nothing of the neuron."""
        config = self.folder.config
        return bool(config.get("shuffled")) or config.get("simulator", self.name) in NULLS

    @cached_property
    def predicts(self) -> str:
        """`tokens` or `sequences`."""
        return "sequences" if self.folder.manifest().get("predicts") == "sequences" else "tokens"

    @cached_property
    def scored_sites(self) -> frozenset[str]:
        """The sites of which a shard is scored on the split that is reported."""
        matches = map(_SCORES.fullmatch, self.folder.manifest()["shards"])
        return frozenset(match["site"] for match in matches if match)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are scored; none before `score`."""
        names = SEQUENCE_SCORES if self.predicts == "sequences" else TOKEN_SCORES
        return names if self.scored_sites else ()

    @cached_property
    def leading(self) -> str | None:
        """The metric that stands for it, where it is scored."""
        return next((metric for metric in LEADING if metric in self.metrics), None)


@dataclass(frozen=True, eq=False)
class RunEntry:
    """A run of explanations."""

    key: str
    run: Run
    folder: Snapshot
    sites: tuple[str, ...]  # names of those that the workspace holds records of
    simulators: tuple[SimulatorEntry, ...]

    @property
    def subject(self) -> str:
        """The name of the record sets that it explains."""
        return str(self.folder.config.get("subject", ""))

    @property
    def explainer(self) -> str:
        """Who explained."""
        return str(self.folder.config.get("explainer", "imported"))

    @property
    def model(self) -> str | None:
        """The language model that explained."""
        name = self.folder.config.get("llm")
        return name if isinstance(name, str) else None

    @property
    def main(self) -> SimulatorEntry | None:
        """The simulator whose score stands for the run, if one is scored."""
        scored = (each for each in self.simulators if not each.null and each.leading)
        return next(scored, None)


@dataclass(frozen=True, eq=False)
class SiteEntry:
    """A site of which a record set was collected or imported."""

    key: str
    records: SeenRecords
    runs: tuple[RunEntry, ...]
    root: Path  # of the workspace, resolved

    @property
    def name(self) -> str:
        """Its TransformerLens name."""
        return self.records.site

    @property
    def folder(self) -> Snapshot:
        """The record set's."""
        return self.records.folder

    @property
    def layer(self) -> int:
        """The block that it is in."""
        return int(self.name.split(".")[1])

    @property
    def unit(self) -> str:
        """`neuron`, `direction`, `latent` or `head`."""
        name = self.name.removesuffix(NEGATIVE)
        if is_pattern(name):
            return "head"
        if "/" in name:
            return "latent"
        return "neuron" if name.endswith("hook_post") else "direction"

    @property
    def width(self) -> int:
        """How many neurons the site has."""
        return int(self.folder.manifest().get("width", self.neurons))

    @cached_property
    def neurons(self) -> int:
        """How many neurons were collected, or, where an import does not say, were explained."""
        found = _rows(self.folder, "neurons")
        explained = max(
            (_rows(run.folder, f"{self.name}/explanations") for run in self.runs), default=0
        )
        return found or explained or int(self.folder.manifest().get("width", 0))

    @property
    def current(self) -> bool:
        """Whether no manifest that it is read from was written anew since."""
        return all(folder.current for folder in self._folders())

    def same_as(self, other: "SiteEntry") -> bool:
        """Whether both are read from the same manifests."""
        mine, others = list(self._folders()), list(other._folders())
        return [(each.path, each.seen) for each in mine] == [(e.path, e.seen) for e in others]

    def run(self, key: str) -> RunEntry | None:
        """One of its runs."""
        return next((entry for entry in self.runs if entry.key == key), None)

    @cached_property
    def contained(self) -> bool:
        """True: no file of it leads out of the workspace. Raises Unavailable otherwise."""
        corpus = self.records.data / self.records.subject / "corpus"
        places = [folder.path / self.name for folder in self._folders()][1:]
        for place in (self.folder.path, corpus, *places):
            require_contained(self.root, place)
        return True

    def _folders(self) -> Iterator[Snapshot]:
        yield self.folder
        for entry in self.runs:
            yield entry.folder
            yield from (each.folder for each in entry.simulators)


def _rows(folder: Snapshot, table: str) -> int:
    listed = folder.manifest()["shards"]
    return sum(int(listed[file].get("rows", 0)) for _, file in folder.shards(table))


def require_contained(root: Path, folder: Path) -> None:
    """Raises Unavailable when `folder` or a file in it is a link that leads out of `root`."""
    places = [folder]
    if folder.is_dir():
        with os.scandir(folder) as entries:
            places += [Path(entry.path) for entry in entries if entry.is_symlink()]
    for place in places:
        if not place.resolve().is_relative_to(root):
            what = f"{shown(str(place))} leads out of the workspace and is not read"
            raise Unavailable(409, what)
