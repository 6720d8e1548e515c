"""One structured request a sequence: the model lists indices and activations as JSON.

By default only the activations that are not zero are listed, which is what makes it cheap; in the
dense form all of them. With log probabilities a listed activation is the mean of the probabilities
of 0 … 10 where its number is written, else that number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from neuron_explainer import prompts, token_text
from neuron_explainer.activations import END, LEVELS, START
from neuron_explainer.conversation import Prompt, Turn
from neuron_explainer.few_shot import FewShotRecord, load_few_shot
from neuron_explainer.llm.base import LLM, Capabilities, Feature, Response
from neuron_explainer.records import Explanation, Fit, FloatArray, Simulation, Stimulus
from neuron_explainer.simulate.asking import asking, at_least, checked, defined, together
from neuron_explainer.simulate.base import OwnExplanation
from neuron_explainer.simulate.readings import Columns, expected_in
from neuron_explainer.simulate.rendering import one_line, rendered, shown
from neuron_explainer.simulate.replies import Form, asked, request

_VALUES = tuple(range(LEVELS + 1))
_SPARSE = Form("activations", "activation", _VALUES, complete=False)
_DENSE = Form("activations", "activation", _VALUES, complete=True)
_ENTRY = 24  # tokens that an entry of the reply takes, at most; with line breaks and indents
_LEAD = "Reply:\n"


@dataclass(frozen=True, slots=True)
class NumbersSimulator(OwnExplanation):
    """One request a sequence, and a second one when the first reply cannot be used."""

    llm: LLM
    dense: bool = False  # list zeros as well
    logprobs: bool = True  # where the model gives any
    schema: bool = True  # enforce the reply's form where the model can
    few_shot: int = 5  # example neurons, at most
    prompts: Path | None = None  # the workspace's own templates

    name = "numbers"
    needs: ClassVar[tuple[Feature, ...]] = ()

    def __post_init__(self) -> None:
        at_least(0, few_shot=self.few_shot)

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """Activations from 0 to 10. Raises NeuronFailure, LLMError."""
        capabilities = await checked(self.llm, self.needs)
        introduction = _introduction(explanation.text, self.prompts)
        questions = [f"{introduction}\n{_rows(rendered(stimulus))}" for stimulus in stimuli]
        ask, fit = self._asking(questions, stimuli, capabilities)
        simulations = await together(
            self._sequence(ask(question), stimulus, capabilities)
            for question, stimulus in zip(questions, stimuli, strict=True)
        )
        return defined(simulations, stimuli, fit)

    @property
    def _form(self) -> Form:
        return _DENSE if self.dense else _SPARSE

    def _asking(
        self, questions: Sequence[str], stimuli: Sequence[Stimulus], capabilities: Capabilities
    ) -> tuple[Callable[[str], Prompt], Fit]:
        """Question → prompt, with the examples that leave room for the longest question."""
        kind = "dense" if self.dense else "sparse"
        system = prompts.render(f"simulate-numbers/system-{kind}", {}, self.prompts)
        turns = _examples(self._form, self.few_shot, self.prompts)
        answer = max(map(self._answer, stimuli), default=0)
        return asking(self.llm, capabilities, system, turns, questions, answer, _LEAD)

    def _answer(self, stimulus: Stimulus) -> int:
        """How many tokens a reply may take; in a sparse one at most half of the entries."""
        entries = len(stimulus.tokens) + 2
        return _ENTRY * entries if self.dense else _ENTRY * entries // 2

    async def _sequence(
        self, prompt: Prompt, stimulus: Stimulus, capabilities: Capabilities
    ) -> Simulation:
        activations = np.full(len(stimulus.tokens), np.nan, np.float32)
        if stimulus.scored.any():
            question = request(
                prompt,
                self._answer(stimulus),
                self._form,
                capabilities,
                logprobs=self.logprobs,
                schema=self.schema,
            )
            rows = activations[shown(stimulus)]
            rows[:] = await asked(
                self.llm, question, lambda reply: self._read(reply, len(rows)), self._repair
            )
        return Simulation(activations)

    def _read(self, response: Response, count: int) -> FloatArray:
        """A reply's activations (rows,). Raises ValueError when it is not what was asked for."""
        activations = np.zeros(count, np.float32)  # what a sparse reply leaves out
        entries = self._form.read(response.text, count)
        values = np.array([entry.value for entry in entries.values()], np.float64)
        columns = Columns.of(response.tokens)
        if columns.spell(response.text):
            means = expected_in(columns, [entry.span for entry in entries.values()])
            values = np.where(np.isnan(means), values, means)
        activations[list(entries)] = values
        return activations

    def _repair(self, problem: str) -> str:
        return prompts.render("simulate-numbers/repair", {"problem": problem}, self.prompts)


@cache
def _examples(form: Form, neurons: int, folder: Path | None) -> tuple[Turn, ...]:
    """One text for each example neuron; the last one, in which it is weaker than elsewhere."""
    return tuple(
        _example(form, _introduction(neuron.explanation, folder), neuron.records[-1])
        for neuron in load_few_shot(folder)[:neurons]
    )


def _example(form: Form, introduction: str, record: FewShotRecord) -> Turn:
    tokens, levels = record
    rows = _rows([token_text.write(token.encode()) for token in tokens])
    values = {place: level for place, level in enumerate(levels) if level or form.complete}
    return Turn(f"{introduction}\n{rows}", form.write(values))


def _introduction(explanation: str, folder: Path | None) -> str:
    return prompts.render("simulate-numbers/neuron", {"explanation": one_line(explanation)}, folder)


def _rows(tokens: Sequence[str]) -> str:
    return START + "\n".join(f"{index}\t{token}" for index, token in enumerate(tokens)) + END
