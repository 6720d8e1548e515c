"""A text as a prompt shows it with the query and the key of one pair of positions marked."""

from collections.abc import Sequence

from neuron_explainer.records import BoolArray, Pair
from neuron_explainer.token_text import CLOSE, OPEN, write_among_marks


def marked(tokens: Sequence[bytes], pair: Pair) -> str:
    """A text as one line with the places of the pair marked."""
    query, key = pair
    parts, begin = [], 0
    for place in sorted({query, key}):
        role = "query and key" if query == key else "query" if place == query else "key"
        # what is between two marks is joined first: a character may be parted between tokens
        parts.append(write_among_marks(b"".join(tokens[begin:place])))
        parts.append(f"{OPEN}{role}:{write_among_marks(tokens[place])}{CLOSE}")
        begin = place + 1
    return "".join([*parts, write_among_marks(b"".join(tokens[begin:]))])


def marked_pair(tokens: Sequence[bytes], scored: BoolArray, pair: Pair) -> str:
    """As `marked`, without a first token that is not scored (BOS) and not of the pair."""
    query, key = pair
    begin = 1 if not scored[0] and key else 0
    return marked(tokens[begin:], (query - begin, key - begin))
