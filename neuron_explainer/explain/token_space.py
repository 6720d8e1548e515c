"""Explains from the token table alone: what do the neuron's strongest tokens have in common?"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from neuron_explainer import prompts
from neuron_explainer.activations import normalise
from neuron_explainer.conversation import Turn
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.explain.asking import Question, Sampling, ask, check_option
from neuron_explainer.few_shot import FewShotNeuron, load_few_shot
from neuron_explainer.llm.base import LLM, Feature
from neuron_explainer.records import Explanation, NeuronRecord, TokenRows
from neuron_explainer.token_text import write

Entry = tuple[bytes, int]  # a token and its level


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpace:
    """The tokens with the highest mean activation, whatever stands around them.

    A token's mean counts as if it had occurred `support` times more without any activation, so that
    a rare token that fired once does not go before one that always fires.
    """

    llm: LLM
    tokens: int = 30
    support: int = 5
    few_shot: int = 3  # example neurons
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 100
    prompts: Path | None = None  # the workspace's own templates

    name: ClassVar[str] = "token-space"
    needs: ClassVar[tuple[Feature, ...]] = ()  # chat or completions: whatever there is

    def __post_init__(self) -> None:
        for option in ("tokens", "max_tokens"):
            check_option(option, getattr(self, option), 1)
        for option in ("support", "few_shot", "temperature"):
            check_option(option, getattr(self, option), 0)

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when there is no token table, no active token or no label."""
        rows = neuron.token_rows
        if rows is None or not len(rows):
            raise NeuronFailure("no-token-table", "the record set has no token table")
        entries = strongest(rows, self.tokens, self.support)
        if not entries:
            raise NeuronFailure("never-active", "no token has a mean activation above 0")
        sampling = Sampling(self.max_tokens, self.temperature, self.seed)
        text = await ask(self.llm, self.question(entries), sampling)
        return Explanation(neuron.neuron, self.name, text)

    def question(self, entries: Sequence[Entry]) -> Question:
        """What is asked about these tokens."""
        return Question(
            prompts.load("token-space/system", self.prompts),
            _examples(self.prompts)[: self.few_shot],
            lambda number: _about(entries[:number], self.prompts),
            len(entries),
        )


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


@cache
def _examples(folder: Path | None) -> tuple[Turn, ...]:
    # A neuron that fires on a place in the text has no tokens of its own to show here.
    return tuple(
        Turn(_about(entries_of(neuron), folder), neuron.explanation)
        for neuron in load_few_shot(folder)
        if not neuron.inside
    )


def _about(entries: Sequence[Entry], folder: Path | None) -> str:
    lines = "\n".join(f"{write(token)}\t{level}" for token, level in entries)
    return prompts.render("token-space/tokens", {"tokens": lines}, folder)
