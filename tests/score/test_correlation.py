"""Pearson correlation over many neurons."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.records import Score
from neuron_explainer.score.correlation import correlation

Floats = NDArray[np.float64]
VALUES = st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=0, max_size=12)


def _score(truth: Floats, predicted: Floats, mask: list[bool] | None = None) -> Score:
    counted = np.ones(len(truth), dtype=np.bool_) if mask is None else np.array(mask)
    return correlation(truth[None], predicted[None], counted[None]).at(0)


def test_it_agrees_with_scipy_for_every_neuron_and_mask() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.gamma(0.3, 1.0, (150, 300)), rng.normal(size=(150, 300))
    mask = rng.random((150, 300)) < 0.7
    values = correlation(truth, predicted, mask).values
    expected = [
        stats.pearsonr(t[m], p[m]).statistic for t, p, m in zip(truth, predicted, mask, strict=True)
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_what_does_not_count_may_hold_anything() -> None:
    truth, predicted = np.array([0.0, 1.0, 3.0, np.nan]), np.array([0.0, 2.0, 5.0, np.inf])
    masked = _score(truth, predicted, [True, True, True, False])
    assert masked == _score(truth[:3], predicted[:3])


@given(VALUES, st.floats(0.01, 100), st.floats(-100, 100), st.randoms(use_true_random=False))
def test_positive_linear_maps_and_order_change_nothing(
    pairs: list[tuple[float, float]], slope: float, shift: float, random: Random
) -> None:
    # Whole numbers: a map of floats may round two different values to one.
    rounded = [(round(t), round(p)) for t, p in pairs]
    truth, predicted = np.array(rounded, dtype=np.float64).reshape(-1, 2).T
    before = _score(truth, predicted)
    mapped = _score(truth, slope * predicted + shift)
    random.shuffle(rounded)
    shuffled = _score(*np.array(rounded, dtype=np.float64).reshape(-1, 2).T)
    assert before.undefined == mapped.undefined == shuffled.undefined
    if before.value is not None:
        assert mapped.value == pytest.approx(before.value, rel=1e-9, abs=1e-12)
        assert shuffled.value == pytest.approx(before.value, rel=1e-9, abs=1e-12)


@given(VALUES)
def test_a_score_is_a_number_in_range_or_has_a_reason(pairs: list[tuple[float, float]]) -> None:
    truth, predicted = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    score = _score(truth, predicted)
    constant = len(truth) == 0 or np.ptp(truth) == 0 or np.ptp(predicted) == 0
    assert (score.undefined is not None) == constant
    assert (score.value is None) == constant
    if score.value is not None:
        assert -1.0 <= score.value <= 1.0


@pytest.mark.parametrize(
    ("truth", "predicted", "reason"),
    [
        ([], [], "no tokens"),
        ([2.0], [4.0], "truth is constant"),
        ([0.1] * 640, list(range(640)), "truth is constant"),
        ([0.0, 1.0, 2.0], [0.1] * 3, "prediction is constant"),
        ([0.0, math.nan, 2.0], [0.0, 1.0, 2.0], "not finite"),
        ([0.0, 1.0, 2.0], [0.0, math.inf, 2.0], "not finite"),
    ],
)
def test_what_cannot_be_had_says_why(
    truth: list[float], predicted: list[float], reason: str
) -> None:
    assert _score(np.array(truth), np.array(predicted)) == Score(None, reason)


@pytest.mark.parametrize("constant", [0.1, 1e-7 / 3, 1e16 / 3, np.pi])
def test_constant_activations_have_no_correlation(constant: float) -> None:
    truth = np.full(777, constant)
    assert _score(truth, np.arange(777.0)) == Score(None, "truth is constant")


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-30, 1e30, 1e200])
def test_tiny_and_huge_activations_are_no_special_case(scale: float) -> None:
    truth, predicted = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0, 10.0])
    score = _score(truth * scale, predicted)
    assert score.value == pytest.approx(0.9561828874675149, rel=1e-9)


def test_a_large_offset_costs_no_digits() -> None:
    truth, predicted = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0, 10.0])
    score = _score(truth + 2.0**50, predicted)
    assert score.value == pytest.approx(0.9561828874675149, rel=1e-9)


def test_no_neurons_have_no_scores() -> None:
    empty = np.empty((0, 5))
    assert correlation(empty, empty, empty.astype(np.bool_)).reasons == ()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="share one shape"):
        correlation(np.zeros((2, 3)), np.zeros((2, 4)), np.ones((2, 3), dtype=np.bool_))
