"""What of a stimulus and of an explanation stands in a simulator's prompt."""

from collections.abc import Sequence
from itertools import groupby

from neuron_explainer import token_text
from neuron_explainer.records import BoolArray, Stimulus
from neuron_explainer.token_text import CLOSE, OPEN, write_among_marks


def shown(stimulus: Stimulus) -> slice:
    """The positions that a prompt shows: all but a first token that is not scored (BOS)."""
    begin = 1 if len(stimulus.tokens) and not stimulus.scored[0] else 0
    return slice(begin, len(stimulus.tokens))


def rendered(stimulus: Stimulus) -> list[str]:
    """The tokens that are shown, each on one line without a tab."""
    return [token_text.write(token) for token in stimulus.tokens[shown(stimulus)]]


def render_text(tokens: Sequence[bytes]) -> str:
    """A whole sequence on one line; characters that tokens share are whole again."""
    return token_text.write(b"".join(tokens))


def render_marked(tokens: Sequence[bytes], marked: BoolArray) -> str:
    """A whole sequence on one line in which each stretch of `marked` (tokens,) stands «so»."""
    parts = []
    for strong, group in groupby(zip(tokens, marked.tolist(), strict=True), lambda pair: pair[1]):
        # tokens are joined before they are written: a character may be parted between two
        text = write_among_marks(b"".join(token for token, _ in group))
        parts.append(f"{OPEN}{text}{CLOSE}" if strong else text)
    return "".join(parts)


def one_line(text: str) -> str:
    """Free text, such as an explanation, without line breaks and what no server can be sent."""
    return " ".join(text.encode("utf-8", "replace").decode().replace("\0", " ").split())
