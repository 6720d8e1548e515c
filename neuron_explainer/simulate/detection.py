"""Several sequences a request: is the neuron active anywhere in this text?

The verdict is about a sequence, and so is the score to put it to (balanced accuracy, AUROC). As a
simulation has one value a token, each token of a sequence carries its sequence's verdict: 10 times
the probability that it fires where the model gives log probabilities, else 10 or 0. A correlation
over tokens then only says whether active sequences are told from silent ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from neuron_explainer import prompts
from neuron_explainer.activations import END, LEVELS, START
from neuron_explainer.conversation import Prompt, Turn
from neuron_explainer.few_shot import FewShotNeuron, load_few_shot
from neuron_explainer.llm.base import LLM, Capabilities, Feature, Response
from neuron_explainer.records import Explanation, Simulation, Stimulus
from neuron_explainer.simulate.asking import asking, at_least, checked, together
from neuron_explainer.simulate.base import OwnExplanation
from neuron_explainer.simulate.readings import Columns
from neuron_explainer.simulate.rendering import one_line, render_text, shown
from neuron_explainer.simulate.replies import Entry, Form, asked, request

_FORM = Form("verdicts", "fires", (True, False), complete=True)
_ENTRY = 24  # tokens that an entry of the reply takes, at most; with line breaks and indents
_LEAD = "Reply:\n"


@dataclass(frozen=True, slots=True)
class DetectionSimulator(OwnExplanation):
    """Every sequence in one request with a few others, in a seeded order."""

    llm: LLM
    sequences: int = 5  # in one request
    seed: int = 0  # of the order, so that the strongest sequences do not stand together
    logprobs: bool = True  # where the model gives any
    schema: bool = True  # enforce the reply's form where the model can
    few_shot: int = 3  # example neurons, at most
    prompts: Path | None = None  # the workspace's own templates

    name = "detection"
    needs: ClassVar[tuple[Feature, ...]] = ()

    def __post_init__(self) -> None:
        at_least(0, few_shot=self.few_shot)
        at_least(1, sequences=self.sequences)

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """One constant a sequence, from 0 to 10. Raises NeuronFailure, LLMError."""
        capabilities = await checked(self.llm, self.needs)
        batches = self._batches(stimuli)
        introduction = _introduction(explanation.text, self.prompts)
        texts = [render_text(stimulus.tokens[shown(stimulus)]) for stimulus in stimuli]
        questions = [f"{introduction}\n{_rows([texts[place] for place in b])}" for b in batches]
        ask = self._asking(questions, capabilities)
        answers = await together(
            self._verdicts(ask(question), len(batch), capabilities)
            for question, batch in zip(questions, batches, strict=True)
        )
        verdicts = {
            place: verdict
            for batch, answer in zip(batches, answers, strict=True)
            for place, verdict in zip(batch, answer, strict=True)
        }
        return [
            _constant(stimulus, verdicts.get(place, np.nan))
            for place, stimulus in enumerate(stimuli)
        ]

    def _batches(self, stimuli: Sequence[Stimulus]) -> list[list[int]]:
        """Which sequences are asked about together; those without a scored token in none."""
        order = np.random.default_rng(self.seed).permutation(len(stimuli)).tolist()
        asked_about = [place for place in order if stimuli[place].scored.any()]
        starts = range(0, len(asked_about), self.sequences)
        return [asked_about[start : start + self.sequences] for start in starts]

    def _asking(
        self, questions: Sequence[str], capabilities: Capabilities
    ) -> Callable[[str], Prompt]:
        """Question → prompt, with the examples that leave room for the longest question."""
        system = prompts.render("simulate-detection/system", {}, self.prompts)
        turns = _examples(self.few_shot, self.prompts)
        answer = _answer_tokens(self.sequences)
        return asking(self.llm, capabilities, system, turns, questions, answer, _LEAD)

    async def _verdicts(
        self, prompt: Prompt, count: int, capabilities: Capabilities
    ) -> Sequence[float]:
        question = request(
            prompt,
            _answer_tokens(count),
            _FORM,
            capabilities,
            logprobs=self.logprobs,
            schema=self.schema,
        )
        return await asked(self.llm, question, partial(_read, count), self._repair)

    def _repair(self, problem: str) -> str:
        return prompts.render("simulate-detection/repair", {"problem": problem}, self.prompts)


def _read(count: int, response: Response) -> list[float]:
    """The probability that each sequence fires. Raises ValueError for a reply of another form."""
    columns = Columns.of(response.tokens)
    entries = _FORM.read(response.text, count)
    readable = columns.spell(response.text)
    return [_probability(columns if readable else None, entries[row]) for row in range(count)]


def _probability(columns: Columns | None, entry: Entry) -> float:
    if columns is not None:
        written = columns.written_at(entry.span[0])
        found = columns.alternatives_at(entry.span[0]) or {}
        masses = np.exp([found.get("true", -np.inf), found.get("false", -np.inf)])
        if written in {"true", "false"} and masses.sum() > 0:
            return float(masses[0] / masses.sum())
    return float(entry.value)


def _constant(stimulus: Stimulus, probability: float) -> Simulation:
    activations = np.full(len(stimulus.tokens), np.nan, np.float32)
    activations[shown(stimulus)] = LEVELS * probability
    return Simulation(activations)


@cache
def _examples(neurons: int, folder: Path | None) -> tuple[Turn, ...]:
    known = load_few_shot(folder)
    return tuple(_example(known, number, folder) for number in range(min(neurons, len(known))))


def _example(known: Sequence[FewShotNeuron], number: int, folder: Path | None) -> Turn:
    """Texts on which a neuron fires, and others' texts on which it is known to be silent."""
    neuron = known[number]
    active = [(record[0], True) for record in neuron.records[:2]]
    others = (record[0] for other in known if other is not neuron for record in other.records)
    silent = [(tokens, False) for tokens in others if _silent(neuron, tokens)][: len(active)]
    order = np.random.default_rng(number).permutation(len(active) + len(silent)).tolist()
    texts = [(active + silent)[place] for place in order]
    rows = _rows([render_text([token.encode() for token in tokens]) for tokens, _ in texts])
    answer = _FORM.write({place: fires for place, (_, fires) in enumerate(texts)})
    return Turn(f"{_introduction(neuron.explanation, folder)}\n{rows}", answer)


def _silent(neuron: FewShotNeuron, tokens: Sequence[str]) -> bool:
    telling = {*neuron.fires, *neuron.inside[:1]}
    return bool(telling) and telling.isdisjoint(tokens)


def _introduction(explanation: str, folder: Path | None) -> str:
    return prompts.render(
        "simulate-detection/neuron", {"explanation": one_line(explanation)}, folder
    )


def _rows(texts: Sequence[str]) -> str:
    return START + "\n".join(f"{index}\t{text}" for index, text in enumerate(texts)) + END


def _answer_tokens(sequences: int) -> int:
    return _ENTRY * (sequences + 2)
