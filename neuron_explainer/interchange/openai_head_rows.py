"""Published records of attention heads as rows: one pair of each text, and all of them beside.

A record of a head is of one pair (docs/heads.md): of a text in the lists of strong ones its
strongest, of a random text one drawn uniformly. Table `pairs` keeps what was published whole.
"""

import numpy as np
import pyarrow as pa

from neuron_explainer.head_pairs import pair_at
from neuron_explainer.interchange.openai_records import (
    ActivationRows,
    NeuronRecordRows,
    Place,
    Published,
)
from neuron_explainer.interchange.sequences import SequenceWriter
from neuron_explainer.records import Pair, Split

_SEED = 0x9A


class HeadRecordRows(NeuronRecordRows):
    """The heads of a shard, from their NeuronRecords."""

    def __init__(self, sequences: SequenceWriter) -> None:
        super().__init__(sequences)
        self._whole = ActivationRows(sequences)
        self._pairs: list[Pair] = []  # of each row of the records

    @property
    def size(self) -> int:
        """How many numbers are held."""
        return super().size + self._whole.size

    def _add_record(self, place: Place, split: Split | None, record: Published) -> None:
        self._whole.add(place, split, record.tokens, record.activations)
        if record.tokens:  # a text without tokens has no pair
            flat = _chosen(place, record)
            query, key = (int(position[0]) for position in pair_at(np.array([flat])))
            activations = [0.0] * len(record.tokens)
            activations[query] = record.activations[flat]
            self._records.add(place, split, record.tokens, activations)
            self._pairs.append((query, key))

    def tables(self) -> dict[str, dict[str, pa.Table]]:
        """The tables of the record set, by name."""
        records = self._records.head_records(self._pairs)
        return {"data": {**self._others(), "records": records, "pairs": self._whole.pairs()}}


def _chosen(place: Place, record: Published) -> int:
    """The flat index of a record's pair. The same head and rank have the same draw."""
    head, kind, rank, _ = place
    if kind == "random":
        return int(np.random.default_rng([_SEED, head, rank]).integers(len(record.activations)))
    return int(np.argmax(record.activations))
