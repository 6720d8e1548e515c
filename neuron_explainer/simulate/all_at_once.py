"""Every activation of a sequence from one request, by the log probabilities of its own prompt.

The prompt shows the sequence with the word `unknown` for every activation. Where each of them
begins, the model has a distribution over what could have stood there; its mean over 0 … 10 is the
prediction, so it depends on the explanation and the tokens so far, never on other activations.
Bills et al. 2023, "Simulate".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from neuron_explainer import prompts, token_text
from neuron_explainer.activations import END, LEVELS, START
from neuron_explainer.few_shot import FewShotRecord, load_few_shot
from neuron_explainer.llm.base import LLM, Capabilities, Feature, Reading, Request, reader, require
from neuron_explainer.records import Explanation, Fit, Simulation, Stimulus
from neuron_explainer.simulate.asking import (
    ALTERNATIVES,
    at_least,
    defined,
    fitted,
    together,
)
from neuron_explainer.simulate.base import OwnExplanation
from neuron_explainer.simulate.echo import MARK, at_marks, writes_ten_in_two
from neuron_explainer.simulate.readings import (
    Columns,
    Floats,
    expected_levels,
    level_masses,
    part_ten,
)
from neuron_explainer.simulate.rendering import one_line, rendered, shown

_QUARTERS = 4
_LEVEL_TEXTS = tuple(str(level) for level in range(LEVELS + 1))
_LEAST_ONE = 1e-3  # a share of "1" below this moves the mean by less than 0.01, whatever follows


@dataclass(frozen=True, slots=True)
class AllAtOnceSimulator(OwnExplanation):
    """One request a sequence; needs a server that gives a prompt's log probabilities.

    Where the tokenizer writes "10" in two tokens, "1" is told from "10" by one short request more
    for each token at which "1" is likely at all. A model in process is asked all that concerns a
    neuron at once, and has to compute what is the same in all its prompts only once.
    """

    llm: LLM
    few_shot: int = 5  # example neurons, at most
    alternatives: int = ALTERNATIVES  # to look for numbers among; in process all are at hand
    prompts: Path | None = None  # the workspace's own templates

    name = "all-at-once"
    needs: ClassVar[tuple[Feature, ...]] = ("completions", "prompt_logprobs")

    def __post_init__(self) -> None:
        at_least(0, few_shot=self.few_shot)
        at_least(1, alternatives=self.alternatives)

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """Expected activations from 0 to 10. Raises NeuronFailure, LLMError."""
        capabilities = await self.llm.capabilities()
        if capabilities.reading:
            simulations, fit = await self._read(explanation.text, stimuli)
            return defined(simulations, stimuli, fit)
        require(capabilities, self.needs, self.llm.model)
        head, fit = self._head(explanation.text, stimuli, capabilities)
        simulations = await together(
            self._sequence(head, stimulus, capabilities) for stimulus in stimuli
        )
        return defined(simulations, stimuli, fit)

    async def _read(
        self, explanation: str, stimuli: Sequence[Stimulus]
    ) -> tuple[list[Simulation], Fit | None]:
        """All sequences of a neuron in one reading."""
        asked = [stimulus for stimulus in stimuli if stimulus.scored.any()]
        simulations = [_undefined(stimulus) for stimulus in stimuli]
        if not asked:
            return simulations, None
        numbers = range(min(self.few_shot, len(load_few_shot(self.prompts))), -1, -1)
        reading = Reading(
            tuple(f"{_examples(number, self.prompts)}\n\n" for number in numbers),
            f"{_introduction(explanation, self.prompts)}\n\n",
            tuple(map(_block, asked)),
            MARK[0],
            _LEVEL_TEXTS,
            _LEAST_ONE,
        )
        masses = await reader(self.llm).read(reading)
        expected = expected_levels(masses.values.astype(np.float64))
        begin = 0
        for simulation, stimulus in zip(simulations, stimuli, strict=True):
            if stimulus.scored.any():
                places = simulation.activations[shown(stimulus)]
                places[:] = expected[begin : begin + len(places)]
                begin += len(places)
        prefix = masses.prefix  # each holds one example less than the one before
        return simulations, None if prefix is None else Fit(numbers[prefix], prefix)

    def _head(
        self, explanation: str, stimuli: Sequence[Stimulus], capabilities: Capabilities
    ) -> tuple[str, Fit]:
        """All of the prompt before the sequence: the same for every sequence of a neuron."""
        examples = min(self.few_shot, len(load_few_shot(self.prompts)))
        introduction = _introduction(explanation, self.prompts)
        longest = max((_block(stimulus) for stimulus in stimuli), key=len, default="")

        def head(number: int) -> str:
            return f"{_examples(number, self.prompts)}\n\n{introduction}\n\n"

        fit = fitted(self.llm, capabilities, lambda n: head(n) + longest, examples, 1)
        return head(fit.examples), fit

    async def _sequence(
        self, head: str, stimulus: Stimulus, capabilities: Capabilities
    ) -> Simulation:
        simulation = _undefined(stimulus)
        if stimulus.scored.any():
            request = Request(
                head + _block(stimulus),
                max_tokens=1,  # some servers take 0 for no limit
                prompt_logprobs=self.alternatives,
            )
            columns = Columns.of((await self.llm.complete(request)).prompt)
            tokens = rendered(stimulus)
            found = at_marks(columns, tokens)
            masses = level_masses(found)
            if writes_ten_in_two(columns, found):
                masses = await self._tens_parted(masses, head + START, tokens, capabilities)
            simulation.activations[shown(stimulus)] = expected_levels(masses)
        return simulation

    async def _tens_parted(
        self, masses: Floats, before: str, tokens: Sequence[str], capabilities: Capabilities
    ) -> Floats:
        """Masses (tokens, 11) in which the mass of the token "1" is parted among 1 and 10."""
        parted = masses.copy()
        total = np.logaddexp.reduce(masses, axis=1)
        ones = masses[:, 1]
        likely = np.flatnonzero(np.isfinite(ones) & (ones >= total + np.log(_LEAST_ONE))).tolist()
        if not capabilities.top_logprobs:
            parted[likely] = -np.inf  # not to be told: undefined
            return parted
        rows = [f"{token}{MARK}\n" for token in tokens]
        requests = [
            Request(
                f"{before}{''.join(rows[:place])}{tokens[place]}\t1",
                max_tokens=1,
                top_logprobs=min(self.alternatives, capabilities.top_logprobs),
            )
            for place in likely
        ]
        replies = await together(self.llm.complete(request) for request in requests)
        for place, reply in zip(likely, replies, strict=True):
            after = Columns.of(reply.tokens).alternatives_at(0) or {}
            parted[place] = part_ten(masses[place], float(np.exp(after.get("0", -np.inf))))
        return parted


def _undefined(stimulus: Stimulus) -> Simulation:
    return Simulation(np.full(len(stimulus.tokens), np.nan, np.float32))


def _introduction(explanation: str, folder: Path | None) -> str:
    variables = {"explanation": one_line(explanation)}
    return prompts.render("simulate-all-at-once/neuron", variables, folder)


@cache
def _examples(number: int, folder: Path | None) -> str:
    """The instructions and the first `number` examples: what all neurons' prompts begin with."""
    parts = [prompts.render("simulate-all-at-once/instructions", {}, folder)]
    records = 0
    for neuron in load_few_shot(folder)[:number]:
        parts.append(_introduction(neuron.explanation, folder))
        for record in neuron.records:
            parts.append(_example(record, records))
            records += 1
    return "\n\n".join(parts)


def _example(record: FewShotRecord, number: int) -> str:
    """A record whose first rows are not measured: none, a quarter, a half, three quarters."""
    tokens, levels = record
    begin = len(tokens) * (number % _QUARTERS) // _QUARTERS
    marks = [MARK] * begin + [f"\t{level}" for level in levels[begin:]]
    rows = [
        f"{token_text.write(token.encode())}{mark}"
        for token, mark in zip(tokens, marks, strict=True)
    ]
    return START + "\n".join(rows) + END


def _block(stimulus: Stimulus) -> str:
    return START + "\n".join(f"{token}{MARK}" for token in rendered(stimulus)) + END
