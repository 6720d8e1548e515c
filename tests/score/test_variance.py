"""Explained variance and absolute deviation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuron_explainer.records import Score
from neuron_explainer.score.base import Scorer
from neuron_explainer.score.variance import (
    absolute_deviation_explained,
    explained_variance,
    explained_variance_uncentered,
)

Floats = NDArray[np.float64]
SCORERS: list[Scorer] = [
    explained_variance_uncentered,
    explained_variance,
    absolute_deviation_explained,
]
PAIRS = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), max_size=12)


def _score(scorer: Scorer, truth: Floats, predicted: Floats) -> Score:
    return scorer(truth[None], predicted[None], np.ones((1, len(truth)), dtype=np.bool_)).at(0)


def test_they_agree_with_their_formulas_under_a_mask() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.normal(size=(90, 400)), rng.normal(size=(90, 400))
    mask = rng.random((90, 400)) < 0.5
    for row, (t, p) in enumerate(
        (truth[row, mask[row]], predicted[row, mask[row]]) for row in range(90)
    ):
        expected = (
            1 - np.mean((t - p) ** 2) / np.mean(t**2),
            1 - np.mean((t - p) ** 2) / np.var(t),
            1 - np.mean(np.abs(t - p)) / np.mean(np.abs(t)),
        )
        for scorer, value in zip(SCORERS, expected, strict=True):
            got = scorer(truth[row : row + 1], predicted[row : row + 1], mask[row : row + 1])
            assert got.at(0).value == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_perfect_prediction_explains_everything(scorer: Scorer) -> None:
    truth = np.array([0.0, 1.5, -0.2])
    assert _score(scorer, truth, truth) == Score(1.0)


def test_predicting_the_mean_explains_no_variance() -> None:
    truth = np.array([1.0, 2.0, 6.0])
    assert _score(explained_variance, truth, np.full(3, 3.0)).value == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("scorer", SCORERS)
def test_zero_truth_explains_nothing_and_says_so(scorer: Scorer) -> None:
    score = _score(scorer, np.zeros(3), np.array([0.0, 0.5, 0.0]))
    constant = scorer is explained_variance
    assert score == Score(None, "truth is constant" if constant else "truth is all zero")


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_tokens_no_score(scorer: Scorer) -> None:
    assert _score(scorer, np.array([]), np.array([])) == Score(None, "no tokens")


@given(PAIRS, st.sampled_from(SCORERS))
def test_a_score_is_at_most_one_or_has_a_reason(
    pairs: list[tuple[float, float]], scorer: Scorer
) -> None:
    truth, predicted = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    score = _score(scorer, truth, predicted)
    assert (score.value is None) == (score.undefined is not None)
    if score.value is not None:
        assert score.value <= 1.0


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_unit_of_activations_does_not_matter(scorer: Scorer, scale: float) -> None:
    truth, predicted = np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0, 3.0])
    plain = _score(scorer, truth, predicted).value
    assert _score(scorer, truth * scale, predicted * scale).value == pytest.approx(plain)


def test_a_score_that_overflows_is_undefined() -> None:
    score = _score(explained_variance, np.array([0.0, 1e-200]), np.array([0.0, 1e200]))
    assert score == Score(None, "not finite")
