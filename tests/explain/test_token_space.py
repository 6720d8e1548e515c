"""Which tokens of the token table are shown."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from canned_llm import CannedLLM, rivers, rows, writing_rivers
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.explain.token_space import Lists, Source, TokenSpace, entries_of, strongest
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
    question = TokenSpace(llm=CannedLLM(), few_shot=99).question(Lists([(b"a", 10)]))
    shown = {example.answer for example in question.examples}
    assert shown == {known.explanation for known in load_few_shot() if not known.inside}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("table", Lists([(b" Danube", 10), (b" Oder", 7), (b" ship", 1)])),
        ("promoted", Lists([], [b" flows", b"bank", b"\n"], [b" dry", b" desk"])),
        (
            "both",
            Lists(
                [(b" Danube", 10), (b" Oder", 7), (b" ship", 1)],
                [b" flows", b"bank", b"\n"],
                [b" dry", b" desk"],
            ),
        ),
    ],
)
def test_the_source_says_which_tokens_are_shown(source: Source, expected: Lists) -> None:
    found = TokenSpace(llm=CannedLLM(), source=source).lists(writing_rivers())
    for shown in ("fires", "promoted", "suppressed"):
        assert list(getattr(found, shown)) == list(getattr(expected, shown))
    few = TokenSpace(llm=CannedLLM(), source=source, promoted=1, suppressed=0)
    assert list(few.lists(writing_rivers()).promoted) == list(expected.promoted[:1])
    assert not few.lists(writing_rivers()).suppressed


def test_without_effects_both_is_the_table_and_promoted_alone_is_a_failure() -> None:
    table = TokenSpace(llm=CannedLLM()).question(TokenSpace(llm=CannedLLM()).lists(rivers()))
    both = TokenSpace(llm=CannedLLM(), source="both")
    question = both.question(both.lists(rivers()))
    assert (question.system, question.examples) == (table.system, table.examples)
    assert question.about(99) == table.about(99)
    with pytest.raises(NeuronFailure) as caught:
        TokenSpace(llm=CannedLLM(), source="promoted").lists(rivers())
    assert caught.value.cause == "no-logit-effects"


def test_promoted_alone_needs_no_token_table_and_both_does() -> None:
    about = replace(writing_rivers(), token_rows=None)
    assert TokenSpace(llm=CannedLLM(), source="promoted").lists(about).promoted
    with pytest.raises(NeuronFailure) as caught:
        TokenSpace(llm=CannedLLM(), source="both").lists(about)
    assert caught.value.cause == "no-token-table"


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="source is 'all': choose table, promoted, both"):
        TokenSpace(llm=CannedLLM(), source="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("source", get_args(Source))
def test_examples_have_the_form_of_the_question(source: Source) -> None:
    explainer = TokenSpace(llm=CannedLLM(), source=source, few_shot=99)
    question = explainer.question(explainer.lists(writing_rivers()))
    headings = [part.split("\n")[0] for part in question.about(99).split("\n\n")]
    assert question.examples
    for example in question.examples:
        parts = [part.split("\n") for part in example.question.split("\n\n")]
        assert [part[0] for part in parts] == headings
    answers = {example.answer for example in question.examples}
    if source == "promoted":
        assert answers == {known.effect for known in load_few_shot()}
    else:
        assert answers == {known.explanation for known in load_few_shot() if not known.inside}


def test_suppressed_tokens_are_dropped_before_promoted_and_these_before_those_that_fire() -> None:
    lists = Lists([(b"a", 10), (b"b", 4)], [b"c", b"d"], [b"e"])
    assert len(lists) == 5
    assert lists.first(5) == lists
    assert lists.first(4) == Lists(lists.fires, [b"c", b"d"], [])
    assert lists.first(3) == Lists(lists.fires, [b"c"], [])
    assert lists.first(1) == Lists([(b"a", 10)], [], [])
