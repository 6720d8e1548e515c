"""Scores of verdicts about sequences, from one row a sequence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import Scores
from neuron_explainer.score.classification import HALF_WAY, auroc, balanced_accuracy

SEQUENCE_METRICS = ("balanced_accuracy", "auroc")  # the keys of `Verdicts.score`


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What was said of sequences and what is so, all (sequences,)."""

    neuron: NDArray[np.int32]
    truth: BoolArray
    said: FloatArray  # from 0 to 10; NaN: nothing was

    def score(self, neurons: NDArray[np.int32]) -> Mapping[str, Scores]:
        """Each metric of each of `neurons`, which are sorted."""
        order = np.argsort(self.neuron, kind="stable")
        row = np.searchsorted(neurons, self.neuron[order])
        count = np.bincount(row, minlength=len(neurons))
        column = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        shape = (len(neurons), int(count.max(initial=0)))
        truth, mask = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        said = np.zeros(shape)
        truth[row, column] = self.truth[order]
        mask[row, column] = np.isfinite(self.said[order])
        said[row, column] = np.nan_to_num(self.said[order])
        return {
            "balanced_accuracy": balanced_accuracy(truth, said, mask, HALF_WAY),
            "auroc": auroc(truth, said, mask),
        }


def largest(values: FloatArray, counts: BoolArray, lengths: NDArray[np.int64]) -> FloatArray:
    """Of each sequence the largest value that counts (sequences,); -inf where none does.

    `values` and `counts` are all sequences' tokens, concatenated (tokens,).
    """
    owner = np.repeat(np.arange(len(lengths)), lengths)[counts]
    found = np.full(len(lengths), -np.inf)
    np.maximum.at(found, owner, values[counts].astype(np.float64))
    return found
