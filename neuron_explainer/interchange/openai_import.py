"""OpenAI's published records and explanations, taken into a workspace without loss.

`import_records` makes record sets, `import_explanations` a run with its simulations and the record
sets that they are scored on. What is imported under a name stays: importing other files under it is
refused, importing the same again changes nothing.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from neuron_explainer.errors import ConfigError
from neuron_explainer.interchange.columns import widen
from neuron_explainer.interchange.openai import NeuronRecord, NeuronSimulationResults, load_as
from neuron_explainer.interchange.openai_records import NeuronRecordRows, check_record
from neuron_explainer.interchange.openai_results import IMPORTED, ResultRows, check_results
from neuron_explainer.interchange.sequences import SequenceWriter, writing_corpus
from neuron_explainer.interchange.source import Source, check_identity, open_source, site_of
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.runner import failure_table
from neuron_explainer.store import Folder, Shard, locked
from neuron_explainer.workspace import Workspace

Content = TypeVar("Content")
Given_contra = TypeVar("Given_contra", contravariant=True)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MOST_NUMBERS = 1 << 25  # in memory: a shard that holds more is cut in two


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What was imported."""

    name: str
    sites: tuple[str, ...]
    neurons: int  # imported
    failures: tuple[Failure, ...]  # one for each neuron that was not
    ignored: tuple[str, ...]  # names in the folder that are no {layer}/{neuron}, and links


def import_records(
    source: Path, data: Path, name: str, neurons: Collection[int] | None = None
) -> ImportResult:
    """`{layer}/{neuron}.json` files, or one, as record sets `data/<name>/blocks.*.mlp.hook_post/`.

    `neurons` are the ones to import of every layer, by default all. In a folder a file at fault
    becomes a Failure; a single one is a DataError. Raises DataError, ConfigError, RunMismatch.
    """
    home = data / _checked(name)
    files = open_source(source, ".json", _record, _identity_of_record, neurons)
    sites = _record_sets(home, files)
    job = _Job(
        name,
        files,
        _config("records", files),
        _corpus(home),
        {layer: {"data": place} for layer, place in sites.items()},
        NeuronRecordRows,
        "data",
    )
    return job.run([home])


def import_explanations(
    source: Path, root: Path, name: str, neurons: Collection[int] | None = None
) -> ImportResult:
    """`{layer}/{neuron}.jsonl` files, or one, as run `name` of the workspace at `root`.

    Makes `explanations/<name>/`, `scoring/<name>/imported/` and the record sets `data/<name>/…`,
    whose records are the simulated sequences with their true activations: the first five as top
    records, the others as random ones, all in split valid. `neurons` and what is raised are as in
    `import_records`.
    """
    workspace = Workspace(root)
    home = workspace.data / _checked(name)
    files = open_source(source, ".jsonl", _results, _identity_of_results, neurons)
    run = Folder(workspace.explanations / name, _COMMAND)
    scoring = Folder(workspace.scoring / name / IMPORTED, _COMMAND)
    about = {"subject": name, "run": name}
    job = _Job(
        name,
        files,
        _config("explanations", files),
        _corpus(home),
        {
            layer: {
                "data": place,
                "explanations": _Place(run, about | {"explainer": IMPORTED}, f"{site_of(layer)}/"),
                "scoring": _Place(scoring, about | {"simulator": IMPORTED}, f"{site_of(layer)}/"),
            }
            for layer, place in _record_sets(home, files).items()
        },
        ResultRows,
        "explanations",
    )
    return job.run([home, run.path, scoring.path])


_COMMAND = "neuron-explainer import openai"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of an import: use letters, digits, '.', '_' and '-'"
        )
    return name


def _config(kind: str, files: Source[Any]) -> dict[str, Any]:
    return {"format": "openai", "kind": kind, "files": files.count, "sha256": files.digest()}


def _corpus(home: Path) -> "_Place":
    return _Place(Folder(home / "corpus", _COMMAND), {"excludes_first": False})


def _record_sets(home: Path, files: Source[Any]) -> dict[int, "_Place"]:
    return {
        layer: _Place(
            Folder(home / site_of(layer), _COMMAND),
            # random records are uniform over excerpts, as the data set's description has it
            {"site": site_of(layer), "random": "uniform"},
            "",
            {"width": files.width(layer)},
        )
        for layer in files.files
    }


class _Rows(Protocol[Given_contra]):
    """Takes in one neuron after another and makes tables of them."""

    @property
    def size(self) -> int:
        """How many numbers are held."""

    def add(self, neuron: int, content: Given_contra, /) -> str | None:
        """Add a neuron. Returns why it has no result, if it has none."""

    def tables(self) -> Mapping[str, Mapping[str, pa.Table]]:
        """The tables by destination and name."""


@dataclass(frozen=True)
class _Place:
    """Where tables go: a folder, its own part of the configuration, a prefix to table names."""

    folder: Folder
    config: Mapping[str, Any]
    prefix: str = ""
    about: Mapping[str, Any] | None = None  # for the manifest, once complete

    def write(self, shard: Shard, tables: Mapping[str, pa.Table]) -> None:
        self.folder.write({shard.file(self.prefix + name): table for name, table in tables.items()})

    def failures(self, name: str, site: str) -> Iterator[Failure]:
        for _, file in self.folder.shards(f"{self.prefix}failures"):
            for row in self.folder.read(file).to_pylist():
                neuron = NeuronId(name, site, row["neuron"])
                yield Failure(neuron, row["stage"], row["cause"], row["message"])


@dataclass(frozen=True)
class _Job(Generic[Content]):
    """One import."""

    name: str
    source: Source[Content]
    config: Mapping[str, Any]
    corpus: _Place
    layers: Mapping[int, Mapping[str, _Place]]  # layer → destination → place
    rows: Callable[[SequenceWriter], _Rows[Content]]
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

    def _places(self) -> list[_Place]:
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
    ) -> Iterator[tuple[Shard, _Rows[Content], list[Failure]]]:
        """The shards of a layer, those too large for memory in several pieces."""
        for shard, neurons in self.source.shards(layer):
            start, rows, failures = shard.start, self.rows(sequences), list[Failure]()
            for neuron in neurons:
                failures += self._add(rows, layer, neuron)
                if rows.size > _MOST_NUMBERS and neuron != neurons[-1]:
                    yield Shard(start, neuron + 1), rows, failures
                    start, rows, failures = neuron + 1, self.rows(sequences), []
            yield Shard(start, shard.stop), rows, failures

    def _add(self, rows: _Rows[Content], layer: int, neuron: int) -> Iterator[Failure]:
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


def _record(data: bytes, name: str, layer: int, neuron: int) -> NeuronRecord:
    record = load_as(NeuronRecord, data, name)
    check_identity(name, _identity(record), (layer, neuron))
    check_record(record, name)
    return record


def _results(data: bytes, name: str, layer: int, neuron: int) -> NeuronSimulationResults:
    results = load_as(NeuronSimulationResults, data, name)
    check_identity(name, _identity(results), (layer, neuron))
    check_results(results, name)
    return results


def _identity(content: NeuronRecord | NeuronSimulationResults) -> tuple[int, int]:
    return content.neuron_id.layer_index, content.neuron_id.neuron_index


def _identity_of_record(data: bytes, name: str) -> tuple[int, int]:
    return _identity(load_as(NeuronRecord, data, name))


def _identity_of_results(data: bytes, name: str) -> tuple[int, int]:
    return _identity(load_as(NeuronSimulationResults, data, name))
