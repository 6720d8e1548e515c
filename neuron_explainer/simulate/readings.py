"""Numbers from log probabilities, for many tokens at a time.

mass        natural log probability of an activation, up to a constant; -inf where it is not known
alternatives  the likeliest texts at one place of a reply, with their log probabilities
span        where in a text something is written: first character and end
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Self

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.activations import LEVELS
from neuron_explainer.llm.base import Logprobs

Alternatives = Mapping[str, float]
Floats = NDArray[np.float64]

_TEXTS = tuple(str(level) for level in range(LEVELS + 1))
_NONE = [-math.inf] * len(_TEXTS)
_VALUES = np.arange(LEVELS + 1, dtype=np.float64)


def level_masses(alternatives: Sequence[Alternatives | None]) -> Floats:
    """The masses of "0" … "10", exactly so written, (places, 11)."""
    rows = [_NONE if found is None else [*map(found.get, _TEXTS, _NONE)] for found in alternatives]
    masses = np.array(rows, np.float64).reshape(-1, len(_TEXTS))
    return np.where(np.isnan(masses), -np.inf, masses)


def expected_levels(masses: Floats) -> Floats:
    """Expected activations (places,) of masses (places, 11); NaN where no number has any mass."""
    highest = masses.max(axis=1, initial=-np.inf)
    known = np.isfinite(highest)
    weights = np.exp(masses - np.where(known, highest, 0.0)[:, None])
    with np.errstate(invalid="ignore"):
        expected: Floats = weights @ _VALUES / weights.sum(axis=1)
    return np.where(known, expected, np.nan)


def part_ten(masses: Floats, then_zero: float) -> Floats:
    """Masses (11,) of which "1" is a token that may be the first half of "10".

    `then_zero` is the probability of "0" after that token.
    """
    parted = masses.copy()
    share = min(max(then_zero, 0.0), 1.0)
    with np.errstate(divide="ignore"):
        parted[1], parted[LEVELS] = masses[1] + np.log([1.0 - share, share])
    return parted


class Columns:
    """Log probabilities by place in the text that the tokens spell."""

    def __init__(self, logprobs: Logprobs) -> None:
        self.text = "".join(logprobs.tokens)
        self._logprobs = logprobs
        self._starts = list(accumulate(map(len, logprobs.tokens), initial=0))

    @classmethod
    def of(cls, logprobs: Logprobs | None) -> Self:
        """Of what a reply holds; without any, nothing can be read."""
        return cls(logprobs or Logprobs([], [], []))

    def spell(self, text: str) -> bool:
        """Whether the tokens are those of `text`, and of what followed before it was cut off."""
        return self.text.startswith(text)

    def token_at(self, place: int) -> int | None:
        """Which token begins exactly at `place`; None when none does."""
        token = bisect_left(self._starts, place)
        while token < len(self._logprobs.tokens) and self._starts[token] == place:
            if self._logprobs.tokens[token]:  # an empty one is special and writes nothing
                return token
            token += 1
        return None

    def alternatives_at(self, place: int) -> Alternatives | None:
        """What could have stood where a token begins; None when none begins there."""
        token = self.token_at(place)
        return None if token is None else self._logprobs.top[token]

    def written_at(self, place: int) -> str:
        """The token that begins at `place`; empty when none does."""
        token = self.token_at(place)
        return "" if token is None else self._logprobs.tokens[token]


def expected_at(columns: Columns, places: Sequence[int]) -> Floats:
    """The expected activations where tokens begin, whatever they say; NaN where none is known.

    Where "1" was written and may be the first half of "10", what follows tells how often it is.
    """
    masses = level_masses([columns.alternatives_at(place) for place in places])
    for row, place in enumerate(places):
        if masses[row, LEVELS] == -np.inf and columns.written_at(place) == "1":
            after = columns.alternatives_at(place + 1) or {}
            masses[row] = part_ten(masses[row], math.exp(after.get("0", -math.inf)))
    return expected_levels(masses)


def expected_in(columns: Columns, spans: Sequence[tuple[int, int]]) -> Floats:
    """`expected_at` for numbers that stand in a reply; NaN where a token holds anything else."""
    expected = expected_at(columns, [begin for begin, _ in spans])
    for row, (begin, end) in enumerate(spans):
        number, token = columns.text[begin:end], columns.written_at(begin)
        if token != number and (token, number) != ("1", "10"):
            expected[row] = np.nan
    return expected
