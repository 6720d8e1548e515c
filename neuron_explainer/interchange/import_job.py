"""An import: files in, tables out, a shard of neurons at a time, and all folders complete or none.

What is imported under a name stays: importing other files under it is refused, importing the same
again changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from neuron_explainer.interchange.columns import widen
from neuron_explainer.interchange.sequences import SequenceWriter, writing_corpus
from neuron_explainer.interchange.source import Source, site_of
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.runner import failure_table
from neuron_explainer.store import Folder, Shard, locked

Content = TypeVar("Content")
Given_contra = TypeVar("Given_contra", contravariant=True)

MOST_NUMBERS = 1 << 25  # in memory: a shard that holds more is cut in two


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What was imported."""

    name: str
    sites: tuple[str, ...]
    imported: int  # neurons
    failures: tuple[Failure, ...]  # one for each neuron that was not
    ignored: tuple[str, ...]  # names in the folder that are no {layer}/{neuron}, and links


class Rows(Protocol[Given_contra]):
    """Takes in one neuron after another and makes tables of them."""

    @property
    def size(self) -> int:
        """How many numbers are held."""

    def add(self, neuron: int, content: Given_contra, /) -> str | None:
        """Add a neuron. Returns why it has no result, if it has none."""

    def tables(self) -> Mapping[str, Mapping[str, pa.Table]]:
        """The tables by destination and name."""


@dataclass(frozen=True)
class Place:
    """Where tables go: a folder, its own part of the configuration, a prefix to table names."""

    folder: Folder
    config: Mapping[str, Any]
    prefix: str = ""
    about: Mapping[str, Any] | None = None  # for the manifest, once complete

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
    source: Source[Content]
    config: Mapping[str, Any]
    corpus: Place
    layers: Mapping[int, Mapping[str, Place]]  # layer → destination → place
    rows: Callable[[SequenceWriter], Rows[Content]]
    failures_go: str  # the destination of failures

    def run(self, folders: list[Path]) -> ImportResult:
        """Import, unless it was done before. `folders` are held meanwhile."""
        with ExitStack() as held:
            for folder in folders:
                held.enter_context(locked(folder))
            if not self._begin():
                with writing_corpus(self.corpus.folder) as sequences:
                    for layer in self.layers:
                        self._import(layer, sequences)
                for place in self._places():
                    place.folder.update({"complete": True, **(place.about or {})})
            return self._result()

    def _places(self) -> list[Place]:
        return [place for places in self.layers.values() for place in places.values()]

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
            place.folder.update({"complete": False, "shards": {}})
        return False

    def _import(self, layer: int, sequences: SequenceWriter) -> None:
        places = self.layers[layer]
        for shard, rows, failures in self._pieces(layer, sequences):
            for destination, tables in rows.tables().items():
                places[destination].write(shard, tables)
            if failures:
                places[self.failures_go].write(shard, {"failures": failure_table(failures)})
        for place in places.values():
            for table in ("records", "simulations"):
                widen(place.folder, place.prefix + table)

    def _pieces(
        self, layer: int, sequences: SequenceWriter
    ) -> Iterator[tuple[Shard, Rows[Content], list[Failure]]]:
        """The shards of a layer, those too large for memory in several pieces."""
        for shard, neurons in self.source.shards(layer):
            start, rows, failures = shard.start, self.rows(sequences), list[Failure]()
            for neuron in neurons:
                failures += self._add(rows, layer, neuron)
                if rows.size > MOST_NUMBERS and neuron != neurons[-1]:
                    yield Shard(start, neuron + 1), rows, failures
                    start, rows, failures = neuron + 1, self.rows(sequences), []
            yield Shard(start, shard.stop), rows, failures

    def _add(self, rows: Rows[Content], layer: int, neuron: int) -> Iterator[Failure]:
        content = self.source.read(self.name, layer, neuron)
        if isinstance(content, Failure):
            yield content
            return
        cause = rows.add(neuron, content)
        if cause is not None:
            identity = NeuronId(self.name, site_of(layer), neuron)
            yield Failure(identity, "import", cause, f"{layer}/{neuron}: {cause}")

    def _result(self) -> ImportResult:
        failures = [
            failure
            for layer, places in self.layers.items()
            for failure in places[self.failures_go].failures(self.name, site_of(layer))
        ]
        return ImportResult(
            self.name,
            tuple(map(site_of, self.layers)),
            self.source.count - len(failures),
            tuple(failures),
            self.source.ignored,
        )
