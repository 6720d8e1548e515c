"""Simulators that need no language model."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.records import (
    Explanation,
    FloatArray,
    NeuronId,
    Stimulus,
    TokenTable,
)
from neuron_explainer.simulate.base import Simulator
from neuron_explainer.simulate.lookup import LookupSimulator
from neuron_explainer.simulate.nulls import ConstantSimulator, ShuffledSimulator

TABLE = TokenTable(
    (b" New", None, None),
    (b" York", b" York", b" a"),
    (9.0, 5.0, 1.0),
    (0.5, 0.4, 0.1),
    0.25,
)


def _explanation(table: TokenTable | None = TABLE) -> Explanation:
    return Explanation(NeuronId("tiny", "blocks.0.mlp.hook_post", 3), "token-lookup", "…", table)


def _stimulus(*tokens: bytes) -> Stimulus:
    return Stimulus(tokens, np.ones(len(tokens), np.bool_))


def _simulate(
    simulator: Simulator, stimuli: Sequence[Stimulus], table: TokenTable | None = TABLE
) -> list[FloatArray]:
    made = asyncio.run(simulator.simulate(_explanation(table), stimuli))
    return [simulation.activations for simulation in made]


def test_a_row_after_a_token_goes_before_the_tokens_own_and_the_rest_is_otherwise() -> None:
    stimulus = _stimulus(b" New", b" York", b" a", b" York", b" New", b"?")
    (values,) = _simulate(LookupSimulator(), [stimulus])
    np.testing.assert_array_equal(values, np.array([0.25, 9.0, 1.0, 5.0, 0.25, 0.25], np.float32))
    assert values.dtype == np.float32


def test_the_first_token_has_nothing_before_it() -> None:
    (values,) = _simulate(LookupSimulator(), [_stimulus(b" York")])
    np.testing.assert_array_equal(values, np.array([5.0], np.float32))


def test_a_row_after_a_token_says_nothing_after_another() -> None:
    table = TokenTable((b" New",), (b" York",), (9.0,), (1.0,), 0.5)
    (values,) = _simulate(
        LookupSimulator(), [_stimulus(b" in", b" York", b" New", b" York")], table
    )
    np.testing.assert_array_equal(values, np.array([0.5, 0.5, 0.5, 9.0], np.float32))


def test_an_empty_table_predicts_the_same_everywhere() -> None:
    (values,) = _simulate(
        LookupSimulator(), [_stimulus(b"a", b"b")], TokenTable((), (), (), (), 2.0)
    )
    np.testing.assert_array_equal(values, np.array([2.0, 2.0], np.float32))


def test_an_explanation_without_a_table_cannot_be_looked_up() -> None:
    with pytest.raises(NeuronFailure, match="no token table") as caught:
        _simulate(LookupSimulator(), [_stimulus(b"a")], None)
    assert caught.value.cause == "no-table"


def test_the_constant_simulator_reads_neither_explanation_nor_text() -> None:
    long, short = _simulate(ConstantSimulator(), [_stimulus(b"a", b"b"), _stimulus(b"c")], None)
    np.testing.assert_array_equal(long, [1.0, 1.0])
    np.testing.assert_array_equal(short, [1.0])


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=60, unique=True), st.integers(0, 9))
def test_no_neuron_is_shuffled_onto_itself_and_none_is_left_out(
    neurons: list[int], seed: int
) -> None:
    assigned = ShuffledSimulator().assign(neurons, seed)
    assert set(assigned) == set(assigned.values()) == set(neurons)
    assert all(neuron != source for neuron, source in assigned.items())


def test_shuffling_is_the_same_for_the_same_seed_and_differs_for_another() -> None:
    neurons = list(range(100))
    shuffled = ShuffledSimulator()
    assert shuffled.assign(neurons, 3) == shuffled.assign(neurons, 3)
    assert shuffled.assign(neurons, 3) != shuffled.assign(neurons, 4)


@pytest.mark.parametrize("neurons", [[], [7]])
def test_with_fewer_than_two_neurons_there_is_nothing_to_shuffle(neurons: list[int]) -> None:
    assert ShuffledSimulator().assign(neurons, 0) == {neuron: neuron for neuron in neurons}


def test_shuffled_predicts_as_the_simulator_that_it_stands_for() -> None:
    stimulus = _stimulus(b" York", b" a")
    shuffled, own = (
        _simulate(simulator, [stimulus]) for simulator in (ShuffledSimulator(), LookupSimulator())
    )
    np.testing.assert_array_equal(shuffled, own)
    (ones,) = _simulate(ShuffledSimulator(of="constant"), [stimulus])
    np.testing.assert_array_equal(ones, [1.0, 1.0])


def test_shuffling_an_unknown_simulator_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'token-lookup'"):
        _simulate(ShuffledSimulator(of="token-lokup"), [_stimulus(b"a")])
