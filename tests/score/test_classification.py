"""Balanced accuracy and the area under the ROC curve, by sequence."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.records import Score
from neuron_explainer.score.base import NOT_FINITE, TRUTH_CONSTANT
from neuron_explainer.score.classification import (
    CHANCE,
    HALF_WAY,
    NO_SEQUENCES,
    auroc,
    balanced_accuracy,
)

PAIRS = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), max_size=14)


def _both(
    truth: list[bool], predicted: list[float], mask: list[bool] | None = None
) -> tuple[Score, Score]:
    counted = np.array([mask if mask is not None else [True] * len(truth)], np.bool_)
    fires, said = np.array([truth], np.bool_), np.array([predicted], np.float64)
    return (
        balanced_accuracy(fires, said, counted, HALF_WAY).at(0),
        auroc(fires, said, counted).at(0),
    )


def test_the_truth_scores_1_and_its_opposite_0() -> None:
    truth = [True, False, False, True]
    assert _both(truth, [10.0, 0.0, 0.0, 10.0]) == (Score(1.0), Score(1.0))
    assert _both(truth, [0.0, 10.0, 10.0, 0.0]) == (Score(0.0), Score(0.0))


@pytest.mark.parametrize("value", [0.0, 5.0, 10.0])
def test_one_answer_to_everything_scores_chance_however_unbalanced(value: float) -> None:
    truth = [True] + [False] * 9
    assert _both(truth, [value] * 10) == (Score(CHANCE), Score(CHANCE))


def test_chance_is_what_a_simulator_gets_that_knows_nothing() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((2000, 20)) < 0.2, rng.random((2000, 20)) * 10
    mask = np.ones(truth.shape, np.bool_)
    accuracy = balanced_accuracy(truth, predicted, mask, HALF_WAY)
    for scores in (accuracy, auroc(truth, predicted, mask)):
        assert np.nanmean(scores.values) == pytest.approx(CHANCE, abs=0.01)


def test_a_tie_with_the_threshold_is_half_right() -> None:
    assert _both([True, False], [5.0, 0.0])[0] == Score(0.75)


@given(PAIRS)
def test_the_area_is_the_share_of_pairs_in_order_with_ties_as_half(
    pairs: list[tuple[bool, int]],
) -> None:
    active = [value for fires, value in pairs if fires]
    silent = [value for fires, value in pairs if not fires]
    _, area = _both([fires for fires, _ in pairs], [float(value) for _, value in pairs])
    if not active or not silent:
        assert area.value is None
        return
    won = sum(Fraction((a > s) - (a < s) + 1, 2) for a, s in product(active, silent))
    assert area.value == float(won / (len(active) * len(silent)))


@given(PAIRS)
def test_what_does_not_count_may_hold_anything(pairs: list[tuple[bool, int]]) -> None:
    truth, predicted = [fires for fires, _ in pairs], [float(value) for _, value in pairs]
    plain = _both(truth, predicted)
    mask = [True] * len(pairs) + [False, False]
    assert _both([*truth, True, False], [*predicted, np.nan, np.inf], mask) == plain


@pytest.mark.parametrize(
    ("truth", "predicted", "reason"),
    [
        ([], [], NO_SEQUENCES),
        ([True, True], [1.0, 9.0], TRUTH_CONSTANT),
        ([False], [1.0], TRUTH_CONSTANT),
        ([True, False], [np.nan, 1.0], NOT_FINITE),
    ],
)
def test_what_cannot_be_scored_has_a_reason(
    truth: list[bool], predicted: list[float], reason: str
) -> None:
    assert _both(truth, predicted) == (Score(None, reason), Score(None, reason))


def test_each_neuron_is_scored_by_itself() -> None:
    truth = np.array([[True, False], [True, True]])
    predicted = np.array([[9.0, 1.0], [9.0, 1.0]])
    scores = auroc(truth, predicted, np.ones((2, 2), np.bool_))
    assert scores.at(0) == Score(1.0)
    assert scores.at(1) == Score(None, TRUTH_CONSTANT)


def test_shapes_that_differ_are_refused() -> None:
    wrong = np.ones((1, 2), np.bool_), np.ones((1, 3)), np.ones((1, 2), np.bool_)
    for score in (balanced_accuracy, auroc):
        with pytest.raises(ValueError, match="share one shape"):
            score(*wrong)
