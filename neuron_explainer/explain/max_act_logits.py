"""Short labels from the tokens on which a neuron fires most, what follows, and what it promotes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from neuron_explainer import prompts
from neuron_explainer.conversation import Turn
from neuron_explainer.explain.asking import Question, ask, check_option
from neuron_explainer.explain.shown import Shown, choose, examples
from neuron_explainer.few_shot import load_few_shot
from neuron_explainer.llm.base import LLM, Feature
from neuron_explainer.records import Effects, Explanation, NeuronRecord
from neuron_explainer.token_text import write

_LEAST = 5  # half of the largest activation


@dataclass(frozen=True, slots=True)
class Place:
    """Where a neuron fires strongly."""

    level: int
    token: bytes
    after: bytes  # empty at the end of a record


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxActLogits:
    """A label of a few words."""

    llm: LLM
    records: int = 10  # the strongest train records
    quantile: int = 0  # records from all over the neuron's range beside them
    places: int = 20  # where it fires most in them
    following: int = 4  # tokens shown after each
    promoted: int = 10  # tokens that it promotes, where logit effects were collected
    few_shot: int = 4  # example neurons
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 40
    prompts: Path | None = None  # the workspace's own templates

    name: ClassVar[str] = "max-act-logits"
    needs: ClassVar[tuple[Feature, ...]] = ()  # chat or completions: whatever there is

    def __post_init__(self) -> None:
        for option in ("records", "places", "max_tokens"):
            check_option(option, getattr(self, option), 1)
        for option in ("quantile", "following", "promoted", "few_shot", "temperature"):
            check_option(option, getattr(self, option), 0)

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when the neuron never fires or the reply is no label."""
        shown = choose(neuron, self.records, self.quantile, seed=self.seed)
        return await ask(self, neuron.neuron, self.question(shown, neuron.promoted))

    def question(self, shown: Shown, effects: Effects | None = None) -> Question:
        """What is asked about these records, and about the tokens promoted where they are known."""
        found = places(shown, self.following)[: self.places]
        promoted = [token for token, _ in effects or ()][: self.promoted]
        system = "max-act-logits/system-promoted" if promoted else "max-act-logits/system"

        def about(number: int) -> str:
            left = max(0, number - len(found))
            return _about(found[:number], promoted[:left], self.prompts)

        return Question(
            prompts.load(system, self.prompts),
            _examples(self.following, bool(promoted), self.prompts)[: self.few_shot],
            about,
            len(found) + len(promoted),
        )


def places(shown: Shown, following: int) -> list[Place]:
    """The strong places of all records, strongest first, each sort of place once."""
    found = [
        Place(level, token, b"".join(record.tokens[at + 1 : at + 1 + following]))
        for record in shown.firing
        for at, (token, level) in enumerate(zip(record.tokens, record.levels, strict=True))
        if level >= _LEAST
    ]
    distinct = {(place.token, place.after): place for place in sorted(found, key=_level)}
    return sorted(distinct.values(), key=_level, reverse=True)


def _level(place: Place) -> int:
    return place.level


@cache
def _examples(following: int, promoted: bool, folder: Path | None) -> tuple[Turn, ...]:
    """Example neurons in the form of the question: with tokens promoted, or all without."""
    return tuple(
        Turn(
            _about(
                places(examples(neuron), following),
                [token.encode() for token in neuron.promoted] if promoted else (),
                folder,
            ),
            neuron.label,
        )
        for neuron in load_few_shot(folder)
        if neuron.promoted or not promoted
    )


def _about(found: Sequence[Place], promoted: Sequence[bytes], folder: Path | None) -> str:
    lines = (f"{place.level}\t{write(place.token)}\t{write(place.after)}" for place in found)
    text = prompts.render("max-act-logits/places", {"places": "\n".join(lines)}, folder)
    if not promoted:
        return text
    variables = {"tokens": "\n".join(map(write, promoted))}
    return f"{text}\n\n{prompts.render('max-act-logits/promoted', variables, folder)}"
