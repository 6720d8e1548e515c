"""Which tokens of the token table are shown."""

from dataclasses import replace

import numpy as np
import pytest
from canned_llm import CannedLLM, rows
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.explain.token_space import TokenSpace, entries_of, strongest
from neuron_explainer.few_shot import load_few_shot


def test_a_rare_token_does_not_go_before_one_that_always_fires() -> None:
    table = rows((b"often", 5.0, 500), (b"once", 6.0, 1))
    assert [token for token, _ in strongest(table, 2, support=5)] == [b"often", b"once"]
    assert [token for token, _ in strongest(table, 2, support=0)] == [b"once", b"often"]


def test_levels_are_relative_to_the_strongest_token_and_silent_ones_are_left_out() -> None:
    table = rows((b"half", 3.0, 100), (b"full", 6.0, 100), (b"low", 0.5, 100), (b"no", -1.0, 100))
    assert strongest(table, 9, support=0) == [(b"full", 10), (b"half", 5)]
    assert strongest(table, 1, support=0) == [(b"full", 10)]


@given(st.floats(0.0625, 100.0, width=32), st.integers(1, 10_000), st.integers(0, 9))
def test_the_strongest_token_is_always_at_the_top_of_the_scale(
    mean: float, count: int, support: int
) -> None:
    assert strongest(rows((b"a", mean, count)), 1, support) == [(b"a", 10)]


def test_rows_after_another_token_and_the_row_of_all_others_are_no_tokens() -> None:
    assert strongest(rows((b"a", 9.0, 9), previous=b"b"), 5, support=0) == []
    pooled = replace(rows((b"a", 9.0, 9)), token=np.array([-1], np.int32))
    assert strongest(pooled, 5, support=0) == []


@pytest.mark.parametrize("neuron", load_few_shot(), ids=lambda neuron: neuron.label)
def test_an_example_lists_exactly_the_tokens_that_it_fires_on(neuron: object) -> None:
    example = next(known for known in load_few_shot() if known is neuron)
    if example.inside:
        return  # it has no tokens of its own, and is not shown
    entries = entries_of(example)
    assert {token.decode() for token, _ in entries} == set(example.fires)
    assert [level for _, level in entries] == sorted((level for _, level in entries), reverse=True)


def test_examples_that_have_no_tokens_of_their_own_are_not_shown() -> None:
    question = TokenSpace(llm=CannedLLM(), few_shot=99).question([(b"a", 10)])
    shown = {example.answer for example in question.examples}
    assert shown == {known.explanation for known in load_few_shot() if not known.inside}
