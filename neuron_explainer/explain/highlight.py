"""Explains from natural text in which «9: the strong tokens» are marked with their strength.

It takes about half the tokens of a list with one token a line. Neighbouring strong tokens share one
mark, whose strength is that of the strongest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from neuron_explainer import prompts
from neuron_explainer.conversation import Turn
from neuron_explainer.explain.asking import Question, ask, check_option
from neuron_explainer.explain.shown import Shown, ShownRecord, choose, examples
from neuron_explainer.few_shot import load_few_shot
from neuron_explainer.llm.base import LLM, Feature
from neuron_explainer.records import Explanation, NeuronRecord
from neuron_explainer.token_text import CLOSE, OPEN, write_among_marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Highlight:
    """One record a line, marked where the level is at least `threshold`."""

    llm: LLM
    records: int = 5  # the strongest train records
    quantile: int = 0  # records from all over the neuron's range beside them
    contrast: int = 0  # records in which it hardly fires
    threshold: int = 3  # level from which a token is marked
    few_shot: int = 4  # example neurons
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 100
    prompts: Path | None = None  # the workspace's own templates

    name: ClassVar[str] = "highlight"
    needs: ClassVar[tuple[Feature, ...]] = ()  # chat or completions: whatever there is

    def __post_init__(self) -> None:
        for option in ("records", "threshold", "max_tokens"):
            check_option(option, getattr(self, option), 1)
        for option in ("quantile", "contrast", "few_shot", "temperature"):
            check_option(option, getattr(self, option), 0)

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when the neuron never fires or the reply is no label."""
        shown = choose(neuron, self.records, self.quantile, self.contrast, self.seed)
        return await ask(self, neuron.neuron, self.question(shown))

    def question(self, shown: Shown) -> Question:
        """What is asked about these records."""
        return Question(
            prompts.load("highlight/system", self.prompts),
            _examples(self.threshold, self.prompts)[: self.few_shot],
            lambda number: _about(shown.first(number), self.threshold, self.prompts),
            len(shown),
        )


def marked(record: ShownRecord, threshold: int) -> str:
    """A record as one line of text, with its strong stretches marked."""
    return "".join(_stretches(record, threshold))


@cache
def _examples(threshold: int, folder: Path | None) -> tuple[Turn, ...]:
    return tuple(
        Turn(_about(examples(neuron), threshold, folder), neuron.explanation)
        for neuron in load_few_shot(folder)
    )


def _about(shown: Shown, threshold: int, folder: Path | None) -> str:
    parts = {"records": shown.firing, "contrast": shown.contrast}
    return "\n\n".join(
        prompts.render(
            f"highlight/{template}",
            {"records": "\n".join(marked(record, threshold) for record in records)},
            folder,
        )
        for template, records in parts.items()
        if records
    )


def _stretches(record: ShownRecord, threshold: int) -> Iterator[str]:
    pairs = zip(record.tokens, record.levels, strict=True)
    for strong, group in groupby(pairs, lambda pair: pair[1] >= threshold):
        tokens, levels = zip(*group, strict=True)
        # Tokens are joined before they are written: a character may be parted between two.
        text = write_among_marks(b"".join(tokens))
        yield f"{OPEN}{max(levels)}:{text}{CLOSE}" if strong else text
