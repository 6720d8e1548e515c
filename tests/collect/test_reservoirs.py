"""Top and random records against keeping everything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.collect.dense import DenseRows
from neuron_explainer.collect.reservoirs import (
    EMPTY,
    Reservoir,
    Reservoirs,
    activation_keys,
    positions_of,
    priority_keys,
)

Floats = NDArray[np.float32]

# few values, so that ties are frequent; minus zero must tie with zero
_VALUES = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 1e-30, 0.5, 3.0, 6e4])
_ACTIVATIONS = st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 3)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=_VALUES)
)  # (neurons, excerpts, time)


def _filled(activations: Floats, order: NDArray[np.int64], batch: int, capacity: int) -> Reservoir:
    neurons, excerpts, time = activations.shape
    reservoirs = Reservoirs(neurons, (capacity,), time)
    for first in range(0, excerpts, batch):
        positions = torch.from_numpy(order[first : first + batch])
        rows = torch.from_numpy(activations[:, positions.numpy()]).permute(
            1, 2, 0
        )  # (batch, time, neuron)
        maxima = rows.amax(1).T.contiguous()
        _offer(reservoirs, activation_keys(maxima, positions), positions, maxima, rows)
    (reservoir,) = reservoirs.each
    reservoir.sort()
    return reservoir


def _offer(
    reservoirs: Reservoirs,
    keys: torch.Tensor,
    positions: torch.Tensor,
    maxima: torch.Tensor,
    rows: torch.Tensor,
) -> None:
    offers = reservoirs.offers(keys[None])
    reservoirs.weigh(offers, positions, maxima, DenseRows(rows))()


def _brute_force(maxima: Floats, capacity: int) -> NDArray[np.int64]:
    """Positions by falling maximum, the earlier first in a tie; -1 where there are too few."""
    ranked = [sorted(range(len(row)), key=lambda at: (-row[at], at)) for row in maxima]
    padded = [(row + [-1] * capacity)[:capacity] for row in ranked]
    return np.array(padded, np.int64)


@settings(deadline=None)
@given(_ACTIVATIONS, st.integers(1, 7), st.integers(1, 12), st.integers(0, 99))
def test_top_records_are_those_of_keeping_everything(
    activations: Floats, batch: int, capacity: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(activations.shape[1])
    reservoir = _filled(activations, order, batch, capacity)
    expected = _brute_force(activations.max(2), capacity)
    positions = reservoir.positions.numpy()
    np.testing.assert_array_equal(positions, expected)
    for neuron, row in enumerate(expected):
        held = row[row >= 0]
        np.testing.assert_array_equal(
            reservoir.activations[neuron, : len(held)], activations[neuron, held]
        )
        np.testing.assert_array_equal(
            reservoir.maxima[neuron, : len(held)], activations[neuron, held].max(1)
        )


@settings(deadline=None)
@given(hnp.arrays(np.float32, 20, elements=st.floats(width=32, allow_nan=False)))
def test_keys_order_as_their_floats_do_and_then_by_position(maxima: Floats) -> None:
    keys = activation_keys(torch.from_numpy(maxima[None]), torch.arange(20))[0].tolist()
    assert len(set(keys)) == 20
    for first in range(20):
        for second in range(first + 1, 20):
            # of two equal ones the earlier ranks higher
            assert (keys[first] > keys[second]) == (maxima[first] >= maxima[second])
    assert min(keys) > EMPTY


def test_minus_zero_ties_with_zero() -> None:
    maxima = torch.tensor([[-0.0, 0.0, -0.0]])
    keys = activation_keys(maxima, torch.arange(3))
    assert positions_of(keys.sort(1, descending=True).values).tolist() == [[0, 1, 2]]


def test_a_nan_ranks_highest_so_that_it_cannot_hide() -> None:
    keys = activation_keys(torch.tensor([[torch.inf, torch.nan, 1.0]]), torch.arange(3))
    assert int(keys.argmax()) == 1


def test_a_shorter_batch_leaves_no_values_of_the_record_that_it_replaces() -> None:
    reservoirs = Reservoirs(1, (1,), 4)
    for rank, rows in ((1, torch.ones(1, 4, 1)), (2, torch.full((1, 2, 1), 2.0))):
        keys, maxima = torch.tensor([[rank]]), torch.tensor([[float(rank)]])
        _offer(reservoirs, keys, torch.tensor([7]), maxima, rows)
    assert reservoirs.each[0].activations.tolist() == [[[2.0, 2.0, 0.0, 0.0]]]


def test_empty_keys_are_not_taken() -> None:
    reservoirs = Reservoirs(1, (3,), 1)
    keys, maxima = torch.tensor([[EMPTY, 7, EMPTY]]), torch.tensor([[1.0, 2.0, 3.0]])
    _offer(reservoirs, keys, torch.tensor([4, 5, 6]), maxima, torch.ones(3, 1, 1))
    (reservoir,) = reservoirs.each
    reservoir.sort()
    assert reservoir.order.tolist() == [[7, EMPTY, EMPTY]]
    assert reservoir.positions.tolist() == [[5, -1, -1]]


def test_a_reservoir_of_no_capacity_stays_empty() -> None:
    reservoirs = Reservoirs(2, (0, 1), 1)
    orders = torch.tensor([[[1], [2]], [[3], [4]]])
    where, rows = torch.tensor([5]), DenseRows(torch.zeros(1, 1, 2))
    reservoirs.weigh(reservoirs.offers(orders), where, torch.zeros(2, 1), rows)()
    none, one = reservoirs.each
    none.sort()
    assert none.order.shape == (2, 0)
    assert one.order.tolist() == [[3], [4]]


@settings(deadline=None)
@given(_ACTIVATIONS, st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(1, 9))
def test_reservoirs_filled_together_are_those_filled_alone(
    activations: Floats, capacities: list[int], batch: int
) -> None:
    neurons, excerpts, time = activations.shape
    together = Reservoirs(neurons, capacities, time)
    alone = [Reservoirs(neurons, (capacity,), time) for capacity in capacities]
    for first in range(0, excerpts, batch):
        positions = torch.arange(first, min(excerpts, first + batch))
        rows = torch.from_numpy(activations[:, positions.numpy()]).permute(1, 2, 0)
        maxima = rows.amax(1).T.contiguous()
        keys = [priority_keys(seed, neurons, positions) for seed in range(len(capacities))]
        offers = together.offers(torch.stack(keys))
        together.weigh(offers, positions, maxima, DenseRows(rows))()
        for reservoirs, own in zip(alone, keys, strict=True):
            _offer(reservoirs, own, positions, maxima, rows)
    for one, reservoirs in zip(together.each, alone, strict=True):
        (other,) = reservoirs.each
        _assert_equal(one, other)


def _assert_equal(one: Reservoir, other: Reservoir) -> None:
    one.sort()
    other.sort()
    for name, held in one.state().items():
        assert torch.equal(held, other.state()[name]), name


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_the_random_sample_is_a_function_of_the_seed_alone(batch: int) -> None:
    order = np.random.default_rng(batch).permutation(500)
    sampled = _random_sample(5, 20, order, seed=3, batch=batch)
    expected = priority_keys(3, 5, torch.arange(500)).topk(20, 1).values
    np.testing.assert_array_equal(sampled, positions_of(expected).numpy())
    assert not np.array_equal(sampled, _random_sample(5, 20, order, seed=4, batch=batch))


def _random_sample(
    neurons: int, capacity: int, order: NDArray[np.int64], seed: int, batch: int = 128
) -> NDArray[np.int64]:
    reservoirs = Reservoirs(neurons, (capacity,), 1)
    for first in range(0, len(order), batch):
        positions = torch.from_numpy(order[first : first + batch])
        keys = priority_keys(seed, neurons, positions)
        nothing = torch.zeros(neurons, len(positions))
        _offer(reservoirs, keys, positions, nothing, nothing.T[:, None, :])
    (reservoir,) = reservoirs.each
    reservoir.sort()
    sampled: NDArray[np.int64] = reservoir.positions.numpy()
    return sampled


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_every_excerpt_is_sampled_equally_often(seed: int) -> None:
    excerpts, neurons, capacity = 100, 4000, 20
    sampled = _random_sample(neurons, capacity, np.arange(excerpts), seed)
    counts = np.bincount(sampled.ravel(), minlength=excerpts)
    # a neuron samples without replacement: counts vary less than a multinomial's
    statistic = np.sum((counts - counts.mean()) ** 2) / counts.mean() / (1 - capacity / excerpts)
    assert 1e-4 < stats.chi2.sf(statistic, excerpts - 1) < 1 - 1e-4


@pytest.mark.parametrize("seed", [0, 5])
def test_neurons_are_sampled_independently_of_each_other(seed: int) -> None:
    excerpts, neurons, capacity = 200, 600, 20
    sampled = _random_sample(neurons, capacity, np.arange(excerpts), seed)
    member = np.zeros((neurons, excerpts))
    np.put_along_axis(member, sampled, 1.0, axis=1)
    for distance in (1, 2, 64, 256):
        shared = (member[distance:] * member[:-distance]).sum(1)
        exact = stats.hypergeom(excerpts, capacity, capacity)
        error = exact.std() / np.sqrt(len(shared))
        assert abs(shared.mean() - exact.mean()) < 4 * error
        assert abs(shared.var() / exact.var() - 1) < 0.3


def test_random_samples_of_two_seeds_are_independent() -> None:
    order = np.arange(200)
    one, other = (_random_sample(600, 20, order, seed) for seed in (0x51, 0xB4))
    shared = [len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True)]
    exact = stats.hypergeom(200, 20, 20)
    assert abs(np.mean(shared) - exact.mean()) < 4 * exact.std() / np.sqrt(600)


def test_the_random_sample_does_not_look_at_activations() -> None:
    keys = priority_keys(0, 3, torch.arange(9))
    samples = []
    for scale in (1.0, -50.0):
        reservoirs = Reservoirs(3, (4,), 1)
        values = torch.arange(27.0).view(9, 1, 3) * scale
        _offer(reservoirs, keys, torch.arange(9), values.amax(1).T.contiguous(), values)
        reservoirs.each[0].sort()
        samples.append(reservoirs.each[0].positions.tolist())
    assert samples[0] == samples[1]


def test_each_neuron_may_ask_for_its_own_positions() -> None:
    positions = torch.tensor([[0, 1, -1], [1, 0, 2]])
    keys = priority_keys(9, 2, positions)
    together = priority_keys(9, 2, torch.arange(3))
    assert keys[0].tolist() == [together[0, 0], together[0, 1], EMPTY]
    assert keys[1].tolist() == [together[1, 1], together[1, 0], together[1, 2]]
    assert positions_of(keys).tolist() == positions.tolist()
