"""Moments, density and histogram against scipy in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.collect.moments import MomentAccumulator, Moments
from neuron_explainer.histogram import HISTOGRAM_EDGES

Floats = NDArray[np.float32]


def _moments(rows: Floats, sizes: list[int] | None = None) -> Moments:
    accumulator = MomentAccumulator(rows.shape[1])
    for part in np.split(rows, np.cumsum(sizes)) if sizes else [rows]:
        accumulator.update(torch.from_numpy(np.ascontiguousarray(part)))
    return accumulator.result()


def _check(moments: Moments, rows: Floats, relative: float = 1e-4) -> None:
    exact = rows.astype(np.float64)
    assert moments.tokens == len(rows)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=relative, atol=relative * 1e-2)
    np.testing.assert_allclose(moments.variance, exact.var(0), rtol=relative)
    # near zero a relative error says nothing: one of the standard normal's own size does
    skewness, kurtosis = stats.skew(exact, axis=0), stats.kurtosis(exact, axis=0, fisher=False)
    np.testing.assert_allclose(moments.skewness, skewness, rtol=relative, atol=relative)
    np.testing.assert_allclose(moments.kurtosis, kurtosis, rtol=relative)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "name", ["normal", "gelu", "sparse", "heavy-tailed", "small", "large", "skewed"]
)
def test_moments_are_those_of_scipy(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(20_000, 5))
    rows = {
        "normal": normal,
        "gelu": normal * stats.norm.cdf(normal),
        "sparse": np.where(rng.random(normal.shape) < 0.001, rng.exponential(size=normal.shape), 0),
        "heavy-tailed": rng.standard_t(5, normal.shape),
        "small": 1e-4 * normal,
        "large": 1e4 * normal,
        "skewed": np.exp(normal),
    }[name].astype(np.float32)
    _check(_moments(rows), rows)


def test_a_large_mean_and_a_small_deviation_lose_nothing() -> None:
    rows = np.random.default_rng(0).normal(1000.0, 0.01, (50_000, 4)).astype(np.float32)
    _check(_moments(rows, [7, 100, 3000]), rows)


def test_a_first_batch_unlike_the_rest_loses_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = rng.gamma(2.0, 0.5, (50_000, 4)).astype(np.float32)
    rows[:40] = rng.normal(3.0, 0.1, (40, 4))
    _check(_moments(rows, [40, 1000]), rows)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 400), max_size=6), st.integers(0, 1000))
def test_the_size_of_batches_does_not_matter(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.gamma(0.3, size=(sum(sizes) + 50, 3)).astype(np.float32)
    _check(_moments(rows, sizes), rows)


def test_a_constant_has_no_skewness_and_no_kurtosis() -> None:
    for value in (0.0, 3.0, -1e-7):
        moments = _moments(np.full((1000, 2), value, np.float32), [10, 500])
        np.testing.assert_allclose(moments.mean, value)
        assert (moments.variance == 0).all()
        assert np.isnan(moments.skewness).all()
        assert np.isnan(moments.kurtosis).all()


def test_what_single_precision_cannot_hold_is_undefined_and_not_wrong() -> None:
    rows = 1e-12 * np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    moments = _moments(rows)
    np.testing.assert_allclose(moments.variance, rows.astype(np.float64).var(0), rtol=1e-4)
    assert np.isnan(moments.kurtosis).all()


def test_nothing_has_no_tokens_and_warns_of_nothing() -> None:
    moments = MomentAccumulator(3).result()
    assert moments.tokens == 0
    assert moments.histogram.sum() == 0


# values on bin edges, next to them, and far outside
_EDGE_VALUES = st.sampled_from(
    [
        *(float(edge) for edge in HISTOGRAM_EDGES[::9]),
        *(float(np.nextafter(np.float32(edge), np.float32(9e9))) for edge in HISTOGRAM_EDGES[::9]),
        -0.0,
        0.0,
        -3.0,
        1e-45,
        1e-30,
        65504.0,
        3e30,
    ]
)


@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.just(2)),
        elements=_EDGE_VALUES | st.floats(-10, 10, width=32),
    )
)
def test_density_and_histogram_are_exact(rows: Floats) -> None:
    with np.errstate(all="ignore"):  # 3e30 has no fourth power in single precision
        histogram = _moments(rows).histogram
    for neuron in range(2):
        values = rows[:, neuron].astype(np.float64)
        bins = np.searchsorted(HISTOGRAM_EDGES, values, side="left") + 1
        bins = np.where(values <= 0, 0, np.minimum(bins, len(HISTOGRAM_EDGES)))
        np.testing.assert_array_equal(
            histogram[neuron], np.bincount(bins, minlength=len(HISTOGRAM_EDGES) + 1)
        )


def test_density_is_the_share_of_positive_tokens() -> None:
    rows = np.array([[0.0, 1e-45], [-0.0, 1.0], [2.0, -1.0], [-5.0, 3.0]], np.float32)
    assert _moments(rows).density.tolist() == [0.25, 0.75]
