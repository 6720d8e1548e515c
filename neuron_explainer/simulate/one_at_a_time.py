"""One request a token: the model says what the neuron does at the last token of the text so far.

Instructions and examples come first, then the explanation, then the growing text, so that providers
read again only what is new. The prediction is the mean of the probabilities of 0 … 10.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from neuron_explainer import prompts, token_text
from neuron_explainer.conversation import Prompt, Turn
from neuron_explainer.few_shot import FewShotNeuron, FewShotRecord, load_few_shot
from neuron_explainer.llm.base import LLM, Capabilities, Feature, Request
from neuron_explainer.records import Explanation, Fit, Simulation, Stimulus
from neuron_explainer.simulate.asking import (
    ALTERNATIVES,
    asking,
    at_least,
    checked,
    defined,
    together,
)
from neuron_explainer.simulate.base import OwnExplanation
from neuron_explainer.simulate.readings import Columns, expected_at
from neuron_explainer.simulate.rendering import one_line, render_text, shown

# The second is for tokenizers that write "10" as "1" and "0".
_ANSWER = 2


@dataclass(frozen=True, slots=True)
class OneAtATimeSimulator(OwnExplanation):
    """One request for every scored token; needs log probabilities of what is written.

    Where the tokenizer writes "10" in two tokens, the chance of "0" after "1" is known only if the
    model wrote "1"; elsewhere all of it counts as 1.
    """

    llm: LLM
    few_shot: int = 5  # example neurons, at most
    alternatives: int = ALTERNATIVES  # to look for numbers among
    prompts: Path | None = None  # the workspace's own templates

    name = "one-at-a-time"
    needs: ClassVar[tuple[Feature, ...]] = ("top_logprobs",)

    def __post_init__(self) -> None:
        at_least(0, few_shot=self.few_shot)
        at_least(1, alternatives=self.alternatives)

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """Expected activations from 0 to 10. Raises NeuronFailure, LLMError."""
        capabilities = await checked(self.llm, self.needs)
        questions = [
            (number, place, self._question(explanation.text, stimulus.tokens, place, begin))
            for number, stimulus in enumerate(stimuli)
            for begin in [shown(stimulus).start]
            for place in np.flatnonzero(stimulus.scored).tolist()
        ]
        ask, fit = self._asking([question for _, _, question in questions], capabilities)
        values = await together(
            self._level(ask(question), capabilities) for _, _, question in questions
        )
        activations = [np.full(len(stimulus.tokens), np.nan, np.float32) for stimulus in stimuli]
        for (number, place, _), value in zip(questions, values, strict=True):
            activations[number][place] = value
        return defined([Simulation(row) for row in activations], stimuli, fit)

    def _question(
        self, explanation: str, tokens: Sequence[bytes], place: int, begin: int = 0
    ) -> str:
        variables = {
            "explanation": one_line(explanation),
            "text": render_text(tokens[begin : place + 1]),
            "token": token_text.write(tokens[place]),
        }
        return prompts.render("simulate-one-at-a-time/question", variables, self.prompts)

    def _asking(
        self, questions: Sequence[str], capabilities: Capabilities
    ) -> tuple[Callable[[str], Prompt], Fit]:
        """Question → prompt, with the examples that leave room for the longest question."""
        system = prompts.render("simulate-one-at-a-time/system", {}, self.prompts)
        # After a tab a number is the same token as at the beginning of a chat's answer.
        lead = prompts.render("simulate-one-at-a-time/lead", {}, self.prompts) + "\t"
        turns = [
            turn
            for neuron in load_few_shot(self.prompts)[: self.few_shot]
            for turn in self._examples(neuron)
        ]
        return asking(self.llm, capabilities, system, turns, questions, _ANSWER, lead)

    def _examples(self, neuron: FewShotNeuron) -> list[Turn]:
        """The last token that it fires on in one record, and one before it fires in another."""
        asked = [(neuron.records[0], -1, 0), (neuron.records[-1], 0, -1)]
        return [
            self._example(neuron.explanation, record, fires[which] + step)
            for record, which, step in asked
            if (fires := np.flatnonzero(record[1])).size and fires[which] + step >= 0
        ]

    def _example(self, explanation: str, record: FewShotRecord, place: int) -> Turn:
        tokens = [token.encode() for token in record[0]]
        return Turn(self._question(explanation, tokens, place), str(record[1][place]))

    async def _level(self, prompt: Prompt, capabilities: Capabilities) -> float:
        number = min(self.alternatives, capabilities.top_logprobs)
        request = Request(prompt, max_tokens=_ANSWER, top_logprobs=number)
        columns = Columns.of((await self.llm.complete(request)).tokens)
        return float(expected_at(columns, [0])[0])
