"""Log probabilities as servers write them, as columns.

legacy   `{"tokens", "token_logprobs", "top_logprobs", "text_offset"}`: OpenAI completions, vLLM,
         llama-cpp-python
chat     `{"content": [{"token", "logprob", "top_logprobs": [...]}]}`: chat; llama.cpp throughout
vLLM     `prompt_logprobs`: a list of `{token id: {"decoded_token", "logprob", "rank"}}`
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from neuron_explainer.llm.base import Logprobs, Message, Usage
from neuron_explainer.llm.failures import Lack, malformed

FLOOR = -9999.0  # stands for a probability of zero: JSON has no infinity
_NUMBERS = {int, float}
_TIE = 0.5  # far above what rounding makes of two equal probabilities


def written(content: Any, usage: Usage) -> Logprobs | None:
    """The log probabilities of a choice, in either shape; None where there are none."""
    if not isinstance(content, dict):
        return None
    try:
        if isinstance(content.get("content"), list):
            return _from_chat(content["content"])
        if isinstance(content.get("tokens"), list):
            return _from_legacy(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(f"the log probabilities are malformed: {error!r}", usage) from error
    return None


def _number(value: Any) -> float:
    if isinstance(value, bool) or math.isnan(value):
        raise ValueError(f"{value} is no log probability")
    return max(float(value), FLOOR)


def _checked(top: Any) -> Mapping[str, float]:
    """A mapping to numbers, as it is: replies have thousands of them, so none is copied."""
    if not set(map(type, top.values())) <= _NUMBERS:
        raise TypeError("an alternative has no log probability")
    checked: Mapping[str, float] = top
    return checked


def merged(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Text → log probability; tokens that read the same add their probabilities up."""
    texts: dict[str, float] = {}
    for text, value in pairs:
        if text in texts:
            texts[text] = _sum(texts[text], _number(value))
        else:
            texts[text] = _number(value)
    return texts


def _sum(first: float, second: float) -> float:
    high, low = max(first, second), min(first, second)
    return high + math.log1p(math.exp(low - high))


def _from_chat(items: Sequence[Mapping[str, Any]]) -> Logprobs:
    return Logprobs(
        [_checked_text(item["token"]) for item in items],
        [_number(item["logprob"]) for item in items],
        [_top_of_chat(item.get("top_logprobs") or ()) for item in items],
    )


def _top_of_chat(tops: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
    top = {item["token"]: item["logprob"] for item in tops}
    if len(top) < len(tops):
        return merged((item["token"], item["logprob"]) for item in tops)
    return _checked(top)


def _checked_text(token: Any) -> str:
    if not isinstance(token, str):
        raise TypeError(f"{token!r} is no token")
    return token


def _from_legacy(content: Mapping[str, Any]) -> Logprobs:
    tokens = [_checked_text(token) for token in content["tokens"]]
    values = [None if value is None else _number(value) for value in content["token_logprobs"]]
    tops = content.get("top_logprobs") or [None] * len(tokens)
    top = [None if items is None else _checked(items) for items in tops]
    if not len(tokens) == len(values) == len(top):
        raise ValueError(f"{len(tokens)} tokens, {len(values)} values, {len(top)} alternatives")
    return Logprobs(tokens, values, top)


def echoed(
    text: str, tokens: Logprobs | None, prompt: str, usage: Usage, *, greedy: bool
) -> tuple[str, Logprobs, Logprobs | None]:
    """An echoed reply, parted: what was written, the prompt's columns, and those of the former.

    `greedy` says that each token written must have been the likeliest.
    """
    if not text.startswith(prompt):
        raise _not_echoed("the reply does not begin with the prompt", usage)
    if tokens is None:
        raise _not_echoed("the prompt was echoed without log probabilities", usage)
    whole = placed(tokens, text)
    length = _prompt_length(whole, text, prompt, usage)
    written = text[len(prompt) :]
    first, rest = _slice(whole, 0, length), _slice(whole, length, len(whole.tokens))
    _verify_prompt(first, usage)
    _verify_not_shifted(written, rest, usage, greedy=greedy)
    return written, first, placed(rest, written)


def _not_echoed(message: str, usage: Usage) -> Lack:
    return Lack("prompt_logprobs", message, usage=usage)


def _verify_not_shifted(written: str, rest: Logprobs, usage: Usage, *, greedy: bool) -> None:
    """Some servers give each token the probabilities of its neighbour when there is no BOS.

    Then the last token has none, and the one that was written is not the likeliest at its place.
    """
    if written and not rest.tokens:
        raise _not_echoed("the log probabilities end one token before the reply does", usage)
    if not greedy or not rest.tokens:
        return
    value, top = rest.logprobs[0], rest.top[0] or {}
    if value is None or value < max(top.values(), default=value) - _TIE:
        raise _not_echoed(
            "the token that was written is not the likeliest: they are shifted by a token", usage
        )


def placed(columns: Logprobs, text: str) -> Logprobs:
    """Tokens cut so that they spell the text, or else where in the text each begins.

    Special tokens and the space that SentencePiece puts in front are no part of the text. Where
    tokens are parts of characters nothing spells it; servers count offsets in many ways, so they
    are counted here.
    """
    joined = "".join(columns.tokens)
    begin = joined.find(text)
    if begin < 0:
        return replace(columns, offsets=offsets(columns.tokens, text))
    end = begin + len(text)
    starts = accumulate(map(len, columns.tokens), initial=0)
    tokens = [
        token[max(0, begin - start) : max(0, end - start)]
        for token, start in zip(columns.tokens, starts, strict=False)
    ]
    return replace(columns, tokens=tokens, offsets=None)


def _prompt_length(columns: Logprobs, text: str, prompt: str, usage: Usage) -> int:
    """How many of the tokens are the prompt's."""
    count = len(columns.tokens)
    if columns.offsets is None:
        ends = list(accumulate(map(len, columns.tokens)))
        return min(count, bisect_left(ends, len(prompt)) + 1)
    known = [(at, place) for place, at in enumerate(columns.offsets) if at <= len(text)]
    low = max((place + 1 for at, place in known if at < len(prompt)), default=0)
    high = min((place for at, place in known if at >= len(prompt)), default=count)
    return min(max(low, count - usage.completion_tokens), max(low, high))


def _slice(columns: Logprobs, start: int, stop: int) -> Logprobs:
    offsets = None if columns.offsets is None else columns.offsets[start:stop]
    return Logprobs(
        columns.tokens[start:stop], columns.logprobs[start:stop], columns.top[start:stop], offsets
    )


def _verify_prompt(columns: Logprobs, usage: Usage) -> None:
    """Every token but the first must come with alternatives."""
    bare = sum(1 for top in columns.top[1:] if not top)
    if not columns.tokens or bare:
        raise _not_echoed(
            f"{bare} of the prompt's {len(columns.tokens)} tokens have no log probabilities", usage
        )


def prompt_logprobs(content: Any, prompt: str | tuple[Message, ...], usage: Usage) -> Logprobs:
    """vLLM's `prompt_logprobs`, of which the first item is null and names no token."""
    if not isinstance(content, list) or not content:
        raise _not_echoed("prompt_logprobs were asked for and are not in the reply", usage)
    try:
        columns = _from_vllm(content)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise malformed(f"prompt_logprobs are malformed: {error!r}", usage) from error
    _verify_prompt(columns, usage)
    return _located(columns, prompt) if isinstance(prompt, str) else columns


def _from_vllm(content: Sequence[Mapping[str, Any] | None]) -> Logprobs:
    tokens = [""]
    values: list[float | None] = [None]
    tops: list[Mapping[str, float] | None] = [None]
    for item in content[1:]:
        if item is None:
            raise ValueError("a token after the first has none")
        actual = next(iter(item.values()))  # the prompt's own token comes first
        tokens.append(_checked_text(actual["decoded_token"]))
        values.append(_number(actual["logprob"]))
        tops.append(merged((top["decoded_token"], top["logprob"]) for top in item.values()))
    return Logprobs(tokens, values, tops)


def _located(columns: Logprobs, prompt: str) -> Logprobs:
    """The unnamed first token's text, and offsets where the tokens do not spell the prompt."""
    rest = "".join(columns.tokens)
    if prompt.endswith(rest):
        tokens = [prompt[: len(prompt) - len(rest)], *columns.tokens[1:]]
        return Logprobs(tokens, columns.logprobs, columns.top)
    return Logprobs(columns.tokens, columns.logprobs, columns.top, offsets(columns.tokens, prompt))


def offsets(tokens: Sequence[str], text: str) -> list[int]:
    """Where in `text` each token begins; beyond its end for a part of a character."""
    found: list[int] = []
    cursor = lost = 0
    for token in tokens:
        # a token of which no character is whole may hide up to its own length and a little
        begin = text.find(token, cursor, cursor + len(token) + 4 * lost + 4) if token else -1
        if begin < 0 or (not lost and begin > cursor and found):
            found.append(len(text) + 1)
            lost += 1
            continue
        found.append(begin)
        cursor, lost = begin + len(token), 0
    return found
