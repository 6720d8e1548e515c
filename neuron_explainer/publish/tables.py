"""A run's tables as they are published: each row says of which neuron it is, and needs no other."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.publish import columns
from neuron_explainer.publish.features import with_effects, with_token_rows
from neuron_explainer.publish.manifests import runs_table
from neuron_explainer.record_set import Corpus, RecordSet
from neuron_explainer.runs import Run
from neuron_explainer.store import Folder, Shard
from neuron_explainer.tokens import escape

# and the split that each is of
SCORE_TABLES = {"scores": "valid", "scores-test": "test", "scores-calibration": "calibration"}
_NEURONS_AT_ONCE = 64  # a whole token table has tens of thousands of rows a neuron


class RunTables:
    """The configs of one run of a workspace, a shard at a time, sorted by site and neuron."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._makers: Mapping[str, Callable[[], Iterator[pa.Table]]] = {
            "explanations": self._explanations,
            "scores": self._scores,
            "simulations": self._simulations,
            "records": self._records,
            "features": self._features,
            "runs": lambda: iter([runs_table(self.run)]),
        }

    @property
    def subject(self) -> str:
        """The name of the model that is explained."""
        return self.run.subject

    def tables(self, config: str) -> Iterator[pa.Table]:
        """The rows of one config, in pieces. Raises DataError when a shard is damaged."""
        schema = self.schema(config)
        for table in self._makers[config]():
            yield _complete(table, schema).select(schema.names).cast(schema)

    def schema(self, config: str) -> pa.Schema:
        """The columns of one config."""
        match config:
            case "scores":
                return self._score_schema
            case "simulations":
                return columns.simulations(self._widest_simulation)
            case "records":
                return columns.records(self._widest_record, any(map(is_pattern, self.run.sites())))
            case "features":
                return columns.FEATURES
            case "runs":
                return columns.RUNS
            case _:
                return columns.EXPLANATIONS

    @cached_property
    def _score_schema(self) -> pa.Schema:
        stored = [
            folder.read(file).schema
            for simulator in self.run.simulators()
            for folder in [self.run.simulations(simulator)]
            for site in self.run.sites()
            for table in SCORE_TABLES
            for _, file in present(folder, f"{site}/{table}")
        ]
        return columns.scores(stored)

    @cached_property
    def _widest_simulation(self) -> pa.DataType:
        return _widest(
            (self.run.simulations(simulator), f"{site}/simulations")
            for simulator in self.run.simulators()
            for site in self.run.sites()
        )

    @cached_property
    def _widest_record(self) -> pa.DataType:
        return _widest((self._record_set(site).folder, "records") for site in self.run.sites())

    def shards(self) -> Iterator[tuple[str, Shard, str]]:
        """Site, neurons and file of all that was explained."""
        for site in self.run.sites():
            for shard, file in present(self.run.folder, f"{site}/explanations"):
                yield site, shard, file

    def _record_set(self, site: str) -> RecordSet:
        return RecordSet(self.run.workspace.data, self.run.subject, site)

    def _named(self, table: pa.Table, site: str, **values: str) -> pa.Table:
        """`table` with the columns that say whose rows they are."""
        constant: dict[str, Any] = {
            "subject": pa.scalar(self.run.subject),
            "site": pa.scalar(site),
            "layer": pa.scalar(int(site.split(".")[1]), pa.int32()),
            **{name: pa.scalar(value) for name, value in values.items()},
        }
        for name, value in constant.items():
            table = table.append_column(name, pa.repeat(value, len(table)))
        return table

    def _explanations(self) -> Iterator[pa.Table]:
        explainer = str(self.run.folder.manifest()["config"]["explainer"])
        for site, shard, file in self.shards():
            made = self.run.folder.read(file)
            made = made.append_column("failure_cause", pa.nulls(len(made), pa.string()))
            failed = between(self.run.folder, f"{site}/failures", shard)
            if failed is not None and len(failed):
                lost = failed.select(["neuron", "cause"]).rename_columns(
                    ["neuron", "failure_cause"]
                )
                lost = lost.append_column("explainer", pa.repeat(explainer, len(lost)))
                made = pa.concat_tables([made, lost], promote_options="default").sort_by("neuron")
            yield self._named(made, site)

    def _scores(self) -> Iterator[pa.Table]:
        for simulator, site in self._simulated():
            folder = self.run.simulations(simulator)
            for name, split in SCORE_TABLES.items():
                for _, file in present(folder, f"{site}/{name}"):
                    yield self._named(folder.read(file), site, simulator=simulator, split=split)

    def _simulations(self) -> Iterator[pa.Table]:
        for simulator, site in self._simulated():
            folder = self.run.simulations(simulator)
            for _, file in present(folder, f"{site}/simulations"):
                yield self._named(folder.read(file), site, simulator=simulator)

    def _simulated(self) -> Iterator[tuple[str, str]]:
        return (
            (simulator, site) for site in self.run.sites() for simulator in self.run.simulators()
        )

    def _records(self) -> Iterator[pa.Table]:
        for site, shard, _ in self.shards():
            record_set = self._record_set(site)
            table = between(record_set.folder, "records", shard)
            if table is not None and len(table):
                yield self._named(_with_tokens(table, record_set.corpus), site)

    def _features(self) -> Iterator[pa.Table]:
        for site, shard, _ in self.shards():
            record_set = self._record_set(site)
            neurons = between(record_set.folder, "neurons", shard)
            if neurons is None:
                continue
            rows = between(record_set.folder, "tokens", shard)
            effects = between(record_set.folder, "logit_effects", shard)
            names = _vocabulary(record_set.corpus)[0]
            for start in range(0, len(neurons), _NEURONS_AT_ONCE):
                some = with_token_rows(neurons.slice(start, _NEURONS_AT_ONCE), rows, names)
                yield self._named(with_effects(some, effects, names), site)


def _complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with nulls for columns that it lacks: an older program had fewer."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field.name, pa.nulls(len(table), field.type))
    return table


def present(folder: Folder, table: str) -> list[tuple[Shard, str]]:
    """The shards of a table; none where the folder is not there."""
    return folder.shards(table) if folder.exists else []


def between(folder: Folder, table: str, shard: Shard) -> pa.Table | None:
    """The rows about neurons in `shard`, however the table is cut; None without such a table."""
    parts = [
        _read(folder, file)
        for other, file in present(folder, table)
        if other.start < shard.stop and shard.start < other.stop
    ]
    if not parts:
        return None
    joined = pa.concat_tables(parts, promote_options="permissive")
    neuron = joined["neuron"]
    inside = pc.and_(pc.greater_equal(neuron, shard.start), pc.less(neuron, shard.stop))
    return joined.filter(inside).combine_chunks()


def _read(folder: Folder, file: str) -> pa.Table:
    digest = folder.manifest()["shards"][file]["sha256"]
    return _last_read(str(folder.path), file, digest, folder.rebuild)


@lru_cache(maxsize=3)
def _last_read(path: str, file: str, _digest: str, rebuild: str) -> pa.Table:
    """A run over a few neurons here and there asks for the same shard again and again."""
    return Folder(Path(path), rebuild).read(file)


def _widest(tables: Iterator[tuple[Folder, str]]) -> pa.DataType:
    """float64 where an import needed it, else float32, which every reader knows."""
    for folder, name in tables:
        for _, file in present(folder, name)[:1]:  # all shards of a table have one type
            if folder.read(file, ["activations"]).schema.field(0).type.value_type == pa.float64():
                return pa.float64()
    return pa.float32()


def _with_tokens(table: pa.Table, corpus: Corpus) -> pa.Table:
    """Records with the tokens that their `sequence` stands for."""
    ids = [corpus.token_ids(sequence) for sequence in table["sequence"].to_pylist()]
    scored = [corpus.scored(of_row) for of_row in ids]
    offsets = pa.array(np.cumsum([0, *map(len, ids)]), pa.int32())
    flat = pa.array(np.concatenate(ids))
    names, texts = _vocabulary(corpus)
    made = {
        "tokens": pa.ListArray.from_arrays(offsets, texts.take(flat)),
        "token_bytes": pa.ListArray.from_arrays(offsets, names.take(flat)),
        "scored": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(scored))),
    }
    for name, column in made.items():
        table = table.append_column(name, column)
    return table


@lru_cache(maxsize=2)
def _vocabulary(corpus: Corpus) -> tuple[pa.Array, pa.Array]:
    """All tokens as bytes, and as text from which the bytes are got back."""
    names = corpus.vocabulary[0]
    return pa.array(names, pa.binary()), pa.array(map(escape, names), pa.string())
