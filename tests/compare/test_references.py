"""Nulls, the token lookup, and what selection gives away."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.compare.references import expected_maximum, gap_closed, null_maximum
from neuron_explainer.compare.statistics import Resampling

FAST = Resampling(resamples=999)


def test_the_gap_closed_is_a_ratio_of_means_with_an_interval_around_it() -> None:
    rng = np.random.default_rng(0)
    null, lookup = rng.normal(0.0, 0.05, 300), rng.normal(0.5, 0.1, 300)
    closed = gap_closed(0.3 * lookup + rng.normal(0, 0.05, 300), null, lookup, None, FAST)
    assert closed is not None
    assert closed.interval is not None
    assert closed.interval.low < 0.3 < closed.interval.high
    assert closed.value == pytest.approx(0.3, abs=0.03)


def test_the_null_closes_nothing_and_the_lookup_everything() -> None:
    rng = np.random.default_rng(1)
    null, lookup = rng.normal(0.0, 0.05, 50), rng.normal(0.5, 0.1, 50)
    for scores, share in [(null, 0.0), (lookup, 1.0)]:
        closed = gap_closed(scores, null, lookup, None, FAST)
        assert closed is not None
        assert closed.value == pytest.approx(share)


def test_without_a_gap_there_is_no_share_of_it() -> None:
    values = np.arange(5.0)
    assert gap_closed(values, values, values, None, FAST) is None
    assert gap_closed(values, np.full(5, np.nan), values, None, FAST) is None


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.integers(1, 5))
def test_the_expected_maximum_grows_with_the_draws_and_stays_below_the_largest(
    draws: list[float], k: int
) -> None:
    values = np.array(draws)
    assert expected_maximum(values, 1) == pytest.approx(values.mean())
    assert expected_maximum(values, k) <= expected_maximum(values, k + 1) + 1e-12
    assert expected_maximum(values, k) <= values.max() + 1e-12


def test_the_expected_maximum_of_two_dice() -> None:
    assert expected_maximum(np.arange(1.0, 7.0), 2) == pytest.approx(161 / 36)


def test_the_nulls_maximum_is_found_from_a_few_draws_a_neuron() -> None:
    rng = np.random.default_rng(2)
    level = rng.normal(0.2, 0.3, 4000)
    draws = level[:, None] + rng.normal(0, 0.1, (4000, 3))
    best = (level[:, None] + rng.normal(0, 0.1, (4000, 5))).max(axis=1)
    assert null_maximum(draws, 5).mean() == pytest.approx(best.mean(), abs=0.01)


def test_one_draw_a_neuron_gives_an_upper_bound() -> None:
    rng = np.random.default_rng(3)
    level = rng.normal(0.2, 0.3, 4000)
    best = (level[:, None] + rng.normal(0, 0.1, (4000, 5))).max(axis=1)
    bound = null_maximum(level[:, None] + rng.normal(0, 0.1, (4000, 1)), 5)
    assert bound.mean() > best.mean()


def test_neurons_without_a_null_have_no_maximum() -> None:
    found = null_maximum(np.array([[0.1, 0.3], [np.nan, np.nan], [0.2, np.nan]]), 2)
    assert np.isnan(found[1])
    assert np.isfinite(found[[0, 2]]).all()
