"""Which tokens a sequence is shown with as those at which the neuron fires: half of it is true.

The false half has as many tokens marked, in stretches of the same lengths, somewhere else, so that
neither their number nor how they lie tells which half a sequence is in: only what they say does.
"""

from zlib import crc32

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from neuron_explainer.firing import firing, firing_threshold
from neuron_explainer.records import BoolArray, Highlight, NeuronRecord

_TRIES = 20


def highlights(neuron: NeuronRecord, seed: int) -> list[Highlight | None]:
    """A highlight for each of the neuron's records, half of them genuine in every split.

    None where the neuron does not fire, and where no other tokens could be marked like those at
    which it does: such a sequence would be recognised by being left as it is. The same seed gives
    the same highlights, whatever other neurons and splits there are.
    """
    made: list[Highlight | None] = [None] * len(neuron.records)
    for split in sorted({record.split for record in neuron.records if record.split}):
        rng = np.random.default_rng([seed, crc32(f"{neuron.neuron} {split}".encode())])
        both = _both(neuron, split, rng)
        genuine = bool(rng.integers(2))
        for place in _mixed(neuron, list(both), rng):
            made[place] = Highlight(both[place][0 if genuine else 1], genuine)
            genuine = not genuine
    return made


def elsewhere(marked: BoolArray, free: BoolArray, rng: np.random.Generator) -> BoolArray | None:
    """The stretches of `marked` (tokens,), moved to random places that are `free` (tokens,).

    No two of them touch. None when nothing is marked or there is no room.
    """
    edges = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=0, append=0))
    lengths = sorted((edges[1::2] - edges[::2]).tolist(), reverse=True)
    tries = (_placed(lengths, free, rng) for _ in range(_TRIES))
    return next((found for found in tries if found is not None), None) if lengths else None


def _placed(lengths: list[int], free: BoolArray, rng: np.random.Generator) -> BoolArray | None:
    left, placed = free.copy(), np.zeros_like(free)
    for length in lengths:
        starts = np.flatnonzero(_whole(left, length))
        if not len(starts):
            return None
        start = int(rng.choice(starts))
        placed[start : start + length] = True
        left[max(start - 1, 0) : start + length + 1] = False
    return placed


def _whole(free: BoolArray, length: int) -> BoolArray:
    """Where a free stretch of this length begins."""
    if length > len(free):
        return np.zeros(0, np.bool_)
    return np.array(sliding_window_view(free, length).all(axis=1), np.bool_)


def _both(
    neuron: NeuronRecord, split: str, rng: np.random.Generator
) -> dict[int, tuple[BoolArray, BoolArray]]:
    """The true and a false marking of the records of a split that can have both, by place."""
    threshold = firing_threshold(neuron.statistics)
    both = {}
    for place, record in enumerate(neuron.records):
        if record.split == split:
            fires = firing(record, threshold)
            other = elsewhere(fires, record.scored & ~fires, rng)
            if other is not None:
                both[place] = fires, other
    return both


def _mixed(neuron: NeuronRecord, places: list[int], rng: np.random.Generator) -> list[int]:
    """In random order, but top records first: then neighbours, which differ, are of one kind."""
    order = rng.permutation(len(places)).tolist()
    return sorted((places[at] for at in order), key=lambda at: neuron.records[at].kind != "top")
