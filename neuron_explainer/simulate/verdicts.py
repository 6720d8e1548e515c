"""Several sequences a request, and a yes or no about each: what sequence-level simulators share.

The verdict is about a sequence, and so are the scores (balanced accuracy, AUROC). As a simulation
has one value a token, each token of a sequence carries its sequence's verdict: 10 times the
probability of a yes where the model gives log probabilities, else 10 or 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import numpy as np

from neuron_explainer import prompts
from neuron_explainer.activations import END, LEVELS, START
from neuron_explainer.conversation import Prompt, Turn
from neuron_explainer.llm.base import LLM, Capabilities, Feature, Response
from neuron_explainer.records import Explanation, Fit, Simulation, Stimulus
from neuron_explainer.simulate.asking import asking, at_least, checked, together
from neuron_explainer.simulate.base import Predicted, others_explanation
from neuron_explainer.simulate.readings import Columns
from neuron_explainer.simulate.rendering import one_line, shown
from neuron_explainer.simulate.replies import Entry, Form, asked, request

Judged = tuple[str, bool]  # a text as it is shown, and the right verdict
Example = tuple[str, Sequence[Judged]]  # an explanation, and texts to judge by it

_ENTRY = 24  # tokens that an entry of the reply takes, at most; with line breaks and indents
_LEAD = "Reply:\n"


@dataclass(frozen=True, slots=True)
class VerdictSimulator(ABC):
    """Every sequence in one request with a few others, in an order seeded for each neuron."""

    llm: LLM
    sequences: int = 5  # in one request
    seed: int = 0  # of the order, so that the strongest sequences do not stand together
    logprobs: bool = True  # where the model gives any
    schema: bool = True  # enforce the reply's form where the model can
    few_shot: int = 3  # example neurons or heads, at most
    shuffled: bool = False  # simulate each neuron with another one's explanation: the null
    prompts: Path | None = None  # the workspace's own templates

    name: ClassVar[str]  # and of the folder of its templates: simulate-<name>
    form: ClassVar[Form]
    needs: ClassVar[tuple[Feature, ...]] = ()
    predicts: ClassVar[Predicted] = "sequences"

    def __post_init__(self) -> None:
        at_least(0, few_shot=self.few_shot)
        at_least(1, sequences=self.sequences)

    @staticmethod
    @abstractmethod
    def text(stimulus: Stimulus) -> str | None:
        """A sequence on one line, as the prompt shows it; None when it is not asked about."""

    @staticmethod
    @abstractmethod
    def examples(folder: Path | None) -> Sequence[Example]:
        """What is shown as judged rightly, from the example neurons or heads of `folder`."""

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        """Every neuron's own explanation, or another neuron's."""
        if self.shuffled:
            return others_explanation(neurons, seed)
        return {neuron: neuron for neuron in neurons}

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """One constant a sequence, from 0 to 10. Raises NeuronFailure, LLMError."""
        capabilities = await checked(self.llm, self.needs)
        texts = [self.text(stimulus) for stimulus in stimuli]
        batches = self._batches(texts, explanation)
        introduction = self._introduction(explanation.text)
        questions = [
            f"{introduction}\n{_rows([texts[place] or '' for place in batch])}" for batch in batches
        ]
        ask, fit = self._asking(questions, capabilities)
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
            _constant(stimulus, verdicts.get(place, np.nan), fit)
            for place, stimulus in enumerate(stimuli)
        ]

    def _batches(self, texts: Sequence[str | None], explanation: Explanation) -> list[list[int]]:
        """Which sequences are asked about together.

        Each neuron has an order of its own: with one for all, a model that says yes to every other
        text would be right or wrong about the same ones of every neuron.
        """
        seed = [self.seed, crc32(str(explanation.neuron).encode())]
        order = np.random.default_rng(seed).permutation(len(texts)).tolist()
        asked_about = [place for place in order if texts[place] is not None]
        starts = range(0, len(asked_about), self.sequences)
        return [asked_about[start : start + self.sequences] for start in starts]

    def _asking(
        self, questions: Sequence[str], capabilities: Capabilities
    ) -> tuple[Callable[[str], Prompt], Fit]:
        """Question → prompt, with the examples that leave room for the longest question."""
        system = self._render("system")
        turns = _turns(type(self), self.few_shot, self.prompts)
        answer = _answer_tokens(self.sequences)
        return asking(self.llm, capabilities, system, turns, questions, answer, _LEAD)

    async def _verdicts(
        self, prompt: Prompt, count: int, capabilities: Capabilities
    ) -> Sequence[float]:
        question = request(
            prompt,
            _answer_tokens(count),
            self.form,
            capabilities,
            logprobs=self.logprobs,
            schema=self.schema,
        )
        read = partial(_read, self.form, count)
        return await asked(
            self.llm, question, read, lambda problem: self._render("repair", problem=problem)
        )

    def _introduction(self, explanation: str) -> str:
        return self._render("neuron", explanation=one_line(explanation))

    def _render(self, template: str, **variables: str) -> str:
        return prompts.render(f"simulate-{self.name}/{template}", variables, self.prompts)


def _read(form: Form, count: int, response: Response) -> list[float]:
    """The probability of each yes. Raises ValueError for a reply of another form."""
    columns = Columns.of(response.tokens)
    entries = form.read(response.text, count)
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


def _constant(stimulus: Stimulus, probability: float, fit: Fit) -> Simulation:
    activations = np.full(len(stimulus.tokens), np.nan, np.float32)
    activations[shown(stimulus)] = LEVELS * probability
    return Simulation(activations, fit=fit)


@cache
def _turns(kind: type[VerdictSimulator], examples: int, folder: Path | None) -> tuple[Turn, ...]:
    known = kind.examples(folder)[:examples]
    return tuple(_turn(kind, number, example, folder) for number, example in enumerate(known))


def _turn(kind: type[VerdictSimulator], number: int, example: Example, folder: Path | None) -> Turn:
    explanation, judged = example
    order = np.random.default_rng(number).permutation(len(judged)).tolist()
    texts = [judged[place] for place in order]
    introduction = prompts.render(
        f"simulate-{kind.name}/neuron", {"explanation": one_line(explanation)}, folder
    )
    answer = kind.form.write({place: verdict for place, (_, verdict) in enumerate(texts)})
    return Turn(f"{introduction}\n{_rows([text for text, _ in texts])}", answer)


def _rows(texts: Sequence[str]) -> str:
    return START + "\n".join(f"{index}\t{text}" for index, text in enumerate(texts)) + END


def _answer_tokens(sequences: int) -> int:
    return _ENTRY * (sequences + 2)
