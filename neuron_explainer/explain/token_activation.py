"""Explains from lists of tokens, each with its activation: Bills et al. 2023, "Explain"."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from neuron_explainer import prompts
from neuron_explainer.activations import END, START
from neuron_explainer.conversation import Turn
from neuron_explainer.explain.asking import Question, ask, check_option
from neuron_explainer.explain.shown import Shown, ShownRecord, choose, examples
from neuron_explainer.few_shot import load_few_shot
from neuron_explainer.llm.base import LLM, Feature
from neuron_explainer.records import Explanation, NeuronRecord
from neuron_explainer.token_text import write

# Below this share of tokens that are not at 0, those that are not are shown once more by themselves
_SPARSE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenActivation:
    """One token a line with an activation from 0 to 10."""

    llm: LLM
    records: int = 5  # the strongest train records
    quantile: int = 0  # records from all over the neuron's range beside them
    contrast: int = 0  # records in which it hardly fires
    few_shot: int = 3  # example neurons
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 100
    prompts: Path | None = None  # the workspace's own templates

    name: ClassVar[str] = "token-activation"
    needs: ClassVar[tuple[Feature, ...]] = ()  # chat or completions: whatever there is

    def __post_init__(self) -> None:
        check_option("records", self.records, 1)
        check_option("max_tokens", self.max_tokens, 1)
        for option in ("quantile", "contrast", "few_shot", "temperature"):
            check_option(option, getattr(self, option), 0)

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when the neuron never fires or the reply is no label."""
        shown = choose(neuron, self.records, self.quantile, self.contrast, self.seed)
        return await ask(self, neuron.neuron, self.question(shown))

    def question(self, shown: Shown) -> Question:
        """What is asked about these records."""
        return Question(
            prompts.load("token-activation/system", self.prompts),
            _examples(self.prompts)[: self.few_shot],
            lambda number: _about(shown.first(number), self.prompts),
            len(shown),
        )


@cache
def _examples(folder: Path | None) -> tuple[Turn, ...]:
    return tuple(
        Turn(_about(examples(neuron), folder), neuron.explanation)
        for neuron in load_few_shot(folder)
    )


def _about(shown: Shown, folder: Path | None) -> str:
    sections = [_section("records", shown.firing, folder)]
    if shown.non_zero_share() < _SPARSE:
        firing = [record for record in map(_non_zero, shown.firing) if record.tokens]
        sections.append(_section("non-zero", firing, folder))
    if shown.contrast:
        sections.append(_section("contrast", shown.contrast, folder))
    return "\n\n".join(sections)


def _section(template: str, records: Iterable[ShownRecord], folder: Path | None) -> str:
    blocks = "\n".join(map(_block, records))
    return prompts.render(f"token-activation/{template}", {"records": blocks}, folder)


def _block(record: ShownRecord) -> str:
    pairs = zip(record.tokens, record.levels, strict=True)
    return START + "\n".join(f"{write(token)}\t{level}" for token, level in pairs) + END


def _non_zero(record: ShownRecord) -> ShownRecord:
    kept = [place for place, level in enumerate(record.levels) if level]
    return ShownRecord(
        tuple(record.tokens[place] for place in kept), tuple(record.levels[place] for place in kept)
    )
