"""Correlation over the whole corpus from a few records of each stratum."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuron_explainer.score.base import PREDICTION_CONSTANT, TRUTH_CONSTANT
from neuron_explainer.score.population import (
    TOO_FEW_EXCERPTS,
    PopulationCorrelation,
    population_correlation,
    stratum_sizes,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

QUANTILES = (0.5, 0.9, 0.99, 0.999)
TOP = 20


@dataclass(frozen=True)
class Sampled:
    """A corpus of one neuron, and which of its excerpts are records."""

    truth: Floats  # (excerpts, tokens)
    tokens: Integers  # (excerpts, tokens)
    level: Floats  # (vocabulary,)
    stratum: Integers  # (excerpts,)
    top: Integers  # excerpts in the split
    random: Integers
    bands: Integers

    def estimate(self, predicted: Floats) -> PopulationCorrelation:
        chosen = np.unique(np.concatenate([self.top, self.random, self.bands]))
        chosen = chosen[(self.stratum[chosen] < 5) | np.isin(chosen, self.top)]
        sizes = stratum_sizes(len(self.truth), QUANTILES, np.array([TOP]))
        return of_one(self.truth[chosen], predicted[chosen], self.stratum[chosen], sizes)

    def top_and_random(self, predicted: Floats) -> float:
        chosen = np.concatenate([self.top, self.random])
        return correlated(self.truth[chosen], predicted[chosen])


def of_one(
    truth: Floats,
    predicted: Floats,
    stratum: Integers,
    sizes: Floats,
    mask: NDArray[np.bool_] | None = None,
) -> PopulationCorrelation:
    """Of one neuron's excerpts (excerpts, tokens)."""
    excerpt = np.repeat(np.arange(len(truth)), truth.shape[1])
    counted = np.ones(truth.shape, np.bool_) if mask is None else mask
    nobody = np.zeros(len(truth), np.int64)
    return population_correlation(
        truth.ravel(), predicted.ravel(), counted.ravel(), excerpt, nobody, stratum, sizes
    )


def correlated(truth: Floats, predicted: Floats) -> float:
    return float(np.corrcoef(truth.ravel(), predicted.ravel())[0, 1])


TOKENS = np.random.default_rng(0).zipf(1.3, size=(2000, 32)) % 400  # one text for all neurons


def sampled(rng: np.random.Generator, per_band: int = 16) -> Sampled:
    """A neuron that fires on a dozen tokens of a Zipfian text, more or less strongly."""
    tokens, excerpts = TOKENS, len(TOKENS)
    level = np.zeros(400)
    level[rng.choice(400, 12, replace=False)] = rng.uniform(2, 10, 12)
    noise = 0.4 * rng.normal(size=tokens.shape)
    truth = np.maximum(0.0, level[tokens] * rng.uniform(0.5, 1.5, tokens.shape) + noise)
    maxima = truth.max(1)
    best = np.argsort(-maxima)[:TOP]
    stratum = np.searchsorted(np.quantile(maxima, QUANTILES), maxima, side="right")
    bands = [
        rng.choice(members, min(per_band, len(members)), replace=False)
        for band in range(5)
        for members in [np.flatnonzero(stratum == band)]
    ]
    stratum[best] = 5
    random = rng.choice(excerpts, TOP, replace=False)
    return Sampled(truth, tokens, level, stratum, best[2::4], random, np.concatenate(bands))


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 9))
def test_a_census_gives_the_exact_correlation(seed: int, excerpts: int, tokens: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.normal(size=(2, excerpts, tokens))
    mask = rng.random((excerpts, tokens)) < 0.8
    mask[:2, 0] = True
    stratum, sizes = np.zeros(excerpts, np.int64), np.array([[float(excerpts)]])
    found = of_one(truth, predicted, stratum, sizes, mask)
    if mask.sum() > 2:
        expected = correlated(truth[mask], predicted[mask])
        assert abs(found.scores.values[0] - expected) < 1e-6
        assert found.low[0] - 1e-6 <= expected <= found.high[0] + 1e-6


def test_strata_cover_the_corpus_and_top_records_come_out_of_the_highest_bands() -> None:
    sizes = stratum_sizes(1000, QUANTILES, np.array([20, 0]))
    assert np.allclose(sizes.sum(1), 1000)
    assert np.allclose(sizes[0], [500, 400, 80, 0, 0, 20])
    assert np.allclose(sizes[1], [500, 400, 90, 9, 1, 0])


def test_intervals_hold_the_correlation_over_the_whole_corpus_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    inside, errors = [], []
    for _ in range(1000):
        corpus = sampled(rng)
        described = np.where(rng.random(400) < 0.7, corpus.level, 0.0)
        described[rng.choice(400, 6)] += 3.0
        predicted = described[corpus.tokens]
        true = correlated(corpus.truth, predicted)
        found = corpus.estimate(predicted)
        inside.append(found.low[0] <= true <= found.high[0])
        errors.append(found.scores.values[0] - true)
    assert 0.93 <= np.mean(inside) <= 0.97
    assert abs(np.mean(errors)) < 0.01


def test_an_over_broad_label_falls_below_the_true_one() -> None:
    rng = np.random.default_rng(4)
    wins, old_wins = [], []
    for _ in range(200):
        corpus = sampled(rng, per_band=4)
        silent = np.flatnonzero(corpus.level == 0)
        broad = corpus.level.copy()
        broad[rng.choice(silent, 60, replace=False)] = 6.0
        label, over = corpus.level[corpus.tokens], broad[corpus.tokens]
        better = corpus.estimate(label).scores.values[0], corpus.estimate(over).scores.values[0]
        wins.append(better[0] > better[1])
        old_wins.append(corpus.top_and_random(label) - corpus.top_and_random(over))
    assert np.mean(wins) >= 0.95


def test_constants_and_too_few_excerpts_are_undefined_with_a_reason() -> None:
    sizes = np.array([[10.0]])
    two = np.zeros(2, np.int64)
    rising, flat = np.array([[1.0, 2.0], [3.0, 5.0]]), np.ones((2, 2))
    for truth, predicted, reason in (
        (flat, rising, TRUTH_CONSTANT),
        (rising, flat, PREDICTION_CONSTANT),
    ):
        found = of_one(truth, predicted, two, sizes)
        assert found.scores.reasons == (reason,)
        assert np.isnan(found.scores.values[0])
    assert of_one(rising[:1], rising[:1], two[:1], sizes).scores.reasons == (TOO_FEW_EXCERPTS,)


def test_neurons_do_not_see_each_other() -> None:
    rng = np.random.default_rng(5)
    truth, predicted = rng.normal(size=(2, 30, 6))
    neuron, stratum = np.repeat([0, 1, 2], 10), np.tile([0, 0, 0, 0, 1, 1, 1, 2, 1, 1], 3)
    sizes = np.tile([50.0, 30.0, 4.0], (3, 1))
    excerpt = np.repeat(np.arange(30), 6)
    counted = np.ones(180, np.bool_)
    together = population_correlation(
        truth.ravel(), predicted.ravel(), counted, excerpt, neuron, stratum, sizes
    )
    for one in range(3):
        mine = neuron == one
        alone = of_one(truth[mine], predicted[mine], stratum[mine], sizes[one : one + 1])
        assert alone.scores.values[0] == together.scores.values[one]
        assert alone.low[0] == together.low[one]


def test_the_size_of_activations_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    truth, predicted = rng.normal(size=(2, 20, 5))
    stratum, sizes = np.repeat([0, 1], 10), np.array([[90.0, 10.0]])
    plain = of_one(truth, predicted, stratum, sizes)
    for scale in (1e-200, 1e200):
        scaled = of_one(truth * scale, 7 + predicted * 1e-3, stratum, sizes)
        assert np.isclose(scaled.scores.values[0], plain.scores.values[0], rtol=1e-9)
