"""What is highlighted, rightly or wrongly: only what the tokens say tells which."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.records import (
    BoolArray,
    Highlight,
    Kind,
    NeuronId,
    NeuronRecord,
    Record,
    Split,
    Statistics,
)
from neuron_explainer.simulate.marking import elsewhere, highlights

NEURON = NeuronId("tiny", "blocks.0.mlp.hook_post", 3)
SPARSE = Statistics(0, None, 9.0, None, None, None, None, (0.0,), np.zeros(0, np.int64))
KINDS: tuple[Kind, ...] = get_args(Kind)[:2]
HELD_OUT: tuple[Split, ...] = ("calibration", "valid", "test")


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record of some split; most tokens are silent and most are scored."""
    levels = draw(st.lists(st.sampled_from([0.0, 0.0, 0.0, -1.0, 5.0, 9.0]), max_size=24))
    hidden = draw(st.sets(st.integers(0, 23), max_size=4))
    scored = np.array([place not in hidden for place in range(len(levels))], np.bool_)
    kind, split = draw(st.sampled_from(KINDS)), draw(st.sampled_from(HELD_OUT))
    return Record((b"x",) * len(levels), np.array(levels, np.float32), scored, kind, split, 0)


NEURONS = st.lists(records(), max_size=24).map(
    lambda made: NeuronRecord(NEURON, tuple(made), SPARSE)
)


def _fires(record: Record) -> BoolArray:
    return record.scored & (record.activations > 0)


def _lengths(marked: BoolArray) -> list[int]:
    """Of the stretches, ascending."""
    text = "".join("x" if mark else " " for mark in marked)
    return sorted(map(len, text.split()))


def _same(first: Sequence[Highlight | None], second: Sequence[Highlight | None]) -> bool:
    return [one and (one.tokens.tolist(), one.genuine) for one in first] == [
        one and (one.tokens.tolist(), one.genuine) for one in second
    ]


@given(NEURONS, st.integers(0, 99))
def test_what_is_marked_is_where_the_neuron_fires_or_is_as_much_elsewhere(
    neuron: NeuronRecord, seed: int
) -> None:
    for record, made in zip(neuron.records, highlights(neuron, seed), strict=True):
        if made is None:
            continue
        fires = _fires(record)
        assert not (made.tokens & ~record.scored).any()
        assert _lengths(made.tokens) == _lengths(fires) != []
        if made.genuine:
            np.testing.assert_array_equal(made.tokens, fires)
        else:
            assert not (made.tokens & fires).any()


@given(NEURONS, st.integers(0, 99))
def test_half_of_what_is_marked_in_a_split_is_genuine_whatever_the_kind(
    neuron: NeuronRecord, seed: int
) -> None:
    made = highlights(neuron, seed)
    for split in HELD_OUT:
        of_split = [
            (record.kind, one.genuine)
            for record, one in zip(neuron.records, made, strict=True)
            if one is not None and record.split == split
        ]
        for some in (of_split, *([pair for pair in of_split if pair[0] == k] for k in KINDS)):
            genuine = sum(right for _, right in some)
            assert abs(2 * genuine - len(some)) <= 1


@given(NEURONS, st.integers(0, 99))
def test_marks_depend_on_seed_neuron_and_split_alone(neuron: NeuronRecord, seed: int) -> None:
    made = highlights(neuron, seed)
    assert _same(made, highlights(neuron, seed))
    valid = replace(neuron, records=neuron.split("valid"))
    in_valid = [
        one for record, one in zip(neuron.records, made, strict=True) if record.split == "valid"
    ]
    assert _same(highlights(valid, seed), in_valid)


def _planted(number: int) -> NeuronRecord:
    rng = np.random.default_rng(0)
    made = [
        Record(
            (b"x",) * 32,
            np.where(rng.random(32) < 0.2, 5.0, 0.0),
            np.arange(32) > 0,
            KINDS[place % 2],
            "valid",
            place,
        )
        for place in range(number)
    ]
    return NeuronRecord(NEURON, tuple(made), SPARSE)


def test_another_seed_and_another_neuron_get_other_marks() -> None:
    neuron = _planted(20)
    other = replace(neuron, neuron=replace(NEURON, index=4))
    first = highlights(neuron, 0)
    assert all(first)
    assert not _same(first, highlights(neuron, 1))
    assert not _same(first, highlights(other, 0))


def test_neither_number_nor_place_tells_which_marks_are_genuine() -> None:
    neuron = _planted(2000)
    made = [one for one in highlights(neuron, 0) if one is not None]
    assert len(made) > 1900
    genuine, false = (
        np.array([one.tokens for one in made if one.genuine is right]) for right in (True, False)
    )
    assert abs(genuine.sum(axis=1).mean() - false.sum(axis=1).mean()) < 0.3
    assert np.abs(genuine.mean(axis=0) - false.mean(axis=0))[1:].max() < 0.08


@pytest.mark.parametrize(
    "activations",
    [[0.0] * 6, [5.0] * 6, [0.0, 5.0, 5.0, 0.0, 0.0, 0.0][:4], []],
    ids=["silent", "everywhere", "no room", "empty"],
)
def test_what_cannot_be_marked_both_ways_is_left_out(activations: list[float]) -> None:
    levels = np.array(activations)
    scored = np.ones(len(levels), np.bool_)
    record = Record((b"x",) * len(levels), levels, scored, "top", "valid", 0)
    assert highlights(NeuronRecord(NEURON, (record,), SPARSE), 0) == [None]


def test_marks_are_found_where_there_is_just_room_for_them() -> None:
    marked = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0], np.bool_)
    for seed in range(20):
        found = elsewhere(marked, ~marked, np.random.default_rng(seed))
        assert found is not None
        assert _lengths(found) == [1, 3]
