"""Simulated records beside their truth, as arrays over all neurons of a shard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neuron_explainer.errors import DataError
from neuron_explainer.record_set import Corpus, RecordSet, list_column, rows_of
from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.store import Shard

Number = TypeVar("Number", bound=np.generic)
NO_SPLIT = "none"
_KEYS = ("neuron", "kind", "split", "sequence")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Truth and prediction of a split, one row a neuron, padded: (neurons, tokens)."""

    truth: FloatArray
    predicted: FloatArray
    mask: BoolArray
    random: BoolArray  # which of them belong to random records


def truth_of(record_set: RecordSet, shard: Shard) -> pa.Table:
    """All records of `shard` that can be simulated, each quantile record once."""
    columns = ["neuron", "kind", "band", "split", "sequence", "activations"]
    table = rows_of(record_set.folder, "records", shard, columns)
    split, kind = table["split"].fill_null(NO_SPLIT), table["kind"]
    quantile = table.filter(pc.equal(kind, "quantile"))
    places = quantile["neuron"].to_numpy().astype(np.int64) << 32 | quantile["sequence"].to_numpy()
    first = np.unique(places, return_index=True)[1]  # one that ties may be in two bands
    held = table.set_column(table.column_names.index("split"), "split", split)
    plain = held.filter(pc.and_(pc.not_equal(split, NO_SPLIT), pc.not_equal(kind, "quantile")))
    return pa.concat_tables([plain, held.filter(pc.equal(kind, "quantile")).take(np.sort(first))])


@dataclass(frozen=True, slots=True)
class Joined:
    """Simulated records with their truth, one a row; `offsets` are into the flat arrays."""

    neuron: NDArray[np.int32]
    split: NDArray[np.str_]  # NO_SPLIT for quantile records
    random: BoolArray
    band: NDArray[np.int64]  # -1 for top and random records
    sequence: NDArray[np.int32]
    lengths: NDArray[np.int64]
    truth: FloatArray
    predicted: FloatArray
    scored: BoolArray

    def of_split(self, split: str, neurons: NDArray[np.int32]) -> Pairs:
        """The records of one split, concatenated for each of `neurons`."""
        rows = self.split == split
        tokens = np.repeat(rows, self.lengths)
        lengths = self.lengths[rows]
        owner = np.repeat(np.searchsorted(neurons, self.neuron[rows]), lengths)
        width = np.bincount(owner, minlength=len(neurons))
        start = np.concatenate([[0], np.cumsum(width)[:-1]])
        place = np.arange(len(owner)) - start[owner]
        shape = (len(neurons), int(width.max(initial=0)))

        def spread(values: NDArray[Number]) -> NDArray[Number]:
            matrix = np.zeros(shape, values.dtype)
            matrix[owner, place] = values
            return matrix

        predicted = self.predicted[tokens]
        defined = np.isfinite(predicted)
        return Pairs(
            spread(self.truth[tokens]),
            spread(np.where(defined, predicted, 0.0)),
            spread(self.scored[tokens] & defined),
            spread(np.repeat(self.random[rows], lengths)),
        )


def join(simulations: pa.Table, records: pa.Table, corpus: Corpus) -> Joined:
    """Each simulation with the record it simulates. Raises DataError when one has none."""
    numbered = records.append_column("row", pa.array(np.arange(len(records))))
    order = pa.array(np.arange(len(simulations)))
    split = simulations["split"].fill_null(NO_SPLIT)
    place = simulations.column_names.index("split")
    keys = simulations.set_column(place, "split", split).select(_KEYS)
    keys = keys.append_column("order", order)
    found = keys.join(numbered.select([*_KEYS, "row"]), list(_KEYS)).sort_by("order")
    if found["row"].null_count or len(found) != len(simulations):
        raise DataError(
            "a simulation has no record: the records were collected anew since; "
            "delete the simulations and run neuron-explainer simulate again"
        )
    rows = found["row"].to_numpy()
    offsets, predicted = list_column(simulations["activations"])
    true_offsets, truth = list_column(records["activations"].combine_chunks().take(pa.array(rows)))
    if not np.array_equal(offsets, true_offsets):
        raise DataError("a simulation and its record differ in length: simulate again")
    sequences = simulations["sequence"].to_numpy()
    return Joined(
        simulations["neuron"].to_numpy(),
        np.array(split.to_pylist()),
        np.array(simulations["kind"].to_pylist()) == "random",
        records["band"].fill_null(-1).to_numpy()[rows].astype(np.int64),
        sequences,
        np.diff(offsets),
        truth,
        predicted,
        np.concatenate(list(_scored(corpus, sequences))),
    )


def _scored(corpus: Corpus, sequences: Sequence[int] | NDArray[np.int32]) -> Iterator[BoolArray]:
    known: dict[int, BoolArray] = {}
    for sequence in sequences:
        if sequence not in known:
            known[sequence] = corpus.scored(corpus.token_ids(int(sequence)))
        yield known[sequence]
