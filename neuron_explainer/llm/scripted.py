"""Replies from a file, always the same ones: for tests, demonstrations and documentation.

The file is a JSON list, or one JSON object a line. Each object is a rule; the first one that
matches the last message (or the prompt) answers:

match           the whole text                pattern         a regular expression found in it
reply           the answer, or a list of answers by sample number
logprobs        a list, one item a token: text → log probability, the first one the token written
prompt_logprobs {"tokens", "logprobs", "top"}: the prompt's columns
failure         instead of a reply: the cause of a NeuronFailure

Usage is counted in words, for there is no tokenizer.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from neuron_explainer.errors import ConfigError, LLMError, NeuronFailure
from neuron_explainer.llm.base import (
    BackendSettings,
    Capabilities,
    Choice,
    Logprobs,
    Request,
    Response,
    Usage,
    needs,
    require,
)
from neuron_explainer.llm.failures import brief

_KEYS = {"match", "pattern", "reply", "logprobs", "prompt_logprobs", "failure"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is answered to what."""

    pattern: re.Pattern[str]
    replies: tuple[str, ...]
    logprobs: Logprobs | None
    prompt: Logprobs | None
    failure: str | None

    def answer(self, request: Request, number: int) -> Choice:
        """The answer to sample `number` of a request."""
        text = self.replies[number % len(self.replies)]
        tokens = self.logprobs or Logprobs([text], [0.0], [{text: 0.0}])
        asked = request.top_logprobs is not None
        wants_prompt = request.prompt_logprobs is not None
        return Choice(
            text, "stop", tokens if asked else None, self.prompt if wants_prompt else None
        )


class Scripted:
    """The backend `scripted/FILE`. Its model's name holds the file's hash, for the cache."""

    def __init__(self, model: str, settings: BackendSettings) -> None:
        del settings  # nothing is reached
        try:
            content = Path(model).read_bytes()
        except OSError as error:
            raise LLMError(f"no script at {model}: name a JSON file of rules") from error
        self._path = model
        self._rules = [_rule(rule, model) for rule in _objects(content, model)]
        self.model = f"scripted/{hashlib.sha256(content).hexdigest()[:16]}"

    async def capabilities(self) -> Capabilities:
        """Everything; log probabilities of the prompt where a rule has them."""
        prompts = any(rule.prompt for rule in self._rules)
        return Capabilities(True, True, 20, True, prompts, True)

    async def complete(self, request: Request) -> Response:
        """The first matching rule's answer."""
        prompt = request.prompt
        text = prompt if isinstance(prompt, str) else prompt[-1].content
        rule = next((rule for rule in self._rules if rule.pattern.search(text)), None)
        if rule is None:
            raise LLMError(f"no rule of {self._path} matches {brief(text, 80)!r}: add one")
        if rule.failure:
            raise NeuronFailure(rule.failure, f"{self._path} says so")
        require(await self.capabilities(), needs(request), self._path)
        first = request.sample * request.n
        choices = tuple(rule.answer(request, first + number) for number in range(request.n))
        words = sum(len(choice.text.split()) for choice in choices)
        return Response(choices, Usage(_words(request), 0, words, 1), self.model)

    async def close(self) -> None:
        """Nothing is open."""


def _words(request: Request) -> int:
    prompt = request.prompt
    texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    return sum(len(text.split()) for text in texts)


def _objects(content: bytes, path: str) -> Sequence[Any]:
    try:
        if content.lstrip()[:1] == b"[":
            return list(orjson.loads(content))
        return [orjson.loads(line) for line in content.splitlines() if line.strip()]
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error


def _rule(rule: Any, path: str) -> Rule:
    if not isinstance(rule, dict) or ("match" in rule) == ("pattern" in rule):
        raise ConfigError(f"{path}: a rule has either match or pattern, not {brief(rule, 80)}")
    unknown = sorted(set(rule) - _KEYS)
    if unknown:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    replies = rule.get("reply", "" if "failure" in rule else None)
    if not isinstance(replies, str | list) or replies == []:
        raise ConfigError(f"{path}: the rule {brief(rule, 80)} has no reply")
    whole = rf"\A{re.escape(rule['match'])}\Z" if "match" in rule else rule["pattern"]
    try:
        pattern = re.compile(whole, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"{path}: {whole!r} is no regular expression: {error}") from error
    return Rule(
        pattern,
        (replies,) if isinstance(replies, str) else tuple(replies),
        _tokens(rule["logprobs"]) if "logprobs" in rule else None,
        Logprobs(**rule["prompt_logprobs"]) if "prompt_logprobs" in rule else None,
        rule.get("failure"),
    )


def _tokens(items: Sequence[Mapping[str, float]]) -> Logprobs:
    written = [next(iter(item)) for item in items]
    return Logprobs(written, [item[text] for text, item in zip(written, items, strict=True)], items)
