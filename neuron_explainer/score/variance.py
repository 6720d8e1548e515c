"""How much of the truth a prediction in the truth's own unit leaves unexplained.

All three need calibrated predictions. 1 is perfect, 0 is no better than a trivial guess (zero for
the uncentred and the absolute one, the mean for the centred one), and there is no lower bound.
"""

import numpy as np

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import NO_TOKENS, TRUTH_CONSTANT, TRUTH_ZERO, Scores, judged
from neuron_explainer.score.rows import Rows, Squares, by_block


def explained_variance_uncentered(
    truth: FloatArray, predicted: FloatArray, mask: BoolArray
) -> Scores:
    """1 − mean((t−p)²) / mean(t²) per neuron, arrays of shape (neurons, tokens).

    What the reference code of Bills et al. 2023 calls R². Undefined without tokens and when the
    truth is all zero. Raises ValueError when shapes differ.
    """
    return by_block(explained_variance_uncentered_of, truth, predicted, mask)


def explained_variance(truth: FloatArray, predicted: FloatArray, mask: BoolArray) -> Scores:
    """1 − mean((t−p)²) / var(t) per neuron, arrays of shape (neurons, tokens).

    What the text of Bills et al. 2023 means by explained variance; var divides by n. Undefined
    without tokens and when the truth is constant. Raises ValueError when shapes differ.
    """
    return by_block(explained_variance_of, truth, predicted, mask)


def absolute_deviation_explained(
    truth: FloatArray, predicted: FloatArray, mask: BoolArray
) -> Scores:
    """1 − mean|t−p| / mean|t| per neuron, arrays of shape (neurons, tokens).

    From the reference code of Bills et al. 2023. Undefined without tokens and when the truth is all
    zero. Raises ValueError when shapes differ.
    """
    return by_block(absolute_deviation_explained_of, truth, predicted, mask)


def explained_variance_uncentered_of(truth: Rows, predicted: Rows) -> Scores:
    """`explained_variance_uncentered` of rows that are already masked and in float64."""
    error = Squares.of(predicted.values - truth.values)
    return judged(
        1.0 - error.over(Squares.of(truth.values)),
        (truth.empty, NO_TOKENS),
        (_all_zero(truth), TRUTH_ZERO),
    )


def explained_variance_of(truth: Rows, predicted: Rows) -> Scores:
    """`explained_variance` of rows that are already masked and in float64."""
    error = Squares.of(predicted.values - truth.values)
    return judged(
        1.0 - error.over(truth.squared_deviations),
        (truth.empty, NO_TOKENS),
        (truth.constant, TRUTH_CONSTANT),
    )


def absolute_deviation_explained_of(truth: Rows, predicted: Rows) -> Scores:
    """`absolute_deviation_explained` of rows that are already masked and in float64."""
    error = np.abs(predicted.values - truth.values).sum(axis=1)
    return judged(
        1.0 - error / np.abs(truth.values).sum(axis=1),
        (truth.empty, NO_TOKENS),
        (_all_zero(truth), TRUTH_ZERO),
    )


def _all_zero(truth: Rows) -> BoolArray:
    zero: BoolArray = (truth.low == 0) & (truth.high == 0)
    return zero
