"""From what a language model replied to a label, by rule; what is no label is a failure.

Repaired: fences, headings such as "Explanation:", quotation marks around it all, emphasis, further
paragraphs, the prompt's own marks. A reply that ran into the length limit keeps its whole
sentences if it has any. Refused, with the cause in brackets: nothing left (empty-reply), cut inside
its only sentence (cut-off), longer than 400 characters without a sentence's end (too-long), a
refusal (refused), text of the prompt or of its examples (prompt-leak), JSON that holds more than
one text (malformed-reply).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from neuron_explainer.errors import NeuronFailure

LONGEST = 400  # characters

# How a reply begins that says nothing about the neuron,
_REFUSING_STARTS = (
    *("i'm sorry", "i am sorry", "sorry,", "sorry but", "i apologize", "i apologise"),
    *("as an ai", "as a language model", "as a large language model", "as an assistant"),
    *("i cannot", "i can't", "i can not", "i am unable", "i'm unable", "i am not able"),
    *("i'm not able", "i don't know", "i do not know", "i'm not sure", "i am not sure"),
    *("i need more", "unfortunately,", "please provide", "could you provide"),
)
_REFUSALS = ("unknown", "n/a", "none", "unclear", "no explanation", "no pattern")  # as a whole
# and what such a reply says anywhere, outside quotation marks.
_REFUSING_WORDS = (
    *("cannot determine", "can't determine", "could not determine", "couldn't determine"),
    *("cannot be determined", "unable to determine", "impossible to determine"),
    *("cannot identify", "unable to identify", "no clear pattern", "no discernible pattern"),
    *("no obvious pattern", "not enough information", "insufficient information"),
    *("not enough data", "insufficient data", "not enough context", "my training data"),
)
_WRAPPERS = (("“", "”"), ('"', '"'), ("'", "'"), ("**", "**"), ("`", "`"), ("*", "*"), ("_", "_"))
_HEADING = re.compile(
    r"""^[\s*_#>-]*(?:(?:the|my|here\ is|here's|sure[,!.]?)\s+)*(?:an?\s+|the\s+)?
    (?:explanation|label|answer|hypothesis|phrase|description|summary)
    (?:\s+(?:of|for)\s+(?:the|this)\s+neuron)?(?:\s+is)?[*_]*\s*:[*_]*\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_SUBJECT = re.compile(
    r"""^(?:the|this)\s+neuron\s+(?:\w+ly\s+)?
    (?:fires|activates|is\s+activated|responds|is\s+active)\s+(?:\w+ly\s+)?(?:on|to|for|by|at)\s+""",
    re.IGNORECASE | re.VERBOSE,
)
_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_UNFINISHED_THOUGHT = re.compile(r"\s*<think", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")
_MARKED = re.compile(r"\s?«(?:\d+:)?([^«»]*)»")
_QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|‘[^’]*’|`[^`]*`|«[^»]*»")
_SENTENCE = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\betc)"
    r"[.!?][”\"')]*(?=\s+[A-Z“\"(]|$)"
)
_MARKUP = re.compile(
    r"<start>|<end>|<\|[^|<>]*\|>|\[/?INST\]|</?think|\bexplanation\s*:"
    r"|^\s*(?:user|assistant|human|system)\s*:|\S\t\d{1,2}$",
    re.IGNORECASE | re.MULTILINE,
)
_RUN = 8  # so many words in a row, the same as in the prompt, are no coincidence


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reply must not repeat."""

    instructions: str
    question: str
    answers: tuple[str, ...] = ()  # the explanations of the examples shown


def label(reply: str, finish_reason: str, asked: Asked) -> str:
    """The reply as a label: one line of at most 400 characters. Raises NeuronFailure."""
    if not _has_words(reply):
        if finish_reason == "length":  # a model that thinks in secret has used up its tokens
            raise _refused("cut-off", "nothing was written within max_tokens: raise it", reply)
        raise _refused("empty-reply", "the model wrote nothing", reply)
    lines, ended = _paragraph(reply)
    text = _one_line(lines)
    if finish_reason == "length" and not ended:
        text = _whole_sentences(text, at_end=True)
        if not _has_words(text):
            raise _refused("cut-off", "the length limit cut it short: raise max_tokens", reply)
    text = _bare(_MARKED.sub(_as_quotation, _out_of_json(text, reply)))
    if not _has_words(text):
        raise _refused("empty-reply", "the model wrote nothing but a heading", reply)
    _check_refusal(text, reply)
    _check_markup(text, "\n".join(lines), reply)
    _check_leaks(text, reply, asked)
    if len(text) > LONGEST:
        text = _whole_sentences(text[:LONGEST], at_end=False)
        if not _has_words(text):
            raise _refused("too-long", f"no sentence ends within {LONGEST} characters", reply)
    return text


def _paragraph(reply: str) -> tuple[list[str], bool]:
    """The lines of the first paragraph that says something, and whether another one follows."""
    spoken = _THOUGHT.sub("", reply)
    if _UNFINISHED_THOUGHT.match(spoken):
        raise _refused("cut-off", "the model was still thinking: raise max_tokens", reply)
    lines = [line for line in spoken.splitlines() if not line.strip().startswith("```")]
    while lines and (not lines[0].strip() or _is_introduction(lines[0])):
        lines.pop(0)
    blank = next((place for place, line in enumerate(lines) if not line.strip()), len(lines))
    return lines[:blank], blank < len(lines)


def _one_line(lines: Sequence[str]) -> str:
    joint = "; " if any(map(_BULLET.match, lines)) else " "
    return _printable(joint.join(_BULLET.sub("", line).strip() for line in lines))


def _out_of_json(text: str, reply: str) -> str:
    """The only text in a JSON object, for models that always write one."""
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    values = list(content.values()) if isinstance(content, dict) else [content]
    if len(values) == 1 and isinstance(values[0], str):
        return _printable(values[0])
    if isinstance(content, dict | list):
        raise _refused("malformed-reply", "the model wrote JSON instead of a phrase", reply)
    return text


def _is_introduction(line: str) -> bool:
    """Such as "Sure! Here is the explanation:", with nothing after it."""
    return _printable(line).rstrip("*_ ").endswith(":")


def _whole_sentences(text: str, *, at_end: bool) -> str:
    """`text` up to its last sentence end; one at the very end counts only where `at_end`."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    ends = [end for end in ends if at_end or end < len(text)]
    return text[: ends[-1]] if ends else ""


def _bare(text: str) -> str:
    """Without headings, and without marks that enclose all of it."""
    before = None
    while text != before:
        before = text
        text = _SUBJECT.sub("", _HEADING.sub("", text, 1), 1).strip()
        for begin, end in _WRAPPERS:
            inner = text[len(begin) : len(text) - len(end)]
            if text.startswith(begin) and text.endswith(end) and inner:
                text = inner if begin not in inner and end not in inner else text
    return re.sub(r"\*\*(.+?)\*\*", r"\1", text)


def _as_quotation(match: re.Match[str]) -> str:
    return f" “{match[1].strip()}”"


def _check_refusal(text: str, reply: str) -> None:
    plain = _QUOTED.sub(" ", text).replace("’", "'").casefold().strip()
    whole = text.replace("’", "'").casefold()
    begins = whole.startswith(_REFUSING_STARTS) or whole.rstrip(".") in _REFUSALS
    if begins or any(words in plain for words in _REFUSING_WORDS):
        raise _refused("refused", "the model refused to explain", reply)


def _check_markup(text: str, lines: str, reply: str) -> None:
    # Headings are gone from the text, but what the lines were parted by is only in the lines.
    if any(_MARKUP.search(_QUOTED.sub(" ", part)) for part in (text, _HEADING.sub("", lines))):
        raise _refused("prompt-leak", "the label holds the prompt's markup", reply)


def _check_leaks(text: str, reply: str, asked: Asked) -> None:
    words = _words(text)
    spoken = " ".join(words)
    for answer in asked.answers:
        known = " ".join(_words(answer))
        if spoken == known or (len(known.split()) >= _RUN // 2 and known in spoken):
            raise _refused("prompt-leak", "the label repeats an example's explanation", reply)
    instructions = _words(asked.instructions)
    copied = len(words) >= _RUN // 2 and spoken in " ".join(instructions)
    if copied or _runs(words) & _runs(instructions):
        raise _refused("prompt-leak", "the label repeats the prompt's instructions", reply)
    if len(words) >= _RUN and _letters(text) in _letters(asked.question):
        raise _refused("prompt-leak", "the label is a piece of the excerpts shown", reply)


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[begin : begin + _RUN]) for begin in range(len(words) - _RUN + 1)}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _letters(text: str) -> str:
    """Letters alone, so that tokens, levels and marks between them do not hide a copy."""
    return re.sub(r"\\(?:[ntr\\]|x[0-9a-f]{2})|[\W\d_]+", "", text.casefold())


def _printable(text: str) -> str:
    """On one line, without control characters and doubled spaces."""
    visible = (character if character.isprintable() else " " for character in text)
    return " ".join("".join(visible).split())


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _refused(cause: str, why: str, reply: str) -> NeuronFailure:
    start = _printable(reply)[:80]
    return NeuronFailure(cause, f"{why}; it replied “{start}”" if start else why)
