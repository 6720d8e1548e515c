"""Explanations with missing and with added concepts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.records import TokenTable
from neuron_explainer.score.degraded import added_concepts, has_concepts, missing_concepts

VOCABULARY = tuple(f"t{place}".encode() for place in range(50))


def table(levels: dict[int, float], otherwise: float = 0.5) -> TokenTable:
    return TokenTable(
        (None,) * len(levels),
        tuple(VOCABULARY[token] for token in levels),
        tuple(levels.values()),
        (0.0,) * len(levels),
        otherwise,
    )


levels = st.dictionaries(st.integers(0, 49), st.floats(-1.0, 10.0), min_size=2, max_size=20)


@given(levels, st.integers(0, 1000))
def test_half_of_the_loud_rows_are_left_out_and_no_other(
    found: dict[int, float], seed: int
) -> None:
    whole = table(found)
    if not has_concepts(whole):
        return
    less = missing_concepts(whole, np.random.default_rng(seed))
    loud = [
        token for token, level in zip(whole.tokens, whole.activations, strict=True) if level > 0.5
    ]
    gone = set(whole.tokens) - set(less.tokens)
    assert gone <= set(loud)
    assert len(gone) == len(loud) // 2 > 0
    kept = dict(zip(less.tokens, less.activations, strict=True))
    assert kept.items() <= dict(zip(whole.tokens, whole.activations, strict=True)).items()


@given(levels, st.integers(0, 1000))
def test_added_tokens_are_new_and_about_as_frequent(found: dict[int, float], seed: int) -> None:
    whole = table(found)
    if not has_concepts(whole):
        return
    counts = np.random.default_rng(seed).integers(1, 100, len(VOCABULARY))
    more = added_concepts(whole, VOCABULARY, counts, np.random.default_rng(seed))
    assert more.tokens[: len(whole.tokens)] == whole.tokens
    new = more.tokens[len(whole.tokens) :]
    assert len({*new} | {*whole.tokens}) == len(more.tokens)
    loud = {
        token: level
        for token, level in zip(whole.tokens, whole.activations, strict=True)
        if level > 0.5
    }
    count = dict(zip(VOCABULARY, counts.tolist(), strict=True))
    wanted = sum(count[token] for token in loud)
    assert sum(count[token] for token in new[:-1]) < wanted
    assert all(count[token] <= wanted for token in new)
    assert set(more.activations[len(whole.tokens) :]) <= set(loud.values())


def test_the_same_seed_degrades_alike() -> None:
    whole = table(dict(zip(range(20), np.linspace(1, 9, 20).tolist(), strict=True)))
    first, second = (missing_concepts(whole, np.random.default_rng(7)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("found", [{}, {3: 4.0}, {1: 0.2, 2: -1.0}])
def test_without_two_loud_rows_there_is_nothing_to_check(found: dict[int, float]) -> None:
    assert not has_concepts(table(found))
