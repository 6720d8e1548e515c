"""All scores of many neurons at once."""

import numpy as np
import pytest
from numpy.typing import NDArray

from neuron_explainer.records import BoolArray
from neuron_explainer.score.base import Calibrator, Scorer
from neuron_explainer.score.calibration import LinearCalibration, PercentileCalibration
from neuron_explainer.score.correlation import correlation
from neuron_explainer.score.panel import score_all
from neuron_explainer.score.variance import (
    absolute_deviation_explained,
    explained_variance,
    explained_variance_uncentered,
)

Floats = NDArray[np.float64]

CALIBRATIONS: dict[str, type[Calibrator]] = {
    "linear": LinearCalibration,
    "percentile": PercentileCalibration,
}
CALIBRATED: dict[str, Scorer] = {
    "explained_variance_uncentered": explained_variance_uncentered,
    "explained_variance": explained_variance,
    "absolute_deviation_explained": absolute_deviation_explained,
}


def _data(seed: int) -> tuple[Floats, Floats, BoolArray]:
    rng = np.random.default_rng(seed)
    truth = rng.gamma(0.3, 1.0, (150, 320)) - 0.17
    predicted = np.clip(truth * 2 + rng.normal(size=truth.shape), 0, 10)
    truth[3] = 0.0
    predicted[4] = 1.0
    return truth, predicted, rng.random(truth.shape) < 0.9


def test_it_is_the_single_functions_together() -> None:
    truth, predicted, mask = _data(0)
    on_truth, on_predicted, on_mask = _data(1)
    on_mask[5] = False
    scores = score_all(
        truth,
        predicted,
        mask,
        calibration_truth=on_truth,
        calibration_predicted=on_predicted,
        calibration_mask=on_mask,
    )
    plain = correlation(truth, predicted, mask)
    np.testing.assert_array_equal(scores["correlation"].values, plain.values)
    assert scores["correlation"].reasons == plain.reasons
    for suffix, calibration in CALIBRATIONS.items():
        calibrated = calibration.fit(on_truth, on_predicted, on_mask).apply(predicted)
        for name, scorer in CALIBRATED.items():
            got, expected = scores[f"{name}_{suffix}"], scorer(truth, calibrated, mask)
            np.testing.assert_allclose(got.values, expected.values, rtol=1e-12)
            assert got.reasons[5] == "no calibration tokens"
            assert got.reasons[6:] == expected.reasons[6:]
    assert len(scores) == 7


def test_undefined_predictions_do_not_reach_the_scores() -> None:
    truth, predicted, mask = _data(2)
    damaged = np.where(mask, predicted, np.nan).astype(np.float32)
    scores = score_all(
        truth,
        damaged,
        mask,
        calibration_truth=truth,
        calibration_predicted=damaged,
        calibration_mask=mask,
    )
    for name, got in scores.items():
        undefined = [neuron for neuron, reason in enumerate(got.reasons) if reason]
        assert undefined == ([3, 4] if name == "correlation" else [3])
        assert np.flatnonzero(np.isnan(got.values)).tolist() == undefined


def test_calibration_data_must_be_of_the_same_neurons() -> None:
    truth, predicted, mask = _data(3)
    with pytest.raises(ValueError, match="150 neurons to score, 9 to calibrate on"):
        score_all(
            truth,
            predicted,
            mask,
            calibration_truth=truth[:9],
            calibration_predicted=predicted[:9],
            calibration_mask=mask[:9],
        )
