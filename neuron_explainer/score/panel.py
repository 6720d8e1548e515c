"""The seven scores that every report shows, for all neurons of a shard at once."""

from collections.abc import Callable

import numpy as np

from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.score.base import Calibrator, Scores
from neuron_explainer.score.calibration import LinearCalibration, PercentileCalibration
from neuron_explainer.score.correlation import correlation_of
from neuron_explainer.score.rows import Rows, blocks, check_shapes
from neuron_explainer.score.variance import (
    absolute_deviation_explained_of,
    explained_variance_of,
    explained_variance_uncentered_of,
)

_CALIBRATIONS: dict[str, type[Calibrator]] = {
    "linear": LinearCalibration,
    "percentile": PercentileCalibration,
}
_CALIBRATED: dict[str, Callable[[Rows, Rows], Scores]] = {
    "explained_variance_uncentered": explained_variance_uncentered_of,
    "explained_variance": explained_variance_of,
    "absolute_deviation_explained": absolute_deviation_explained_of,
}

METRICS = (
    "correlation",
    *(f"{name}_{suffix}" for suffix in _CALIBRATIONS for name in _CALIBRATED),
)


def score_all(
    truth: FloatArray,
    predicted: FloatArray,
    mask: BoolArray,
    *,
    calibration_truth: FloatArray,
    calibration_predicted: FloatArray,
    calibration_mask: BoolArray,
) -> dict[str, Scores]:
    """`correlation` of the raw predictions, and each other score after either calibration.

    The first three arrays (neurons, tokens) are the split that is scored, the last three (neurons,
    other tokens) the calibration split; truth in raw activations, predictions in any unit. Keys:
    `correlation`, and SCORE_linear and SCORE_percentile for the three scores of `variance.py`.
    Raises ValueError when shapes do not fit.
    """
    check_shapes(truth, predicted, mask)
    check_shapes(calibration_truth, calibration_predicted, calibration_mask)
    if len(truth) != len(calibration_truth):
        raise ValueError(f"{len(truth)} neurons to score, {len(calibration_truth)} to calibrate on")
    parts: list[dict[str, Scores]] = []
    with np.errstate(all="ignore"):
        for block in blocks(truth.shape):
            counted = mask[block]
            rows = Rows(truth[block], counted), Rows(predicted[block], counted)
            fit_on = (
                calibration_truth[block],
                calibration_predicted[block],
                calibration_mask[block],
            )
            parts.append(_scores_of(*rows, counted, fit_on))
    return {name: Scores.join([part[name] for part in parts]) for name in parts[0]}


def _scores_of(
    truth: Rows,
    predicted: Rows,
    mask: BoolArray,
    fit_on: tuple[FloatArray, FloatArray, BoolArray],
) -> dict[str, Scores]:
    scores = {"correlation": correlation_of(truth, predicted)}
    for suffix, calibration in _CALIBRATIONS.items():
        fitted = calibration.fit(*fit_on)
        calibrated = Rows(fitted.apply(predicted.values), mask)
        for name, score in _CALIBRATED.items():
            scores[f"{name}_{suffix}"] = score(truth, calibrated).unless(fitted.reasons)
    return scores
