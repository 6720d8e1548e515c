"""From a simulator's 0–10 scale to a neuron's raw activations, fitted on the calibration split."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import (
    CALIBRATION_NOT_FINITE,
    NO_CALIBRATION_TOKENS,
    reasons_where,
)
from neuron_explainer.score.rows import Rows, blocks, check_shapes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LinearCalibration:
    """Ordinary least squares of truth on prediction, one line per neuron.

    A constant prediction says nothing about the slope: it is 0 and the intercept is the mean truth,
    so the calibrated prediction has no correlation but does have an explained variance.
    """

    slope: Floats  # (neurons,), NaN where there is no calibration
    intercept: Floats  # (neurons,), raw activation
    reasons: tuple[str | None, ...]  # (neurons,), why there is none

    @classmethod
    def fit(cls, truth: FloatArray, predicted: FloatArray, mask: BoolArray) -> Self:
        """Fit each row of (neurons, tokens); undefined where no token counts.

        Raises ValueError when shapes differ. Bills et al. 2023, "Score".
        """
        check_shapes(truth, predicted, mask)
        with np.errstate(all="ignore"):
            lines = [
                _line(Rows(truth[block], mask[block]), Rows(predicted[block], mask[block]))
                for block in blocks(truth.shape)
            ]
        slope, intercept = np.concatenate(lines, axis=1)
        reasons, defined = reasons_where(
            len(slope),
            (mask.sum(axis=1) == 0, NO_CALIBRATION_TOKENS),
            (~(np.isfinite(slope) & np.isfinite(intercept)), CALIBRATION_NOT_FINITE),
        )
        return cls(np.where(defined, slope, np.nan), np.where(defined, intercept, np.nan), reasons)

    def apply(self, predicted: FloatArray) -> Floats:
        """Predictions (neurons, any) in raw activations; NaN for a neuron without calibration."""
        with np.errstate(all="ignore"):
            return self.intercept[:, None] + self.slope[:, None] * predicted.astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class PercentileCalibration:
    """The prediction's rank in the calibration split, read off the sorted truth of that split.

    Linear between calibration points, clamped outside them; a prediction that several calibration
    points share takes the largest of their activations. Never decreasing.
    """

    predicted: Floats  # (neurons, tokens), ascending; +inf from `counts` on
    truth: Floats  # (neurons, tokens), ascending; +inf from `counts` on
    counts: NDArray[np.int64]  # (neurons,)
    reasons: tuple[str | None, ...]  # (neurons,), why there is no calibration

    @classmethod
    def fit(cls, truth: FloatArray, predicted: FloatArray, mask: BoolArray) -> Self:
        """Sort each row of (neurons, tokens); undefined where no token counts.

        Raises ValueError when shapes differ. Bills et al. 2023, "Score".
        """
        check_shapes(truth, predicted, mask)
        ranked_truth, truth_finite = _ranked(truth, mask)
        ranked_predicted, predicted_finite = _ranked(predicted, mask)
        counts = mask.sum(axis=1)
        reasons, _ = reasons_where(
            len(counts),
            (counts == 0, NO_CALIBRATION_TOKENS),
            (~(truth_finite & predicted_finite), CALIBRATION_NOT_FINITE),
        )
        return cls(ranked_predicted, ranked_truth, counts, reasons)

    def apply(self, predicted: FloatArray) -> Floats:
        """Predictions (neurons, any) in raw activations; NaN for a neuron without calibration."""
        calibrated = np.full(predicted.shape, np.nan, dtype=np.float64)
        for row, (count, reason) in enumerate(zip(self.counts.tolist(), self.reasons, strict=True)):
            if reason is None:
                calibrated[row] = np.interp(
                    predicted[row], self.predicted[row, :count], self.truth[row, :count]
                )
        return calibrated


def _line(truth: Rows, predicted: Rows) -> Floats:
    """Slopes and intercepts (2, neurons)."""
    squares = predicted.squared_deviations
    covariance = np.vecdot(truth.deviations, predicted.deviations)
    steepness = covariance / squares.total * (truth.range / predicted.range)
    slope = np.where(predicted.constant, 0.0, steepness)
    return np.stack([slope, truth.mean - slope * predicted.mean])


def _ranked(values: FloatArray, mask: BoolArray) -> tuple[Floats, BoolArray]:
    """The counted values ascending, then +inf (neurons, tokens); and which rows are finite."""
    ranked = np.empty(values.shape, dtype=np.float64)
    finite = np.empty(len(values), dtype=np.bool_)
    for block in blocks(values.shape):
        rows = Rows(values[block], mask[block])
        ranked[block] = np.sort(rows.filled(np.inf), axis=1)
        finite[block] = np.isfinite(rows.values).all(axis=1)
    return ranked, finite
