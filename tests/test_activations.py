"""Normalisation, expected activations, and reading an echoed prompt."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.activations import (
    NO_VALID_NUMBER,
    distributions_at_unknown,
    expected_activation,
    maximum_activation,
    non_zero_share,
    normalise,
)
from neuron_explainer.errors import NeuronFailure

ACTIVATIONS = st.lists(st.floats(-1e6, 1e6), max_size=20)


@given(ACTIVATIONS, st.floats(-1.0, 1e6))
def test_levels_are_whole_numbers_from_0_to_10(values: list[float], maximum: float) -> None:
    levels = normalise(values, maximum)
    assert levels.dtype == np.int64
    assert all(0 <= level <= 10 for level in levels)


@given(ACTIVATIONS)
def test_levels_never_decrease_with_the_activation(values: list[float]) -> None:
    levels = normalise(sorted(values), 3.7)
    assert list(levels) == sorted(levels)


def test_the_maximum_itself_is_ten_and_half_of_it_five() -> None:
    assert normalise([7.62, 3.81], 7.62).tolist() == [10, 5]


def test_a_maximum_next_to_nothing_is_no_special_case() -> None:
    assert normalise([1e6, 5e-324, 0.0], 5e-324).tolist() == [10, 10, 0]


def test_single_precision_is_normalised_in_double_precision() -> None:
    assert normalise(np.array([5.334], dtype=np.float32), 7.62).tolist() == [7]
    assert normalise(np.array([5.334]), 7.62).tolist() == [6]


def test_the_maximum_of_nothing_is_zero() -> None:
    assert maximum_activation([]) == 0.0
    assert maximum_activation([np.array([])]) == 0.0


def test_small_activations_count_as_zero_in_the_share() -> None:
    assert non_zero_share([np.array([0.05, 0.5]), np.array([1.0, -1.0])], 1.0) == 0.5
    assert non_zero_share([], 1.0) == 0.0


@given(st.dictionaries(st.sampled_from([str(n) for n in range(11)]), st.floats(-2000, 0)))
def test_probabilities_add_up_or_nothing_is_expected(logs: dict[str, float]) -> None:
    distribution = expected_activation(logs)
    if not logs:
        assert distribution == NO_VALID_NUMBER
        return
    assert math.fsum(distribution.probabilities) == pytest.approx(1.0)
    assert list(distribution.values) == sorted(distribution.values)
    assert distribution.expected is not None
    assert 0.0 <= distribution.expected <= 10.0


@pytest.mark.parametrize("text", [" 7", "03", "11", "3.0", "-1", "unknown", "٣", ""])
def test_only_the_exact_numbers_count(text: str) -> None:
    assert expected_activation({text: -0.1}) == NO_VALID_NUMBER
    assert expected_activation({text: -0.1, "3": -5.0}).expected == 3.0


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_number_without_mass_is_no_answer(value: float) -> None:
    assert expected_activation({"4": value}) == NO_VALID_NUMBER


def test_ten_as_two_tokens_is_covered_by_the_product() -> None:
    one, then_zero = 0.5, 0.8
    logs = {
        "0": math.log(0.5),
        "1": math.log(one * (1 - then_zero)),
        "10": math.log(one * then_zero),
    }
    assert expected_activation(logs).expected == pytest.approx(0.1 + 4.0)


Top = dict[str, float] | None


def _echo(lines: list[list[str]], before: str = "") -> tuple[list[str], list[Top]]:
    """An echoed prompt: the tokens of each line; the i-th `unknown` of the block says i."""
    tokens = [before, "<start>", "\n"]
    tops: list[Top] = [None, {"9": 0.0}, {"9": 0.0}]
    for number, line in enumerate(lines):
        tokens += [*line, "\t", "unknown", "\n"]
        tops += [{"9": 0.0}] * (len(line) + 1) + [{str(number): 0.0}, {"9": 0.0}]
    return [*tokens, "<end>"], [*tops, {"9": 0.0}]


def _expected(tokens: list[str], tops: list[Top], subject: list[str]) -> list[float | None]:
    found = distributions_at_unknown(tokens, tops, subject)
    return [None if item is None else item.expected for item in found]


def test_every_token_is_read_at_its_own_unknown() -> None:
    tokens, tops = _echo([[" a"], [" cat", "er"], [" a"]])
    assert _expected(tokens, tops, [" a", " cater", " a"]) == [0.0, 1.0, 2.0]


def test_only_the_last_block_is_read() -> None:
    tokens, tops = _echo([["x"]], before="<start>\nx\tunknown\n<end>\n")
    assert _expected(tokens, tops, ["x"]) == [0.0]


def test_a_damaged_token_does_not_lose_its_neighbours() -> None:
    tokens, tops = _echo([["a"], ["�"], ["c"], ["d"]])
    assert _expected(tokens, tops, ["a", "b", "c", "d"]) == [0.0, None, 2.0, 3.0]


def test_a_dropped_token_does_not_shift_its_neighbours() -> None:
    tokens, tops = _echo([["a"], ["c"], ["d"]])
    assert _expected(tokens, tops, ["a", "b", "c", "d"]) == [0.0, None, 1.0, 2.0]


def test_tokens_that_look_like_markup_are_read() -> None:
    subject = ["<end>", "<start>", "unknown", ""]
    tokens, tops = _echo([[token] if token else [] for token in subject])
    assert _expected(tokens, tops, subject) == [0.0, 1.0, 2.0, 3.0]


def test_tokens_with_newlines_and_tabs_are_read() -> None:
    subject = ["a\nb", "\n", "\t"]
    tokens, tops = _echo([[token] for token in subject])
    assert _expected(tokens, tops, subject) == [0.0, 1.0, 2.0]


def test_an_unknown_that_does_not_begin_a_token_is_undefined() -> None:
    tokens = ["<start>\n", "a", "\tunknown", "\n", "b", "\t", "un", "known", "\n<end>"]
    number: Top = {"1": 0.0}
    tops = [*[number] * 6, {"2": 0.0}, {"3": 0.0}, None]
    assert _expected(tokens, tops, ["a", "b"]) == [None, 2.0]


def test_without_a_block_everything_is_undefined() -> None:
    assert _expected(["nothing", " here"], [None, None], ["a", "b"]) == [None, None]


def test_a_missing_distribution_is_none_and_an_empty_one_is_undefined() -> None:
    tokens, tops = _echo([["a"], ["b"]])
    tops[tokens.index("unknown")] = None
    tops[-3] = {"not a number": 0.0}
    assert distributions_at_unknown(tokens, tops, ["a", "b"]) == [None, NO_VALID_NUMBER]


def test_offsets_are_used_where_tokens_do_not_spell_the_text() -> None:
    text = "<start>\né\tunknown\nb\tunknown\n<end>"
    tokens = [
        "<start>\n",
        "bytes:\\xc3",
        "bytes:\\xa9",
        "\t",
        "unknown",
        "\n",
        "b",
        "\t",
        "unknown",
    ]
    tops: list[Top] = [None, None, None, None, {"4": 0.0}, None, None, None, {"5": 0.0}]
    offsets = [0, 8, 9, 9, 10, 17, 18, 19, 20]
    found = distributions_at_unknown(tokens, tops, ["é", "b"], text=text, text_offsets=offsets)
    assert [item and item.expected for item in found] == [4.0, 5.0]
    shifted = [offset + 1 for offset in offsets]
    wrong = distributions_at_unknown(tokens, tops, ["é", "b"], text=text, text_offsets=shifted)
    assert wrong == [None, None]


def test_lists_of_different_length_are_a_malformed_reply() -> None:
    with pytest.raises(NeuronFailure, match="2 tokens, 1 distributions") as caught:
        distributions_at_unknown(["a", "b"], [None], ["a"])
    assert caught.value.cause == "malformed-reply"
