"""Which records are shown, and at which levels."""

from dataclasses import replace

import numpy as np
import pytest
from canned_llm import neuron, record, rivers

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.explain.shown import choose, examples
from neuron_explainer.few_shot import load_few_shot
from neuron_explainer.records import NeuronRecord


def many() -> NeuronRecord:
    """Three train records and ten quantile ones, one held out; the maximum is the sequence."""
    top = [record([f"t{n}", "x"], [n, 0], sequence=n) for n in (20, 18, 16)]
    held_out = record(["held", "x"], [19, 0], "top", "valid", 19)
    quantile = [record([f"q{n}", "x"], [n, 0], "quantile", None, n) for n in range(1, 11)]
    return neuron(*top, held_out, *quantile)


def names(shown: tuple[object, ...]) -> list[bytes]:
    return [record.tokens[0] for record in shown]  # type: ignore[attr-defined]


def test_the_strongest_train_records_come_first_and_held_out_ones_never() -> None:
    shown = choose(many(), records=5, quantile=10, contrast=10)
    assert names(shown.firing)[:3] == [b"t20", b"t18", b"t16"]
    assert b"held" not in names(shown.firing + shown.contrast)


def test_levels_are_relative_to_the_largest_activation_shown() -> None:
    shown = choose(many(), records=3)
    assert [record.levels for record in shown.firing] == [(10, 0), (9, 0), (8, 0)]


def test_quantile_records_are_spread_over_the_range_and_drawn_with_a_seed() -> None:
    drawn = {tuple(names(choose(many(), 1, quantile=2, seed=seed).firing)[1:]) for seed in range(9)}
    assert len(drawn) > 1
    upper = {f"q{n}".encode() for n in range(6, 11)}
    assert all(high in upper and low not in upper for high, low in drawn)
    assert choose(many(), 1, quantile=2, seed=5) == choose(many(), 1, quantile=2, seed=5)


def test_contrast_is_what_hardly_fires_weakest_first_and_nothing_else() -> None:
    assert names(choose(many(), 1, contrast=2).contrast) == [b"q1", b"q2"]
    # of a maximum of 20, less than 6
    assert names(choose(many(), 1, contrast=9).contrast) == [b"q1", b"q2", b"q3", b"q4", b"q5"]


def test_no_record_is_shown_twice() -> None:
    shown = choose(many(), 3, quantile=10, contrast=3)
    tokens = names(shown.firing + shown.contrast)
    assert len(set(tokens)) == len(tokens) == 13


def test_quantile_records_that_the_set_does_not_have_are_missed() -> None:
    only_top = replace(many(), records=many().split("train"))
    for options in ({"quantile": 1}, {"contrast": 1}):
        with pytest.raises(NeuronFailure) as caught:
            choose(only_top, 2, **options)
        assert caught.value.cause == "no-quantile-records"


def test_positions_that_do_not_count_are_silent_and_a_leading_one_is_left_out() -> None:
    tokens = (b"<|endoftext|>", b"a", b"<|endoftext|>", b"b")
    scored = np.array([False, True, False, True])
    shown = choose(
        neuron(replace(record(tokens, [99, 5, 88, 10]), scored=scored)), records=1
    ).firing[0]
    assert shown.tokens == (b"a", b"<|endoftext|>", b"b")
    assert shown.levels == (5, 0, 10)


def test_the_first_records_are_the_firing_ones() -> None:
    shown = choose(rivers(), 2, contrast=2)
    assert len(shown) == 4
    assert (len(shown.first(1).firing), len(shown.first(1).contrast)) == (1, 0)
    assert (len(shown.first(3).firing), len(shown.first(3).contrast)) == (2, 1)


def test_example_neurons_are_shown_as_they_are_written() -> None:
    for example in load_few_shot():
        shown = examples(example)
        for record_, (tokens, levels) in zip(shown.firing, example.records, strict=True):
            assert b"".join(record_.tokens).decode() == "".join(tokens)
            assert record_.levels == levels
