"""Pearson correlation of prediction and truth: the published method's preferred score."""

import numpy as np

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import (
    NO_TOKENS,
    PREDICTION_CONSTANT,
    TRUTH_CONSTANT,
    Scores,
    judged,
)
from neuron_explainer.score.rows import Rows, by_block


def correlation(truth: FloatArray, predicted: FloatArray, mask: BoolArray) -> Scores:
    """Pearson's r over all counted tokens of a neuron, arrays of shape (neurons, tokens).

    Undefined without tokens and when truth or prediction is constant. Unchanged by a linear map of
    positive slope, so it needs no calibration. Raises ValueError when shapes differ. Bills et al.
    2023, "Score": over the concatenation of all sequences, not the mean of their correlations.
    """
    return by_block(correlation_of, truth, predicted, mask)


def correlation_of(truth: Rows, predicted: Rows) -> Scores:
    """`correlation` of rows that are already masked and in float64."""
    covariance = np.vecdot(truth.deviations, predicted.deviations)
    squares = truth.squared_deviations.total * predicted.squared_deviations.total
    return judged(
        np.clip(covariance / np.sqrt(squares), -1.0, 1.0),
        (truth.empty, NO_TOKENS),
        (truth.constant, TRUTH_CONSTANT),
        (predicted.constant, PREDICTION_CONSTANT),
    )
