"""Summaries of many neurons' scores."""

import numpy as np
import pytest

from neuron_explainer.score.base import Scores
from neuron_explainer.score.bootstrap import Interval
from neuron_explainer.score.statistics import mean_interval, summarise


def test_the_interval_holds_the_mean_and_is_the_same_for_the_same_seed() -> None:
    values = np.random.default_rng(0).normal(0.2, 0.1, 400)
    interval = mean_interval(values, seed=7)
    assert interval is not None
    assert interval.low < values.mean() < interval.high
    assert interval == mean_interval(values, seed=7)
    assert interval != mean_interval(values, seed=8)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        interval = mean_interval(rng.exponential(1.0, 60), seed, resamples=300)
        assert interval is not None
        covered += interval.low <= 1.0 <= interval.high
    assert 85 <= covered <= 100


def test_many_neurons_and_few_have_about_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(0.2, 0.1, 20_001)
    many, few = mean_interval(values, 0), mean_interval(values[:20_000], 0)
    assert many is not None
    assert few is not None
    assert many.low == pytest.approx(few.low, abs=5e-4)
    assert many.high == pytest.approx(few.high, abs=5e-4)


def test_one_value_has_no_interval_and_equal_values_a_point() -> None:
    assert mean_interval(np.array([]), 0) is None
    assert mean_interval(np.array([0.3]), 0) is None
    assert mean_interval(np.full(9, 0.3), 0) == Interval(0.3, 0.3)


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 0.0, 1.0], [0.0] * 30 + [1e-9]])
def test_nearly_degenerate_values_have_a_finite_interval(values: list[float]) -> None:
    interval = mean_interval(np.array(values), 0)
    assert interval is not None
    assert np.isfinite([interval.low, interval.high]).all()


def test_undefined_values_have_no_place_in_an_interval() -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(np.array([0.1, np.nan]), 0)


def test_undefined_scores_are_counted_and_never_above_a_threshold() -> None:
    values = np.array([0.8, np.nan, 0.4, np.nan, 0.6])
    reasons = (None, "truth is constant", None, "truth is constant", None)
    summary = summarise(Scores(values, reasons), seed=0)
    assert (summary.n, summary.defined, summary.undefined_share) == (5, 3, 0.4)
    assert summary.mean == pytest.approx(0.6)
    assert summary.mean_undefined_as_zero == pytest.approx(0.36)
    assert summary.median == 0.6
    assert summary.share_above == {0.3: 0.6, 0.5: 0.4, 0.7: 0.2}
    assert summary.reasons == {"truth is constant": 2}


def test_a_summary_of_nothing_has_no_figures() -> None:
    summary = summarise(Scores(np.array([]), ()), seed=0)
    assert (summary.n, summary.mean, summary.median, summary.undefined_share) == (
        0,
        None,
        None,
        None,
    )
    assert summary.share_above == {0.3: None, 0.5: None, 0.7: None}


def test_a_summary_of_undefined_scores_has_a_mean_only_with_them_as_zero() -> None:
    summary = summarise(Scores(np.full(3, np.nan), ("no tokens",) * 3), seed=0)
    assert (summary.mean, summary.interval, summary.median) == (None, None, None)
    assert summary.mean_undefined_as_zero == 0.0
    assert summary.interval_undefined_as_zero == Interval(0.0, 0.0)
