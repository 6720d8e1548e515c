"""Explains an attention head from text in which the query and the key of each pair are marked."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from neuron_explainer import prompts, workspace
from neuron_explainer.conversation import Turn
from neuron_explainer.errors import NeuronFailure, PromptError
from neuron_explainer.explain.asking import Question, ask, check_option
from neuron_explainer.llm.base import LLM, Feature
from neuron_explainer.records import Explanation, NeuronRecord, Pair, Record
from neuron_explainer.token_text import CLOSE, OPEN, write_among_marks

_EXAMPLES = "attention-head/examples.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionHead:
    """One pair a line, in its text."""

    llm: LLM
    records: int = 5  # the strongest train pairs
    few_shot: int = 2  # example heads
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 100
    prompts: Path | None = None  # the workspace's own templates

    name: ClassVar[str] = "attention-head"
    explains: ClassVar[str] = "heads"
    needs: ClassVar[tuple[Feature, ...]] = ()  # chat or completions: whatever there is

    def __post_init__(self) -> None:
        for option in ("records", "max_tokens"):
            check_option(option, getattr(self, option), 1)
        for option in ("few_shot", "temperature"):
            check_option(option, getattr(self, option), 0)

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when the head writes for no pair or the reply is no label."""
        top = sorted(neuron.split("train"), key=lambda record: -record.maximum)[: self.records]
        if not top or top[0].maximum <= 0.0:
            raise NeuronFailure("never-active", "no train pair has an activation above 0")
        return await ask(self, neuron.neuron, self.question([_line(record) for record in top]))

    def question(self, lines: Sequence[str]) -> Question:
        """What is asked about these excerpts."""
        return Question(
            prompts.load("attention-head/system", self.prompts),
            _examples(self.prompts)[: self.few_shot],
            lambda number: _about(lines[:number], self.prompts),
            len(lines),
        )


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


def _line(record: Record) -> str:
    if record.pair is None:
        raise NeuronFailure("no-pair", "the records are not those of an attention head")
    query, key = record.pair
    begin = 1 if not record.scored[0] and key else 0  # BOS
    return marked(record.tokens[begin:], (query - begin, key - begin))


def _about(lines: Sequence[str], folder: Path | None) -> str:
    return prompts.render("attention-head/pairs", {"records": "\n".join(lines)}, folder)


@cache
def _examples(folder: Path | None) -> tuple[Turn, ...]:
    """The heads of the workspace's own file where there is one. Raises PromptError."""
    roots = [root for root in (folder, workspace.shipped() / "prompts") if root is not None]
    file = next((root / _EXAMPLES for root in roots if (root / _EXAMPLES).is_file()), None)
    if file is None:
        raise PromptError(f"no {_EXAMPLES} in prompts/; restore it from the package")
    try:
        heads = tomllib.loads(file.read_text("utf-8"))["heads"]
        return tuple(_turn(head, folder) for head in heads)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise PromptError(f"{file} holds no example heads: {error!r}") from error


def _turn(head: Mapping[str, Any], folder: Path | None) -> Turn:
    lines = [
        marked([token.encode() for token in record["tokens"]], (record["query"], record["key"]))
        for record in head["records"]
    ]
    return Turn(_about(lines, folder), head["explanation"])
