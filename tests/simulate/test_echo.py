"""Reading a prompt's own log probabilities, as a server gives them back."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import PLAIN, Oracle, Parrot

from neuron_explainer.activations import expected_activation
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import Choice, Logprobs
from neuron_explainer.records import Explanation, FloatArray, NeuronId, Stimulus
from neuron_explainer.simulate.all_at_once import AllAtOnceSimulator
from neuron_explainer.simulate.echo import at_marks, writes_ten_in_two
from neuron_explainer.simulate.readings import Columns, expected_levels, level_masses

Top = dict[str, float] | None


def _echo(rows: Sequence[Sequence[str]], before: str = "") -> Columns:
    """A block; the i-th ` unknown` says i. A row is its tokens up to the mark."""
    tokens, tops = [before, "<start>\n"], [None, {"9": 0.0}]
    for number, row in enumerate(rows):
        tokens += [*row, "\t", " unknown", "\n"]
        tops += [{"9": 0.0}] * (len(row) + 1) + [{str(number): 0.0}, {"9": 0.0}]
    return Columns(Logprobs([*tokens, "<end>"], [None] * (len(tokens) + 1), [*tops, {"9": 0.0}]))


def _read(columns: Columns, rendered: Sequence[str]) -> list[float | None]:
    found = expected_levels(level_masses(at_marks(columns, rendered)))
    return [None if np.isnan(value) else float(value) for value in found]


def test_every_token_is_read_at_its_own_mark_in_the_last_block() -> None:
    columns = _echo([[" a"], [" c", "at"], [" a"]], before="<start>\nx\t unknown\n<end>\n")
    assert _read(columns, [" a", " cat", " a"]) == [0.0, 1.0, 2.0]


def test_damaged_characters_do_no_harm() -> None:
    assert _read(_echo([["a"], ["��"], ["c"]]), ["a", "é", "c"]) == [0.0, 1.0, 2.0]


def test_a_row_that_is_missing_is_undefined_and_shifts_no_other() -> None:
    assert _read(_echo([["a"], ["c"], ["d"]]), ["a", "b", "c", "d"]) == [0.0, None, 1.0, 2.0]


def test_an_unknown_that_begins_inside_a_token_is_undefined() -> None:
    tokens = ["<start>\n", "a", "\t unknown", "\n", "b", "\t", " un", "known", "\n<end>"]
    tops: list[Top] = [*[{"1": 0.0}] * 6, {"2": 0.0}, {"3": 0.0}, None]
    columns = Columns(Logprobs(tokens, [None] * 9, tops))
    assert _read(columns, ["a", "b"]) == [None, 2.0]


def test_special_tokens_without_text_are_passed_over() -> None:
    tokens = ["", "<start>\n", "a", "\t", "", " unknown", "\n<end>"]
    tops: list[Top] = [None, None, None, None, {"1": 0.0}, {"2": 0.0}, None]
    assert _read(Columns(Logprobs(tokens, [None] * 7, tops)), ["a"]) == [2.0]


def test_without_a_block_nothing_is_read() -> None:
    columns = Columns(Logprobs(["x", "y"], [None, None], [None, {"1": 0.0}]))
    assert _read(columns, ["a"]) == [None]


@pytest.mark.parametrize(
    ("tokens", "found", "in_two"),
    [
        (["a\t", "10", "\n"], [{"1": 0.0}], False),
        (["a\t", "1", "0", "\n"], [{"10": 0.0}], True),
        (["a"], [{"1": 0.0}, None], True),
        (["a"], [{"1": 0.0}, {"10": -9.0}], False),
    ],
)
def test_how_ten_is_written_is_told_by_the_examples_or_else_by_the_alternatives(
    tokens: list[str], found: list[Top], in_two: bool
) -> None:
    columns = Columns(Logprobs(tokens, [None] * len(tokens), [None] * len(tokens)))
    assert writes_ten_in_two(columns, found) is in_two


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*map(str, range(12)), " 7", "03", "x"]),
            st.floats(-2000, 0) | st.just(float("nan")) | st.just(float("-inf")),
        )
        | st.none(),
        max_size=6,
    )
)
def test_many_places_are_read_as_one_by_one(tops: list[Top]) -> None:
    found = expected_levels(level_masses(tops))
    single = [expected_activation(top or {}).expected for top in tops]
    expected = [np.nan if value is None else value for value in single]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def _simulate(simulator: AllAtOnceSimulator, *tokens: bytes) -> FloatArray:
    explanation = Explanation(NeuronId("tiny", "blocks.0.mlp.hook_post", 3), "test", "x")
    stimulus = Stimulus(tokens, np.ones(len(tokens), np.bool_))
    (made,) = asyncio.run(simulator.simulate(explanation, [stimulus]))
    return made.activations


def _level(token: bytes, before: bytes) -> int:
    return {b"ten": 10, b"one": 1}.get(token, 0)


def test_one_and_ten_are_told_apart_by_one_request_more_where_one_is_likely() -> None:
    llm = Oracle({"x": _level}, PLAIN, sure=1.0, ten_in_two=True)
    values = _simulate(AllAtOnceSimulator(llm), b"a", b"ten", b"b", b"one")
    np.testing.assert_allclose(values, [0.0, 10.0, 0.0, 1.0], atol=1e-6)
    first, *more = (str(request.prompt) for request in llm.requests)
    assert len(more) == 2
    assert all(first.startswith(prompt[:-1]) for prompt in more)


def test_what_cannot_be_told_apart_is_undefined() -> None:
    can = replace(PLAIN, top_logprobs=0)
    llm = Oracle({"x": _level}, can, sure=1.0, ten_in_two=True)
    values = _simulate(AllAtOnceSimulator(llm), b"a", b"ten", b"b", b"one")
    np.testing.assert_allclose(values, [0.0, np.nan, 0.0, np.nan])


@pytest.mark.parametrize(
    "choice",
    [
        Choice("", "length"),
        Choice("", "length", prompt=Logprobs([], [], [])),
        Choice("", "length", prompt=Logprobs(["<start>\na\t", " unknown"], [None] * 2, [None] * 2)),
        Choice("", "length", prompt=Logprobs(["x"], [None], [{"5": 0.0}])),
    ],
)
def test_a_reply_without_any_number_fails_the_neuron(choice: Choice) -> None:
    with pytest.raises(NeuronFailure, match="no number from 0 to 10") as caught:
        _simulate(AllAtOnceSimulator(Parrot([choice], PLAIN)), b"a")
    assert caught.value.cause == "no-valid-number"
