"""Paired statistics: against scipy and by hand, and whether they keep what they promise."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuron_explainer.compare.power import neurons_needed, plan, upper_limit
from neuron_explainer.compare.statistics import (
    Floats,
    Resampling,
    clusters_of,
    contrast,
    holm,
    mean_estimate,
    sign_flip_p_value,
    spearman,
)

TRIALS = 1000
FAST = Resampling(resamples=999)


def realistic_pairs(rng: np.random.Generator, n: int, lift: float = 0.0) -> tuple[Floats, Floats]:
    """Two runs' scores: neurons differ far more than runs do, and noise is skewed and bounded."""
    hardness = rng.beta(1.2, 3.0, n)
    a, b = (np.clip(hardness + 0.08 * (rng.gamma(2.0, 1.0, n) - 2.0), -1, 1) for _ in range(2))
    return a + lift, b


def p_values(trials: int, n: int, lift: float, seed: int) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    for trial in range(trials):
        a, b = realistic_pairs(rng, n, lift)
        found = sign_flip_p_value(a - b, Resampling(trial, 999))
        assert found is not None
        yield found


def test_a_run_against_itself_is_found_better_as_often_as_five_in_a_hundred() -> None:
    found = np.fromiter(p_values(TRIALS, 60, 0.0, seed=1), float)
    assert np.mean(found <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_layers_that_differ_do_not_make_a_run_look_better_than_itself() -> None:
    rng = np.random.default_rng(2)
    layers = np.repeat(np.arange(12), 25)
    found = []
    for trial in range(TRIALS):
        difference = rng.normal(0, 0.05, 12)[layers] + rng.normal(0, 0.1, len(layers))
        sums = np.bincount(layers, weights=difference)
        found.append(sign_flip_p_value(np.asarray(sums, np.float64), Resampling(trial, 999)))
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("pilot", range(4))
def test_what_the_plan_asks_for_finds_a_planted_difference(pilot: int) -> None:
    a, b = realistic_pairs(np.random.default_rng([3, pilot]), 200)
    needed = plan(float(np.std(a - b, ddof=1)), 200, differences=(0.03,)).needed[0.03]
    assert np.mean([p <= 0.05 for p in p_values(TRIALS, needed, 0.03, seed=4)]) >= 0.8


def test_the_plan_for_a_known_spread_has_the_power_it_names() -> None:
    rng = np.random.default_rng(5)
    needed = neurons_needed(0.1, 0.03)
    drawn = rng.normal(0.03, 0.1, (20_000, needed))
    found = stats.ttest_1samp(drawn, 0.0, axis=1).pvalue <= 0.05
    assert np.mean(found) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("spread", [0.05, 0.2])
@pytest.mark.parametrize("difference", [0.01, 0.05])
def test_the_plan_agrees_with_the_noncentral_t(spread: float, difference: float) -> None:
    n = neurons_needed(spread, difference)
    critical = stats.t.ppf(0.975, n - 1)
    power = stats.nct.sf(critical, n - 1, difference / spread * np.sqrt(n))
    assert power == pytest.approx(0.8, abs=0.02)


def test_a_spread_from_few_neurons_is_planned_with_at_its_upper_limit() -> None:
    assert upper_limit(0.1, 10) > upper_limit(0.1, 1000) > 0.1
    rng = np.random.default_rng(6)
    spreads = np.std(rng.normal(0, 1, (2000, 15)), axis=1, ddof=1)
    assert np.mean([upper_limit(s, 15) >= 1 for s in spreads]) == pytest.approx(0.95, abs=0.02)


def test_a_plan_for_no_difference_is_refused() -> None:
    with pytest.raises(ValueError, match="difference of 0"):
        neurons_needed(0.1, 0.0)


@pytest.mark.parametrize("shape", ["normal", "skewed", "clustered"])
def test_intervals_cover_the_truth_as_often_as_they_say(shape: str) -> None:
    rng = np.random.default_rng(7)
    layers = np.repeat(np.arange(16), 10)
    covered = 0
    for trial in range(TRIALS):
        if shape == "normal":
            values, truth, clusters = rng.normal(0.02, 0.1, 100), 0.02, None
        elif shape == "skewed":
            values, truth, clusters = rng.gamma(2.0, 0.05, 100), 0.1, None
        else:
            values = rng.normal(0.0, 0.05, 16)[layers] + rng.normal(0.0, 0.1, len(layers))
            truth, clusters = 0.0, clusters_of(layers)
        interval = mean_estimate(values, clusters, Resampling(trial, 999)).interval
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / TRIALS <= 0.97


def test_differences_that_are_equal_but_for_rounding_have_a_narrow_interval() -> None:
    b = np.sin(np.arange(200.0))
    found = contrast(b + 0.1, b, None, FAST)
    assert found is not None
    assert found.difference.interval is not None
    ends = [found.difference.interval.low, found.difference.interval.high]
    assert ends == pytest.approx([0.1, 0.1])
    assert found.effect_size is None


def test_neurons_of_one_layer_are_not_taken_for_independent() -> None:
    rng = np.random.default_rng(8)
    layers = np.repeat(np.arange(12), 50)
    difference = rng.normal(0, 0.1, 12)[layers] + rng.normal(0, 0.05, len(layers))
    zeros = np.zeros(len(layers))
    by_layer = contrast(difference, zeros, clusters_of(layers), FAST)
    by_neuron = contrast(difference, zeros, None, FAST)
    assert by_layer is not None
    assert by_neuron is not None
    assert by_layer.clusters == 12
    assert by_layer.design_effect > 5
    wide, narrow = by_layer.difference.interval, by_neuron.difference.interval
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_five_layers_are_too_few_to_stand_for_all() -> None:
    assert clusters_of([0, 0, 1, 2, 3, 4]) is None
    assert clusters_of(None) is None
    found = clusters_of([5, 9, 9, 10, 20, 30, 40])
    assert found is not None
    assert found.tolist() == [0, 1, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("n", [3, 20, 61, 400])
def test_the_interval_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).exponential(1.0, n)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(9)
    ).confidence_interval
    ours = mean_estimate(values, None, Resampling(9, 2000)).interval
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


@pytest.mark.parametrize("n", [4, 9, 13])
def test_few_neurons_have_the_exact_p_value_of_scipy(n: int) -> None:
    difference = np.random.default_rng(n).normal(0.3, 1.0, n).round(1)
    theirs = stats.permutation_test([difference], np.sum, permutation_type="samples")
    assert sign_flip_p_value(difference, FAST) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_many_neurons_have_the_p_value_of_scipy_within_chance() -> None:
    a, b = realistic_pairs(np.random.default_rng(10), 80, 0.02)
    theirs = stats.permutation_test(
        [a - b], np.sum, permutation_type="samples", n_resamples=20_000, rng=0
    )
    ours = sign_flip_p_value(a - b, Resampling(0, 20_000))
    assert ours == pytest.approx(theirs.pvalue, abs=0.01)


# Darwin's fifteen pairs of maize, eighths of an inch: Fisher 1935, The design of experiments
MAIZE = np.array([49.0, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])


def test_fishers_own_example_has_his_p_value() -> None:
    assert sign_flip_p_value(MAIZE, FAST) == 2 * 863 / 2**15


def test_on_ranks_the_sign_flips_are_wilcoxons_test() -> None:
    ranks = np.sign(MAIZE) * stats.rankdata(np.abs(MAIZE))
    exact = stats.wilcoxon(MAIZE, method="exact").pvalue
    assert sign_flip_p_value(ranks, FAST) == pytest.approx(exact, abs=1e-12)


def test_a_p_value_is_never_zero() -> None:
    difference = np.full(400, 0.3)
    assert sign_flip_p_value(difference, FAST) == 1 / 1000
    assert sign_flip_p_value(np.array([]), FAST) is None
    assert sign_flip_p_value(np.zeros(40), FAST) == 1.0


def test_holm_by_hand() -> None:
    # Holm 1979: 0.01 · 4, 0.02 · 3, then never less than before
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.5]) == [0.5]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(before <= after <= 1 for before, after in zip(values, adjusted, strict=True))
    assert np.all(np.diff(np.array(adjusted)[np.argsort(values, kind="stable")]) >= 0)


def test_ranks_agree_with_scipy_and_a_constant_has_none() -> None:
    a, b = realistic_pairs(np.random.default_rng(11), 50)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(a, np.ones(50)) is None


def test_a_contrast_counts_better_worse_and_tied_on_what_both_have() -> None:
    a = np.array([0.5, 0.2, np.nan, 0.4, 0.1])
    b = np.array([0.1, 0.2, 0.3, np.nan, 0.3])
    found = contrast(a, b, None, FAST)
    assert found is not None
    assert found.n == 3
    assert [found.better, found.worse, found.tied] == pytest.approx([1 / 3] * 3)
    assert found.superiority.value == 0.5
    assert found.difference.value == pytest.approx(0.2 / 3)
    assert contrast(a, np.full(5, np.nan), None, FAST) is None


@given(st.integers(2, 40), st.integers(0, 1000))
def test_swapping_the_runs_only_changes_the_sign(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n).round(1), rng.normal(size=n).round(1)
    forth, back = contrast(a, b, None, FAST), contrast(b, a, None, FAST)
    assert forth is not None
    assert back is not None
    assert forth.difference.value == pytest.approx(-back.difference.value)
    assert forth.p_value == back.p_value
    assert (forth.better, forth.worse) == (back.worse, back.better)


def test_the_same_seed_gives_the_same_figures() -> None:
    a, b = realistic_pairs(np.random.default_rng(12), 70)
    assert contrast(a, b, None, FAST) == contrast(a, b, None, FAST)
    assert contrast(a, b, None, FAST) != contrast(a, b, None, Resampling(1, 999))
