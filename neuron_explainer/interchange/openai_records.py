"""NeuronRecords as rows of a record set's tables, a shard of neurons at a time.

What `records` and `neurons` have no column for goes to the table `published` beside them, so that
nothing is lost. See docs/formats.md.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from neuron_explainer import schemas
from neuron_explainer.errors import DataError
from neuron_explainer.interchange.columns import ListColumn
from neuron_explainer.interchange.import_job import Fault
from neuron_explainer.interchange.openai import NeuronRecord
from neuron_explainer.interchange.openai_heads import NeuronRecord as HeadRecord
from neuron_explainer.interchange.sequences import SequenceWriter
from neuron_explainer.records import Kind, Pair, Split
from neuron_explainer.splits import assign_splits

MOST_RECORDS = np.iinfo(np.int16).max  # in one list: ranks are int16
MOST_BANDS = np.iinfo(np.int8).max

# how many lists of quantile records a neuron has; null: none, which is not the same as no lists
PUBLISHED_RECORDS = pa.schema(
    [pa.field("neuron", pa.int32(), nullable=False), pa.field("bands", pa.int8())]
)


AnyRecord = NeuronRecord | HeadRecord
Place = tuple[int, Kind, int, int | None]  # neuron, kind, rank, band


def check_record(record: AnyRecord, source: str) -> None:
    """Raises DataError when a list is longer than our tables can number."""
    bands = record.random_sample_by_quantile or ()
    at_most(MOST_BANDS, source, "random_sample_by_quantile", bands)
    for name, records in (
        ("most_positive_activation_records", record.most_positive_activation_records),
        ("random_sample", record.random_sample),
        *((f"random_sample_by_quantile[{band}]", records) for band, records in enumerate(bands)),
    ):
        at_most(MOST_RECORDS, source, name, records)


def at_most(most: int, source: str, name: str, items: Sequence[object]) -> None:
    """Raises DataError when field `name` holds more items than our tables can number."""
    if len(items) > most:
        raise DataError(
            f"{source} is malformed: field {name}: {len(items)} items; at most {most} can be stored"
        )


class Published(Protocol):
    """A published record: of tokens, or of an attention head's pairs of them."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text."""

    @property
    def activations(self) -> tuple[float, ...]:
        """Of each token, or of each pair."""


class ActivationRows:
    """Rows of a table with activations: the records of neurons, or simulations of them."""

    def __init__(self, sequences: SequenceWriter) -> None:
        self._sequences = sequences
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("neuron", "kind", "rank", "band", "split", "sequence")
        }
        self._activations = ListColumn()
        self._seen: Counter[tuple[object, ...]] = Counter()  # in the neuron of the last row

    @property
    def size(self) -> int:
        """How many activations there are."""
        return self._activations.size

    def add(
        self,
        place: Place,
        split: Split | None,
        tokens: Sequence[str],
        activations: Sequence[float | None],
    ) -> None:
        """Add a row."""
        neuron, kind, _, _ = place
        if self._columns["neuron"][-1:] != [neuron]:
            self._seen.clear()
        key = (kind, split, tuple(tokens))
        row = (*place, split, self._sequences.number(tokens, self._seen[key]))
        self._seen[key] += 1
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)
        self._activations.append(activations)

    def records(self) -> pa.Table:
        """The rows as `records`."""
        return self._table(schemas.records(self._activations.narrowest()))

    def head_records(self, pairs: Sequence[Pair]) -> pa.Table:
        """The rows as `records` of attention heads, of each of which the pair is given."""
        self._columns |= {"query": [query for query, _ in pairs], "key": [key for _, key in pairs]}
        return self._table(schemas.head_records(self._activations.narrowest()))

    def pairs(self) -> pa.Table:
        """The rows as `pairs`."""
        return self._table(schemas.pairs(self._activations.narrowest()))

    def simulations(self) -> pa.Table:
        """The rows as `simulations`, in float64 where float32 would lose something."""
        place = schemas.SIMULATIONS.get_field_index("activations")
        field = schemas.SIMULATIONS.field(place)
        kind = pa.list_(self._activations.narrowest())
        return self._table(schemas.SIMULATIONS.set(place, field.with_type(kind)))

    def _table(self, schema: pa.Schema) -> pa.Table:
        number = schema.field("activations").type.value_type
        absent = [None] * len(self._columns["neuron"])  # what nothing published has
        columns = [
            self._activations.to_arrow(number)
            if field.name == "activations"
            else pa.array(self._columns.get(field.name, absent), field.type)
            for field in schema
        ]
        return pa.table(columns, schema=schema)


class NeuronRecordRows:
    """The neurons of a shard, from their NeuronRecords."""

    def __init__(self, sequences: SequenceWriter) -> None:
        self._records = ActivationRows(sequences)
        self._neurons: list[dict[str, object]] = []
        self._published: list[dict[str, object]] = []

    @property
    def size(self) -> int:
        """How many numbers are held."""
        return self._records.size

    def add(self, neuron: int, record: AnyRecord) -> tuple[Fault, ...]:
        """Add a neuron, larger than those before."""
        top, random = record.most_positive_activation_records, record.random_sample
        top_splits, random_splits = _splits(top, len(random))
        self._add_records(neuron, "top", top, top_splits)
        self._add_records(neuron, "random", random, random_splits)
        bands: Sequence[Sequence[Published]] | None = record.random_sample_by_quantile
        for band, records in enumerate(bands or ()):
            self._add_records(neuron, "quantile", records, {}, band)
        self._neurons.append(_statistics(neuron, record))
        self._published.append({"neuron": neuron, "bands": None if bands is None else len(bands)})
        return ()

    def _add_records(
        self,
        neuron: int,
        kind: Kind,
        records: Sequence[Published],
        splits: dict[int, Split],
        band: int | None = None,
    ) -> None:
        for rank, record in enumerate(records):
            self._add_record((neuron, kind, rank, band), splits.get(rank), record)

    def _add_record(self, place: Place, split: Split | None, record: Published) -> None:
        self._records.add(place, split, record.tokens, record.activations)

    def tables(self) -> dict[str, dict[str, pa.Table]]:
        """The tables of the record set, by name."""
        return {"data": {**self._others(), "records": self._records.records()}}

    def _others(self) -> dict[str, pa.Table]:
        return {
            "neurons": pa.Table.from_pylist(self._neurons, schema=schemas.NEURONS),
            "published": pa.Table.from_pylist(self._published, schema=PUBLISHED_RECORDS),
        }


def _splits(top: Sequence[Published], n_random: int) -> tuple[dict[int, Split], dict[int, Split]]:
    """The split of each top and random record, by its place in the file.

    Splits take turns down the list of top records by maximum, whatever order the file has.
    """
    ranked = sorted(
        range(len(top)),
        key=lambda place: max(top[place].activations, default=-np.inf),
        reverse=True,
    )
    of_top: dict[int, Split] = {}
    of_random: dict[int, Split] = {}
    for split, (top_positions, random_positions) in assign_splits(len(top), n_random).items():
        of_top |= {ranked[position]: split for position in top_positions}
        of_random |= dict.fromkeys(random_positions, split)
    return of_top, of_random


def _statistics(neuron: int, record: AnyRecord) -> dict[str, object]:
    maxima = [max(r.activations) for r in record.most_positive_activation_records if r.activations]
    return {
        "neuron": neuron,
        "tokens": 0,  # not in the files, nor are density and histogram
        "maximum": max(maxima, default=None),
        "mean": record.mean,
        "variance": record.variance,
        "skewness": record.skewness,
        "kurtosis": record.kurtosis,
        "quantile_boundaries": record.quantile_boundaries,
    }
