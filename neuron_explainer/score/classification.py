"""Scores of sequence-level simulators: which sequences does the neuron fire in?

truth       whether it fires (neurons, sequences): True, or a number above 0
predicted   how sure the simulator is that it does (neurons, sequences), larger is surer
mask        which sequences count (neurons, sequences)

Without truth of both kinds neither score is defined. A simulator that knows nothing gets `CHANCE`
from both, however the sequences are balanced.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import (
    NOT_FINITE,
    TRUTH_CONSTANT,
    Scores,
    judged,
)
from neuron_explainer.score.rows import check_shapes

CHANCE = 0.5
NO_SEQUENCES = "no sequences"
HALF_WAY = 5.0  # on the scale from 0 to 10

_Floats = NDArray[np.float64]


def balanced_accuracy(
    truth: BoolArray | FloatArray, predicted: FloatArray, mask: BoolArray, threshold: float = 0.0
) -> Scores:
    """The mean of the shares found among active and among silent sequences.

    A prediction above `threshold` says that the neuron fires; one that equals it says neither, and
    counts as half right. Raises ValueError when shapes differ.
    """
    check_shapes(truth, predicted, mask)
    fires, silent = _kinds(truth, mask)
    with np.errstate(invalid="ignore", divide="ignore"):
        says = 0.5 * (1.0 + np.sign(np.asarray(predicted, np.float64) - threshold))
        found = np.where(fires, says, 0.0).sum(axis=1) / fires.sum(axis=1)
        spared = np.where(silent, 1.0 - says, 0.0).sum(axis=1) / silent.sum(axis=1)
    return _judged(0.5 * (found + spared), fires, silent, predicted)


def auroc(truth: BoolArray | FloatArray, predicted: FloatArray, mask: BoolArray) -> Scores:
    """The chance that an active sequence is ranked above a silent one, ties counted as half.

    The area under the receiver operating characteristic, from midranks. Raises ValueError when
    shapes differ.
    """
    check_shapes(truth, predicted, mask)
    fires, silent = _kinds(truth, mask)
    values = np.array([_area(*row) for row in zip(predicted, fires, silent, strict=True)])
    return _judged(values.reshape(len(truth)), fires, silent, predicted)


def _kinds(truth: BoolArray | FloatArray, mask: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Which sequences that count are active, and which are not (neurons, sequences)."""
    active: BoolArray = truth > 0
    return active & mask, ~active & mask


def _area(predicted: FloatArray, fires: BoolArray, silent: BoolArray) -> float:
    """One neuron's, all arrays (sequences,)."""
    counted = fires | silent
    active = int(fires.sum())
    pairs = active * int(silent.sum())
    if not pairs:
        return np.nan
    ranks: _Floats = rankdata(predicted[counted])  # multiples of one half: sums are exact
    return float((ranks[fires[counted]].sum() - active * (active + 1) / 2) / pairs)


def _judged(values: _Floats, fires: BoolArray, silent: BoolArray, predicted: FloatArray) -> Scores:
    broken = ~np.isfinite(predicted) & (fires | silent)
    active, others = fires.sum(axis=1), silent.sum(axis=1)
    return judged(
        values,
        (active + others == 0, NO_SEQUENCES),
        (active * others == 0, TRUTH_CONSTANT),
        (broken.sum(axis=1) > 0, NOT_FINITE),
    )
