"""Reading an echoed all-at-once prompt: what stood to be written where each ` unknown` begins."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from neuron_explainer.activations import START, UNKNOWN
from neuron_explainer.simulate.readings import Alternatives, Columns

# The space keeps the tab a token of its own: many tokenizers join a tab to letters, none to " u".
MARK = f"\t {UNKNOWN}"
_MARK = re.compile(rf"\t ?{UNKNOWN}(?=\n|$)")


def at_marks(columns: Columns, rendered: Sequence[str]) -> list[Alternatives | None]:
    """For each rendered token of the last block, the alternatives after its tab; None if unread.

    A token's row is found by its number: no rendered token has a tab in it, so characters that the
    reply has damaged do no harm. When rows are missing, those that are there are found by their
    tokens. An ` unknown` that does not begin a token is None, and its neighbours are unharmed.
    """
    places = _places(columns.text, rendered)
    return [None if place is None else columns.alternatives_at(place) for place in places]


def writes_ten_in_two(columns: Columns, found: Sequence[Alternatives | None]) -> bool:
    """Whether the model's tokenizer writes "10" as "1" and "0".

    Told by how it reads the examples' tens; without any, by whether "10" is ever an alternative.
    """
    ten = columns.text.find("\t10\n")
    if ten >= 0:
        return columns.written_at(ten + 1) == "1"
    return not any(alternatives and "10" in alternatives for alternatives in found)


def _places(text: str, rendered: Sequence[str]) -> list[int | None]:
    begin = text.rfind(START)
    if begin < 0:
        return [None] * len(rendered)
    rows, places = [], []
    row = begin + len(START)
    for mark in _MARK.finditer(text, row):
        rows.append(text[row : mark.start()])
        places.append(mark.start() + 1)
        row = mark.end() + 1
    if len(rows) == len(rendered):
        return list(places)
    found: list[int | None] = [None] * len(rendered)
    matcher = SequenceMatcher(a=rendered, b=rows, autojunk=False)
    for token, other, length in matcher.get_matching_blocks():
        found[token : token + length] = places[other : other + length]
    return found
