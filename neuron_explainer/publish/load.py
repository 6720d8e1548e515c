"""Runs read back from a workspace or a published folder: the same tables, the same objects."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuron_explainer.errors import DataError
from neuron_explainer.publish.columns import CONFIGS
from neuron_explainer.publish.folder import ABOUT, PublishedFolder
from neuron_explainer.publish.tables import RunTables
from neuron_explainer.record_set import list_column
from neuron_explainer.records import Explanation, NeuronId, Pair, Record
from neuron_explainer.runs import Run, explanation_of
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace


class _Source(Protocol):
    """Where tables come from."""

    @property
    def subject(self) -> str:
        """The model that is explained."""

    def schema(self, config: str) -> pa.Schema:
        """The columns of one config."""

    def tables(self, config: str) -> Iterator[pa.Table]:
        """The rows of one config, in pieces."""


class LoadedRun:
    """A run's tables, each read when it is first asked for. See `neuron_explainer.load_run`."""

    def __init__(self, name: str, source: _Source) -> None:
        self.name = name
        self._source = source

    @property
    def subject(self) -> str:
        """The name of the model that is explained."""
        return self._source.subject

    @cached_property
    def explanations(self) -> pa.Table:
        """One row a neuron: the explanation, or the cause why there is none."""
        return self._table("explanations")

    @cached_property
    def scores(self) -> pa.Table:
        """One row a neuron and simulator: every score, null with its reason where undefined."""
        return self._table("scores")

    @cached_property
    def simulations(self) -> pa.Table:
        """One row a neuron, simulator and record: predicted activations."""
        return self._table("simulations")

    @cached_property
    def records(self) -> pa.Table:
        """One row a neuron and record: tokens, true activations, split."""
        return self._table("records")

    @cached_property
    def features(self) -> pa.Table:
        """One row a neuron: statistics, histogram, mean activation by token."""
        return self._table("features")

    @cached_property
    def runs(self) -> pa.Table:
        """One row for each step that made the data, with its manifest."""
        return self._table("runs")

    def pieces(self, config: str) -> Iterator[pa.Table]:
        """The rows of one table in order, a part at a time, for what does not fit memory.

        Raises DataError when the run has no such table.
        """
        if config not in CONFIGS:
            raise DataError(f"'{config}' is no table of a run; there are: {', '.join(CONFIGS)}")
        return self._source.tables(config)

    def _table(self, config: str) -> pa.Table:
        schema = self._source.schema(config)
        return pa.concat_tables([schema.empty_table(), *self._source.tables(config)])

    def __iter__(self) -> Iterator[Explanation]:
        """Every explanation, in order of site and neuron. Neurons without one are left out."""
        for table in self.pieces("explanations"):
            for row in table.to_pylist():
                if row["text"] is not None:
                    yield explanation_of(row, _neuron(row))

    def iterate_records(self) -> Iterator[tuple[NeuronId, Record]]:
        """Every record with the neuron whose activations it holds."""
        for table in self.pieces("records"):
            offsets, activations = list_column(table["activations"])
            for place, row in enumerate(table.drop_columns(["activations", "tokens"]).to_pylist()):
                values = activations[offsets[place] : offsets[place + 1]]
                yield (
                    _neuron(row),
                    Record(
                        tuple(row["token_bytes"]),
                        values,
                        np.array(row["scored"], np.bool_),
                        row["kind"],
                        row["split"],
                        row["sequence"],
                        row["band"],
                        _pair(row),
                    ),
                )


def _pair(row: Mapping[str, Any]) -> Pair | None:
    """Of an attention head's record; other rows have no such columns, or nulls."""
    return None if row.get("query") is None else (row["query"], row["key"])


def _neuron(row: Mapping[str, Any]) -> NeuronId:
    return NeuronId(row["subject"], row["site"], row["neuron"])


def load_run(path: str | Path) -> LoadedRun:
    """The run in `path`: `explanations/<run>` of a workspace, or what `publish` wrote.

    Raises DataError when it is neither.
    """
    folder = Path(path)
    if (folder / ABOUT).is_file():
        published = PublishedFolder(folder)
        return LoadedRun(str(published.about()["run"]), _PublishedTables(published))
    resolved = folder.resolve()
    if resolved.parent.name == "explanations" and Folder(resolved).exists:
        run = Run(Workspace(resolved.parent.parent), resolved.name)
        if "subject" in run.folder.manifest()["config"]:
            return LoadedRun(run.name, RunTables(run))
    raise DataError(
        f"{folder} is no run: give the folder explanations/RUN of a workspace, or one that "
        "neuron-explainer publish wrote"
    )


class _PublishedTables:
    """The configs of a published folder. A file is hashed once before it is read."""

    def __init__(self, folder: PublishedFolder) -> None:
        self._folder = folder
        self._about = folder.about()

    @property
    def subject(self) -> str:
        """The model that is explained."""
        return str(self._about["subject"])

    def schema(self, config: str) -> pa.Schema:
        """As its first file has it. Raises DataError when the config was not published."""
        return self._open(self._files(config)[0]).schema_arrow

    def tables(self, config: str) -> Iterator[pa.Table]:
        """One row group at a time."""
        for file in self._files(config):
            parquet = self._open(file)
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group)

    def _files(self, config: str) -> Sequence[str]:
        entry = self._about["configs"].get(config)
        if entry is None:
            raise DataError(f"{self._folder.path} was published without {config}")
        return [f"data/{config}/{name}" for name in entry["files"]]

    def _open(self, file: str) -> pq.ParquetFile:
        path = self._folder.path / file
        if not path.is_file():
            raise DataError(f"{path} is missing: publish the run or download it again")
        return _parquet(self._folder, file, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _parquet(folder: PublishedFolder, file: str, _modified: int) -> pq.ParquetFile:
    return pq.ParquetFile(folder.verified(file), memory_map=True, page_checksum_verification=True)
