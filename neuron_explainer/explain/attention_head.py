"""Explains an attention head from text in which the query and the key of each pair are marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neuron_explainer import prompts
from neuron_explainer.conversation import Turn
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.explain.asking import Question, ask, check_option
from neuron_explainer.few_shot_heads import load_few_shot_heads
from neuron_explainer.llm.base import LLM, Feature
from neuron_explainer.pair_text import marked, marked_pair
from neuron_explainer.records import Explanation, NeuronRecord, Record


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
            _turns(self.prompts)[: self.few_shot],
            lambda number: _about(lines[:number], self.prompts),
            len(lines),
        )


def _line(record: Record) -> str:
    if record.pair is None:
        raise NeuronFailure("no-pair", "the records are not those of an attention head")
    return marked_pair(record.tokens, record.scored, record.pair)


def _about(lines: Sequence[str], folder: Path | None) -> str:
    return prompts.render("attention-head/pairs", {"records": "\n".join(lines)}, folder)


def _turns(folder: Path | None) -> tuple[Turn, ...]:
    """The example heads. Raises PromptError."""
    return tuple(
        Turn(
            _about([marked(shown.tokens, shown.strong) for shown in head.records], folder),
            head.explanation,
        )
        for head in load_few_shot_heads(folder)
    )
