"""Records of the quantile bands, against the exact quantiles of everything."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.collect.bands import BANDS, QUANTILES, BandSample
from neuron_explainer.collect.batches import Batch
from neuron_explainer.collect.dense import DenseRows
from neuron_explainer.collect.kept import BAND_SEED, KeptExcerpts, Sizes
from neuron_explainer.collect.reservoirs import EMPTY, positions_of

Floats = NDArray[np.float32]
_PER_BAND = 4

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy-tailed": lambda rng, shape: rng.standard_cauchy(shape),
    "sparse": lambda rng, shape: np.where(rng.random(shape) < 0.05, rng.exponential(size=shape), 0),
    "tied": lambda rng, shape: rng.integers(-3, 5, shape).astype(np.float64),
    "dead": lambda rng, shape: 0.0 * rng.random(shape),
    "negative": lambda rng, shape: -1e-3 * rng.random(shape),
}


@dataclass(frozen=True)
class Stream:
    """Maxima (neurons, excerpts) given to bands in random order."""

    maxima: Floats
    seed: int = 0
    top: int = 20
    random: int = 20
    per_band: int = _PER_BAND
    remembered: int | None = None

    def sample(self, batch: int = 256) -> BandSample:
        neurons, excerpts = self.maxima.shape
        remembered = self.remembered or excerpts
        sizes = Sizes(self.top, self.random, self.per_band, 1, excerpts, remembered)
        kept = KeptExcerpts(neurons, sizes, self.seed)
        order = np.random.default_rng(self.seed).permutation(excerpts)
        edges = [*range(0, excerpts, 1024), excerpts]
        for start, stop in pairwise(edges):
            for first in range(start, min(stop, excerpts), batch):
                chosen = order[first : min(first + batch, stop)]
                nothing = np.zeros((len(chosen), 1), np.int64)
                offered = Batch(chosen, nothing, nothing == 0).on(torch.device("cpu"))
                maxima = torch.from_numpy(self.maxima[:, chosen])
                kept.weigh(offered, maxima, DenseRows(maxima.T[:, None, :]))()
        kept.top.sort()
        kept.random.sort()
        return kept.bands.result(kept.top, kept.random, self.seed + BAND_SEED)

    def edges(self) -> NDArray[np.float64]:
        """Exact boundaries, with both ends, (neurons, bands + 1)."""
        inner = np.quantile(self.maxima.astype(np.float64), QUANTILES, axis=1).T
        return np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))

    def inside(self, band: int) -> NDArray[np.bool_]:
        """Which excerpts lie in a band, ends included, (neurons, excerpts)."""
        edges = self.edges()
        edges[:, 1:-1] = edges[:, 1:-1].astype(np.float32)  # as they are stored
        low, high = edges[:, band, None], edges[:, band + 1, None]
        return (low <= self.maxima) & (self.maxima <= high)


def _stream(name: str, excerpts: int, neurons: int = 60, **options: int) -> Stream:
    rng = np.random.default_rng(excerpts)
    maxima = DISTRIBUTIONS[name](rng, (neurons, excerpts)).astype(np.float32)
    return Stream(maxima, **options)


@pytest.mark.parametrize("excerpts", [50, 800, 3000, 5000])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_bands_are_full_and_lie_inside_the_exact_boundaries(name: str, excerpts: int) -> None:
    stream = _stream(name, excerpts)
    sample = stream.sample()
    np.testing.assert_allclose(sample.boundaries, stream.edges()[:, 1:-1], rtol=1e-6)
    positions = positions_of(sample.keys).numpy()
    for band in range(len(BANDS)):
        inside = stream.inside(band)
        available = np.minimum(inside.sum(1), _PER_BAND)
        for neuron, places in enumerate(positions[:, band]):
            held = places[places >= 0]
            assert len(held) == len(np.unique(held)) == available[neuron]
            assert inside[neuron, held].all()
            np.testing.assert_array_equal(
                sample.maxima[neuron, band, : len(held)], stream.maxima[neuron, held]
            )
            np.testing.assert_array_equal(
                sample.activations[neuron, band, : len(held), 0], stream.maxima[neuron, held]
            )


@pytest.mark.parametrize("excerpts", [50, 800, 3000])
def test_the_sample_does_not_depend_on_the_size_of_batches(excerpts: int) -> None:
    stream = _stream("heavy-tailed", excerpts)
    expected = stream.sample(batch=1000)
    for batch in (1, 7, 64) if excerpts < 1000 else (33,):
        sample = stream.sample(batch)
        np.testing.assert_array_equal(sample.keys, expected.keys)
        np.testing.assert_array_equal(sample.activations, expected.activations)
        np.testing.assert_array_equal(sample.boundaries, expected.boundaries)


@pytest.mark.parametrize("excerpts", [200, 800, 5000])
@pytest.mark.parametrize("seed", [0, 7])
def test_within_a_band_every_excerpt_is_equally_likely(excerpts: int, seed: int) -> None:
    neurons = 1000 if excerpts < 5000 else 300
    maxima = np.random.default_rng(0).permuted(
        np.tile(np.arange(excerpts, dtype=np.float32), (neurons, 1)), axis=1
    )
    sample = Stream(maxima, seed).sample()
    for band, (low, high) in enumerate(BANDS):
        first, last = np.ceil(low * (excerpts - 1)), np.floor(high * (excerpts - 1))
        members = int(last - first) + 1
        if members <= _PER_BAND:
            continue
        ranks = sample.maxima[:, band].numpy().ravel() - first
        parts = min(members, 20)
        bins = np.floor(ranks * parts / members).astype(int)
        sizes = np.bincount(np.arange(members) * parts // members, minlength=parts)
        counts = np.bincount(bins, minlength=parts)
        fit = stats.chisquare(counts, sizes * (len(ranks) / members))
        assert fit.pvalue > 1e-4, (band, counts)


@pytest.mark.parametrize("seed", [0, 7])
def test_filling_a_band_from_other_records_hardly_bends_it(seed: int) -> None:
    # the worst case: with 3,000 excerpts one neuron in ten is filled from its top records
    excerpts, neurons = 3000, 600
    maxima = np.random.default_rng(0).permuted(
        np.tile(np.arange(excerpts, dtype=np.float32), (neurons, 1)), axis=1
    )
    sample = Stream(maxima, seed).sample()
    first, last = np.ceil(0.99 * (excerpts - 1)), np.floor(0.999 * (excerpts - 1))
    upper = (sample.maxima[:, 3].numpy() - first) / (last - first) > 0.5
    assert abs(upper.mean() - 0.5) < 0.06


def test_neurons_with_the_same_activations_get_different_records() -> None:
    row = np.random.default_rng(0).normal(size=800).astype(np.float32)
    keys = Stream(np.tile(row, (50, 1))).sample().keys
    positions = positions_of(keys).numpy()[:, 0]  # the lower half: 400 excerpts
    shared = [len(np.intersect1d(positions[0], other)) for other in positions[1:]]
    assert np.mean(shared) < 0.5


def test_quantiles_of_a_part_are_used_where_memory_does_not_suffice() -> None:
    stream = _stream("normal", 5000, remembered=2000)
    sample = stream.sample()
    ranks = (stream.maxima[:, None, :] <= sample.boundaries[:, :, None]).mean(2)
    np.testing.assert_allclose(ranks, np.tile(QUANTILES, (60, 1)), atol=0.06)
    edges = np.pad(sample.boundaries, ((0, 0), (1, 1)))
    edges[:, 0], edges[:, -1] = -np.inf, np.inf
    present = sample.keys.numpy() != EMPTY
    inside = (sample.maxima.numpy() >= edges[:, :-1, None]) & (
        sample.maxima.numpy() <= edges[:, 1:, None]
    )
    assert inside[present].all()


@pytest.mark.parametrize(("top", "per_band"), [(4, 5), (20, 1), (4, 0)])
def test_bands_may_be_larger_or_smaller_than_the_top(top: int, per_band: int) -> None:
    stream = _stream("normal", 300, top=top, per_band=per_band)
    sample = stream.sample()
    assert sample.keys.shape == (60, len(BANDS), per_band)
    assert (sample.keys[:, :3] != EMPTY).all()
