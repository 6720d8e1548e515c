"""Activations as language models read and write them: whole numbers from 0 to 10.

Bills et al. 2023, "Language models can explain neurons in language models".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.records import FloatArray

LEVELS = 10
UNKNOWN = "unknown"
START = "<start>\n"
END = "\n<end>"

_LEVEL_OF_TEXT = {str(level): level for level in range(LEVELS + 1)}
_MARK = f"\t{UNKNOWN}"


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a simulator believes about one token's activation, on the 0–10 scale."""

    values: tuple[float, ...]  # ascending; empty: it named no valid number
    probabilities: tuple[float, ...]  # of `values`; they add up to 1
    expected: float | None  # None: undefined, never scored


NO_VALID_NUMBER = Distribution((), (), None)


def normalise(activations: ArrayLike, maximum: float) -> NDArray[np.int64]:
    """Raw activations of any shape as levels from 0 to 10: `min(10, floor(10 · max(0, x) / M))`.

    `maximum` is M, the largest activation over the records shown together, in the unit of
    `activations`. All zero when it is not positive. Bills et al. 2023, "Explain".
    """
    raw = np.asarray(activations, dtype=np.float64)
    if maximum <= 0:
        return np.zeros(raw.shape, dtype=np.int64)
    # First times ten, then divided: 10 * 5.334 / 7.62 is 6.99…, 10 * (5.334 / 7.62) is 7.
    with np.errstate(over="ignore"):  # far above M is 10 all the same
        levels = np.floor(LEVELS * np.maximum(raw, 0.0) / maximum)
    return np.minimum(levels, LEVELS).astype(np.int64)


def maximum_activation(records: Sequence[FloatArray]) -> float:
    """The largest raw activation of arrays of shape (tokens,); 0.0 when none is positive."""
    return max((float(np.max(record, initial=0.0)) for record in records), default=0.0)


def non_zero_share(records: Sequence[FloatArray], maximum: float) -> float:
    """The share of all tokens of `records`, arrays (tokens,), that `normalise` does not make 0.

    Small positive activations count as zero, for they are shown so. No tokens: 0.0.
    """
    tokens = sum(record.size for record in records)
    shown = sum(int(np.count_nonzero(normalise(record, maximum))) for record in records)
    return shown / tokens if tokens else 0.0


def expected_activation(log_probabilities: Mapping[str, float]) -> Distribution:
    """The distribution over 0 … 10 that a model's next-token log probabilities (natural) hold.

    Only the exact strings "0" … "10" count; their mass is renormalised. For a tokenizer that writes
    "10" as two tokens, pass the product of the conditional probabilities under "10". When no valid
    number has any mass the result is `NO_VALID_NUMBER`. Bills et al. 2023, "Simulate".
    """
    found = {
        _LEVEL_OF_TEXT[text]: value
        for text, value in log_probabilities.items()
        if text in _LEVEL_OF_TEXT and not math.isnan(value)
    }
    likeliest = max(found.values(), default=-math.inf)
    if not math.isfinite(likeliest):
        return NO_VALID_NUMBER
    values = sorted(found)
    # Relative to the likeliest, so that a tail of very small probabilities does not vanish.
    masses = [math.exp(found[value] - likeliest) for value in values]
    total = math.fsum(masses)
    probabilities = tuple(mass / total for mass in masses)
    expected = math.fsum(p * value for p, value in zip(probabilities, values, strict=True))
    return Distribution(tuple(map(float, values)), probabilities, expected)


def distributions_at_unknown(
    completion_tokens: Sequence[str],
    top_log_probabilities: Sequence[Mapping[str, float] | None],
    subject_tokens: Sequence[str],
    *,
    text: str | None = None,
    text_offsets: Sequence[int] | None = None,
) -> list[Distribution | None]:
    """What an echoed all-at-once prompt says about each subject token, one item a subject token.

    The prompt's last block between `<start>` and `<end>` has one line `token<tab>unknown` for each
    of `subject_tokens`, which are given as the prompt renders them. A distribution is read where
    `unknown` begins: it is what the model would have written after the tab. A token whose line is
    missing or damaged, or whose `unknown` does not begin a completion token, is None, and its
    neighbours are unharmed.

    `text_offsets` (characters in `text`, the completion's text) matter only where the tokens do not
    spell the text, as with parts of a character; both are optional.

    Raises NeuronFailure("malformed-reply") when the per-token lists differ in length.
    """
    joined = "".join(completion_tokens)
    if text is None or text_offsets is None or text == joined:
        text = joined
        text_offsets = list(accumulate(map(len, completion_tokens), initial=0))[:-1]
    if not len(completion_tokens) == len(top_log_probabilities) == len(text_offsets):
        raise NeuronFailure(
            "malformed-reply",
            f"the reply has {len(completion_tokens)} tokens, {len(top_log_probabilities)} "
            f"distributions and {len(text_offsets)} offsets: check that the server returns log "
            "probabilities for an echoed prompt",
        )
    at = {
        offset: top
        for offset, token, top in zip(
            text_offsets, completion_tokens, top_log_probabilities, strict=True
        )
        # Some servers count offsets in another unit or from elsewhere: believe none unseen.
        if token and text.startswith(token, offset)
    }
    tops = (at.get(position) for position in _positions_of_unknown(text, subject_tokens))
    return [None if top is None else expected_activation(top) for top in tops]


def _positions_of_unknown(text: str, subject_tokens: Sequence[str]) -> list[int]:
    """Where in `text` each token's `unknown` begins; -1 where that cannot be told."""
    positions = [-1] * len(subject_tokens)
    rendered, marks = _entries(text)
    matcher = SequenceMatcher(a=subject_tokens, b=rendered, autojunk=False)
    for token, entry, length in matcher.get_matching_blocks():
        positions[token : token + length] = marks[entry : entry + length]
    return positions


def _entries(text: str) -> tuple[list[str], list[int]]:
    """The tokens of the last block as they are rendered, and where their `unknown` begins."""
    begin = text.rfind(START)
    if begin < 0:
        return [], []
    cursor = begin + len(START)
    end = text.rfind(END, cursor - 1)
    block_end = len(text) if end < 0 else end
    rendered, marks = [], []
    while (mark := text.find(_MARK, cursor, block_end)) >= 0:
        rendered.append(text[cursor:mark])
        marks.append(mark + 1)
        cursor = mark + len(_MARK) + 1  # and the line's end
    return rendered, marks
