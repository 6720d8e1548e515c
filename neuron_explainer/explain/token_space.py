"""Explains from tokens alone: what do those have in common that a neuron fires on, or promotes?"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np

from neuron_explainer import prompts
from neuron_explainer.activations import normalise
from neuron_explainer.conversation import Turn
from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.explain.asking import Question, ask, check_option
from neuron_explainer.few_shot import FewShotNeuron, load_few_shot
from neuron_explainer.llm.base import LLM, Feature
from neuron_explainer.records import Explanation, NeuronRecord, TokenRows
from neuron_explainer.token_text import write

Entry = tuple[bytes, int]  # a token and its level
Source = Literal["table", "promoted", "both"]


@dataclass(frozen=True, slots=True)
class Lists:
    """Tokens as they are shown, each list strongest first; when room is short the last go first."""

    fires: Sequence[Entry] = ()
    promoted: Sequence[bytes] = ()
    suppressed: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.fires) + len(self.promoted) + len(self.suppressed)

    def first(self, number: int) -> "Lists":
        """Only the first tokens."""
        left = max(0, number - len(self.fires))
        rest = max(0, left - len(self.promoted))
        return Lists(self.fires[:number], self.promoted[:left], self.suppressed[:rest])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpace:
    """The tokens with the highest mean activation, whatever stands around them.

    A token's mean counts as if it had occurred `support` times more without any activation, so that
    a rare token that fired once does not go before one that always fires.

    `source` adds the tokens that the neuron promotes and suppresses (both), where logit effects
    were collected, or shows these alone (promoted). They say what a neuron writes and not when it
    fires, and a simulation predicts the latter: so the table alone is what it does unless asked.
    """

    llm: LLM
    source: Source = "table"
    tokens: int = 30
    support: int = 5
    promoted: int = 10
    suppressed: int = 5
    few_shot: int = 3  # example neurons
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 100
    prompts: Path | None = None  # the workspace's own templates

    name: ClassVar[str] = "token-space"
    needs: ClassVar[tuple[Feature, ...]] = ()  # chat or completions: whatever there is

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ConfigError(f"source is {self.source!r}: choose {', '.join(get_args(Source))}")
        for option in ("tokens", "promoted", "max_tokens"):
            check_option(option, getattr(self, option), 1)
        for option in ("support", "suppressed", "few_shot", "temperature"):
            check_option(option, getattr(self, option), 0)

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when there are no tokens to show or the reply is no label."""
        return await ask(self, neuron.neuron, self.question(self.lists(neuron)))

    def lists(self, neuron: NeuronRecord) -> Lists:
        """What is shown of `neuron`. Raises NeuronFailure when what `source` needs is not there."""
        fires = () if self.source == "promoted" else self._fires(neuron.token_rows)
        if self.source == "table":
            return Lists(fires)
        promoted = [token for token, _ in neuron.promoted or ()][: self.promoted]
        suppressed = [token for token, _ in neuron.suppressed or ()][: self.suppressed]
        if not promoted and self.source == "promoted":
            raise NeuronFailure("no-logit-effects", "no tokens that it promotes were collected")
        return Lists(fires, promoted, suppressed)

    def question(self, lists: Lists) -> Question:
        """What is asked about these tokens."""
        return Question(
            prompts.load(_system(lists), self.prompts),
            _examples(
                bool(lists.fires), bool(lists.promoted), bool(lists.suppressed), self.prompts
            )[: self.few_shot],
            lambda number: _about(lists.first(number), self.prompts),
            len(lists),
        )

    def _fires(self, rows: TokenRows | None) -> list[Entry]:
        if rows is None or not len(rows):
            raise NeuronFailure("no-token-table", "the record set has no token table")
        entries = strongest(rows, self.tokens, self.support)
        if not entries:
            raise NeuronFailure("never-active", "no token has a mean activation above 0")
        return entries


def strongest(rows: TokenRows, number: int, support: int) -> list[Entry]:
    """The tokens with the highest means, strongest first, from level 1 on."""
    own = np.flatnonzero((rows.token >= 0) & (rows.previous < 0))
    counts = rows.count[own].astype(np.float64)
    means = rows.activation[own] * counts / np.maximum(1.0, counts + support)
    # In single precision ten times the largest is exact, and its level is 10, not 9.
    means = means.astype(np.float32)
    order = np.argsort(-means, kind="stable")[:number]
    levels = normalise(means[order], float(means[order[0]]) if len(order) else 0.0)
    tokens = (rows.vocabulary[token] for token in rows.token[own[order]].tolist())
    return [(token, level) for token, level in zip(tokens, levels.tolist(), strict=True) if level]


def entries_of(neuron: FewShotNeuron) -> list[Entry]:
    """An example neuron's firing tokens by falling mean level."""
    levels: dict[str, list[int]] = defaultdict(list)
    for tokens, activations in neuron.records:
        for token, level in zip(tokens, activations, strict=True):
            levels[token].append(level)
    means = {token.encode(): sum(found) // len(found) for token, found in levels.items()}
    return sorted(((token, mean) for token, mean in means.items() if mean), key=lambda e: -e[1])


def _system(lists: Lists) -> str:
    if not lists.promoted:
        return "token-space/system"
    return "token-space/system-both" if lists.fires else "token-space/system-promoted"


@cache
def _examples(
    fires: bool, promoted: bool, suppressed: bool, folder: Path | None
) -> tuple[Turn, ...]:
    """Example neurons in the form of the question: with the same lists."""
    return tuple(
        Turn(
            _about(
                Lists(
                    entries_of(neuron) if fires else (),
                    [token.encode() for token in neuron.promoted] if promoted else (),
                    [token.encode() for token in neuron.suppressed] if suppressed else (),
                ),
                folder,
            ),
            neuron.explanation if fires else neuron.effect,
        )
        for neuron in load_few_shot(folder)
        # one that fires on a place in the text has no tokens of its own to show here
        if not (fires and neuron.inside) and (neuron.promoted or not promoted)
    )


def _about(lists: Lists, folder: Path | None) -> str:
    parts = {
        "tokens": [f"{write(token)}\t{level}" for token, level in lists.fires],
        "promoted": [write(token) for token in lists.promoted],
        "suppressed": [write(token) for token in lists.suppressed],
    }
    return "\n\n".join(
        prompts.render(f"token-space/{template}", {"tokens": "\n".join(lines)}, folder)
        for template, lines in parts.items()
        if lines
    )
