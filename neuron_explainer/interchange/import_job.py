"""An import: files in, tables out, a shard of neurons at a time, and all folders complete or none.

What is imported under a name stays: importing other files under it is refused, importing the same
again changes nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from neuron_explainer.errors import ConfigError
from neuron_explainer.interchange.columns import widen
from neuron_explainer.interchange.sequences import writing_corpus
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.runner import failure_table
from neuron_explainer.store import Folder, Shard, locked

Content = TypeVar("Content")
Content_co = TypeVar("Content_co", covariant=True)
Given_contra = TypeVar("Given_contra", contravariant=True)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
MOST_NUMBERS = 1 << 25  # in memory: a shard that holds more is cut in two


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What was imported."""

    name: str
    sites: tuple[str, ...]
    imported: int  # neurons
    failures: tuple[Failure, ...]  # one for each neuron that was not
    ignored: tuple[str, ...]  # names in the folder that are no {layer}/{neuron}, and links


Fault = tuple[str, str]  # cause and message of a failure


class Reading(Protocol[Content_co]):
    """Where neurons come from."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """What lies there and is not read."""

    def shards(self, site: str) -> Iterator[tuple[Shard, list[int]]]:
        """The shards of a site that hold any neuron, and the neurons in them."""

    def read(self, subject: str, site: str, neuron: int) -> Content_co | Failure:
        """What there is of a neuron, or why it cannot be had."""


class Rows(Protocol[Given_contra]):
    """Takes in one neuron after another and makes tables of them."""

    @property
    def size(self) -> int:
        """How many numbers are held."""

    def add(self, neuron: int, content: Given_contra, /) -> Iterable[Fault]:
        """Add a neuron. Returns what of it could not be had."""

    def tables(self) -> Mapping[str, Mapping[str, pa.Table]]:
        """The tables by destination and name."""


@dataclass(frozen=True)
class Place:
    """Where tables go: a folder, its own part of the configuration, a prefix to table names."""

    folder: Folder
    config: Mapping[str, Any]
    prefix: str = ""
    about: Mapping[str, Any] | None = None  # for the manifest

    def write(self, shard: Shard, tables: Mapping[str, pa.Table]) -> None:
        """Write tables of a shard by name."""
        self.folder.write({shard.file(self.prefix + name): table for name, table in tables.items()})

    def failures(self, name: str, site: str) -> Iterator[Failure]:
        """The failures that were written here."""
        for _, file in self.folder.shards(f"{self.prefix}failures"):
            for row in self.folder.read(file).to_pylist():
                neuron = NeuronId(name, site, row["neuron"])
                yield Failure(neuron, row["stage"], row["cause"], row["message"])


@dataclass(frozen=True)
class Job(Generic[Content]):
    """One import."""

    name: str
    source: Reading[Content]
    config: Mapping[str, Any]
    corpus: Place
    sites: Mapping[str, Mapping[str, Place]]  # site → destination → place
    rows: Callable[[Any], Rows[Content]]  # from what `sequences` opens
    failures_go: str  # the destination of failures
    sequences: Callable[[Folder], AbstractContextManager[Any]] = writing_corpus

    def run(self, folders: list[Path]) -> ImportResult:
        """Import, unless it was done before. `folders` are held meanwhile."""
        with ExitStack() as held:
            for folder in folders:
                held.enter_context(locked(folder))
            if not self._begin():
                with self.sequences(self.corpus.folder) as sequences:
                    for site in self.sites:
                        self._import(site, sequences)
                for place in self._places():
                    place.folder.update({"complete": True})
            return self._result()

    def _places(self) -> list[Place]:
        return [place for places in self.sites.values() for place in places.values()]

    def _begin(self) -> bool:
        """Whether all is there. If not, every folder is begun anew, for sequences are renumbered.

        Nothing is written when one of them holds something else.
        """
        places = {place.folder.path: place for place in [self.corpus, *self._places()]}.values()
        for place in places:
            if place.folder.exists:
                place.folder.open({**self.config, **place.config})
        if all(place.folder.complete for place in places):
            return True
        for place in places:
            place.folder.open({**self.config, **place.config})
            place.folder.update({"complete": False, "shards": {}, **(place.about or {})})
        return False

    def _import(self, site: str, sequences: Any) -> None:
        places = self.sites[site]
        for shard, rows, failures in self._pieces(site, sequences):
            for destination, tables in rows.tables().items():
                places[destination].write(shard, tables)
            if failures:
                places[self.failures_go].write(shard, {"failures": failure_table(failures)})
        for place in places.values():
            for table in ("records", "simulations", "pairs"):
                widen(place.folder, place.prefix + table)

    def _pieces(
        self, site: str, sequences: Any
    ) -> Iterator[tuple[Shard, Rows[Content], list[Failure]]]:
        """The shards of a site, those too large for memory in several pieces."""
        for shard, neurons in self.source.shards(site):
            start, rows, failures = shard.start, self.rows(sequences), list[Failure]()
            for neuron in neurons:
                failures += self._add(rows, NeuronId(self.name, site, neuron))
                if rows.size > MOST_NUMBERS and neuron != neurons[-1]:
                    yield Shard(start, neuron + 1), rows, failures
                    start, rows, failures = neuron + 1, self.rows(sequences), []
            yield Shard(start, shard.stop), rows, failures

    def _add(self, rows: Rows[Content], neuron: NeuronId) -> Iterator[Failure]:
        content = self.source.read(self.name, neuron.site, neuron.index)
        if isinstance(content, Failure):
            yield content
            return
        for cause, message in rows.add(neuron.index, content):
            yield Failure(neuron, "import", cause, message)

    def _result(self) -> ImportResult:
        failures = [
            failure
            for site, places in self.sites.items()
            for failure in places[self.failures_go].failures(self.name, site)
        ]
        imported = sum(len(self._imported(places)) for places in self.sites.values())
        return ImportResult(
            self.name, tuple(self.sites), imported, tuple(failures), self.source.ignored
        )

    def _imported(self, places: Mapping[str, Place]) -> set[int]:
        """The neurons of a site of which there is something."""
        return {
            neuron
            for place in places.values()
            for table in ("records", "neurons", "explanations")
            for _, file in place.folder.shards(place.prefix + table)
            for neuron in place.folder.read(file, ["neuron"])["neuron"].to_pylist()
        }


def check_name(name: str) -> str:
    """`name` of an import, which becomes that of folders. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of an import: use letters, digits, '.', '_' and '-'"
        )
    return name
