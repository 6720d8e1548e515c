"""One neuron's simulated sequences, beside the records that they are of."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.record_set import list_column
from neuron_explainer.records import NeuronRecord, Record
from neuron_explainer.view.entries import SimulatorEntry, SiteEntry

Key = tuple[str, str | None, int]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted of one record, beside the truth."""

    record: Record
    activations: NDArray[np.float32]  # (tokens,), NaN where undefined
    genuine: bool | None  # whether what was highlighted is where it fires

    @property
    def pairs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Truth and prediction at the tokens that count, both (counted,)."""
        counted = self.record.scored & np.isfinite(self.activations)
        truth = np.asarray(self.record.activations, np.float64)[counted]
        return truth, self.activations.astype(np.float64)[counted]


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulator's predictions for one neuron."""

    simulator: SimulatorEntry
    predictions: Mapping[Key, Prediction]

    def of(self, record: Record) -> Prediction | None:
        """What was predicted of a record."""
        return self.predictions.get(key_of(record))

    def of_split(self, split: str) -> list[Prediction]:
        """The predictions of one split."""
        return [found for found in self.predictions.values() if found.record.split == split]


def key_of(record: Record) -> Key:
    """What tells the records of one neuron apart."""
    return record.kind, record.split, record.sequence


def simulated_of(
    simulator: SimulatorEntry, site: SiteEntry, record: NeuronRecord
) -> Simulated | None:
    """The simulations of one neuron, None where there are none.

    One whose record is not there, or is of another length, was collected anew since and left out.
    """
    table = simulator.folder.read_neurons(f"{site.name}/simulations", [record.neuron.index])
    if table is None or not len(table):
        return None
    by_key = {key_of(each): each for each in record.records}
    offsets, values = list_column(table["activations"])
    keys = zip(*(table[name].to_pylist() for name in ("kind", "split", "sequence")), strict=True)
    genuine: list[bool | None] = [None] * len(table)
    if "genuine" in table.column_names:
        genuine = table["genuine"].to_pylist()
    predictions = {}
    for row, key in enumerate(keys):
        held = by_key.get(key)
        predicted = values[offsets[row] : offsets[row + 1]]
        if held is not None and len(predicted) == len(held.activations):
            predictions[key] = Prediction(held, predicted, genuine[row])
    return Simulated(simulator, predictions)
