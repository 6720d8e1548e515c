"""Linear and percentile calibration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuron_explainer.score.base import Calibrator
from neuron_explainer.score.calibration import LinearCalibration, PercentileCalibration
from neuron_explainer.score.correlation import correlation
from neuron_explainer.score.variance import explained_variance

Floats = NDArray[np.float64]
CALIBRATIONS: list[type[Calibrator]] = [LinearCalibration, PercentileCalibration]
PAIRS = st.lists(
    st.tuples(st.decimals(-50, 50, places=3), st.decimals(0, 10, places=3)).map(
        lambda pair: (float(pair[0]), float(pair[1]))
    ),
    min_size=1,
    max_size=15,
)


def _all(array: Floats) -> NDArray[np.bool_]:
    return np.ones(array.shape, dtype=np.bool_)


def test_the_line_is_that_of_polyfit() -> None:
    rng = np.random.default_rng(2)
    truth, predicted = rng.normal(size=(40, 100)), rng.uniform(0, 10, (40, 100))
    mask = rng.random((40, 100)) < 0.6
    fitted = LinearCalibration.fit(truth, predicted, mask)
    for row in range(40):
        slope, intercept = np.polyfit(predicted[row, mask[row]], truth[row, mask[row]], 1)
        assert fitted.slope[row] == pytest.approx(slope, rel=1e-9)
        assert fitted.intercept[row] == pytest.approx(intercept, rel=1e-9)


def test_percentiles_are_those_of_interp_under_a_mask() -> None:
    rng = np.random.default_rng(3)
    truth, predicted = rng.normal(size=(40, 100)), rng.integers(0, 11, (40, 100)).astype(float)
    mask = rng.random((40, 100)) < 0.6
    applied = rng.uniform(-1, 11, (40, 30))
    got = PercentileCalibration.fit(truth, predicted, mask).apply(applied)
    for row in range(40):
        p, t = np.sort(predicted[row, mask[row]]), np.sort(truth[row, mask[row]])
        np.testing.assert_array_equal(got[row], np.interp(applied[row], p, t))


def test_a_tied_prediction_takes_the_last_tied_activation() -> None:
    predicted, truth = np.array([[1.0, 1.0, 1.0, 2.0]]), np.array([[5.0, 7.0, 6.0, 9.0]])
    fitted = PercentileCalibration.fit(truth, predicted, _all(truth))
    assert fitted.apply(np.array([[0.0, 1.0, 2.0, 3.0]])).tolist() == [[5.0, 7.0, 9.0, 9.0]]


@given(PAIRS)
def test_a_fitted_line_never_explains_less_of_what_it_was_fitted_on(
    pairs: list[tuple[float, float]],
) -> None:
    truth, predicted = np.array(pairs).T[:, None]
    fitted = LinearCalibration.fit(truth, predicted, _all(truth))
    before = explained_variance(truth, predicted, _all(truth)).at(0)
    after = explained_variance(truth, fitted.apply(predicted), _all(truth)).at(0)
    assert before.undefined == after.undefined
    if before.value is not None and after.value is not None:
        assert after.value >= min(before.value, 1 - 1e-9) - 1e-6 * abs(before.value)
        assert after.value >= -1e-6


@given(PAIRS, st.lists(st.floats(-5, 15), min_size=1, max_size=10))
def test_percentile_calibration_is_monotone_and_clamped(
    pairs: list[tuple[float, float]], values: list[float]
) -> None:
    truth, predicted = np.array(pairs).T[:, None]
    fitted = PercentileCalibration.fit(truth, predicted, _all(truth))
    got = fitted.apply(np.sort(np.array([values])))[0]
    assert np.all(np.diff(got) >= -1e-9)
    assert got.min() >= truth.min()
    assert got.max() <= truth.max()


def test_a_constant_prediction_is_calibrated_to_the_mean_and_stays_constant() -> None:
    truth, predicted = np.array([[1.0, 2.0, 6.0]]), np.full((1, 3), 4.0)
    fitted = LinearCalibration.fit(truth, predicted, _all(truth))
    assert (fitted.slope[0], fitted.intercept[0]) == (0.0, 3.0)
    calibrated = fitted.apply(predicted)
    assert correlation(truth, calibrated, _all(truth)).at(0).undefined == "prediction is constant"
    assert explained_variance(truth, calibrated, _all(truth)).at(0).value == pytest.approx(0.0)


def test_a_constant_truth_is_hit_exactly() -> None:
    truth, predicted = np.full((1, 50), 0.1), np.arange(50.0)[None]
    for calibration in CALIBRATIONS:
        fitted = calibration.fit(truth, predicted, _all(truth))
        np.testing.assert_array_equal(fitted.apply(predicted), truth)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_without_calibration_tokens_there_is_no_calibration(calibration: type[Calibrator]) -> None:
    mask = np.array([[False, False], [True, True]])
    values = np.array([[1.0, 2.0], [1.0, 2.0]])
    fitted = calibration.fit(values, values, mask)
    assert fitted.reasons == ("no calibration tokens", None)
    np.testing.assert_allclose(fitted.apply(values), [[np.nan, np.nan], [1.0, 2.0]])


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_calibration_data_are_not_fitted(calibration: type[Calibrator], bad: float) -> None:
    good = np.array([[1.0, 2.0, 3.0]])
    damaged = np.array([[1.0, bad, 3.0]])
    for truth, predicted in ((good, damaged), (damaged, good)):
        fitted = calibration.fit(truth, predicted, _all(truth))
        assert fitted.reasons == ("calibration is not finite",)
        assert np.isnan(fitted.apply(good)).all()


def test_a_slope_that_overflows_is_no_calibration() -> None:
    truth, predicted = np.array([[0.0, 1.0]]), np.array([[0.0, 5e-324]])
    fitted = LinearCalibration.fit(truth, predicted, _all(truth))
    assert fitted.reasons == ("calibration is not finite",)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_nothing_to_calibrate_gives_nothing(calibration: type[Calibrator]) -> None:
    truth = np.array([[1.0, 2.0]])
    assert calibration.fit(truth, truth, _all(truth)).apply(np.empty((1, 0))).shape == (1, 0)
    none = np.empty((0, 4))
    assert calibration.fit(none, none, _all(none)).reasons == ()
