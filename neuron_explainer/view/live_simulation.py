"""A typed explanation, simulated and scored on the held-out records as the stages would do it.

The whole of the held-out records is what a simulator is given in the simulate stage, and what it
says of one may depend on the others: prompts are fitted to the longest, verdicts are asked for
several at a time. So records go one by one only to a simulator that asks a model about each, and
all of them go once more together where that made a difference.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from neuron_explainer import registry
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import LLM
from neuron_explainer.llm.forecast import Forecast, expected
from neuron_explainer.llm.overflow import fitted_anew
from neuron_explainer.llm.session import PRICES
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, NeuronId, NeuronRecord, Simulation, Stimulus
from neuron_explainer.simulate.base import Simulator, check_sites, predicted_by, sees_highlights
from neuron_explainer.simulate.marking import highlights
from neuron_explainer.view import live_scores, live_table
from neuron_explainer.view.contract import ACTIVATION_DIGITS, number, significant
from neuron_explainer.view.live_worker import Emit, Line
from neuron_explainer.workspace import Workspace

HELD_OUT = ("calibration", "valid")
SHOWN = "valid"
NULLS = ("constant", "shuffled")
_SEED = 0  # of highlights, as in the simulate stage by default


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A neuron with what somebody says of it, and who shall predict from that."""

    records: RecordSet
    neuron: int
    text: str
    simulator: str

    def explanation(self) -> Explanation:
        """The text, or the table that it writes. Raises Unavailable for one that is no table."""
        neuron = NeuronId(self.records.subject, self.records.site, self.neuron)
        table = None if needs_llm(self.simulator) else live_table.parse(self.text)
        return Explanation(neuron, "typed", self.text, table)


def simulators() -> list[dict[str, Any]]:
    """All that can be chosen, the nulls aside."""
    found = []
    for name in registry.names("simulators"):
        if name not in NULLS:
            made = registry.resolve("simulators", name)
            heads = getattr(made, "simulates", "neurons") == "heads"
            entry = {"name": name, "needs_llm": needs_llm(name), "predicts": predicted_by(made)}
            found.append({**entry, "heads": heads})
    return found


def needs_llm(simulator: str) -> bool:
    """Whether it asks a language model. Raises ConfigError for a name that is not known."""
    made = registry.resolve("simulators", simulator)
    return is_dataclass(made) and any(field.name == "llm" for field in fields(made))


def made(workspace: Workspace, asked: Hypothesis, llm: LLM | None) -> Simulator:
    """The simulator, with its own options by default. Raises ConfigError."""
    found: Simulator = registry.make(
        "simulators", asked.simulator, {}, llm=llm, prompts=workspace.prompts
    )
    check_sites(found, [asked.records.site])
    return found


async def forecast(workspace: Workspace, asked: Hypothesis, llm: LLM | None) -> Line:
    """What simulating would ask of the model, and at most cost; nothing is sent."""
    if llm is None or not needs_llm(asked.simulator):
        return {"requests": 0, "tokens": 0, "cost": 0.0, "llm": None}
    counting = Forecast(llm)
    simulator = made(workspace, asked, counting)
    neuron = _held_out(asked)
    stimuli = [stimulus for stimulus, _ in _shown(simulator, neuron)]
    sample = [simulator.simulate(asked.explanation(), stimuli)]
    found = await expected(counting, sample, 1, workspace.root / PRICES)
    tokens = found.prompt_tokens + found.completion_tokens
    return {"requests": found.requests, "tokens": tokens, "cost": found.cost, "llm": llm.model}


async def simulate(workspace: Workspace, asked: Hypothesis, llm: LLM | None, emit: Emit) -> None:
    """Emit each valid record with its prediction, then the scores. Raises NeuronFailure, UserError.

    A record may be emitted again: what came last holds.
    """
    simulator, explanation = made(workspace, asked, llm), asked.explanation()
    neuron = _held_out(asked)
    shown = _shown(simulator, neuron)
    predicted: dict[int, Simulation] = {}
    async for place, simulation in _predictions(simulator, explanation, [one for one, _ in shown]):
        predicted[place] = replace(simulation, highlight=shown[place][1])
        record = neuron.records[place]
        if record.split == SHOWN:
            emit(
                {
                    "kind": record.kind,
                    "rank": place,
                    "sequence": record.sequence,
                    "activations": significant(simulation.activations, ACTIVATION_DIGITS),
                    "correlation": number(live_scores.of_record(record, simulation)),
                }
            )
    held_out = [(record, predicted[place]) for place, record in enumerate(neuron.records)]
    sequences = predicted_by(simulator) == "sequences"
    scores = live_scores.of_sequences(neuron, held_out) if sequences else None
    emit({"scores": _written(live_scores.of_tokens(held_out) if scores is None else scores)})


def _written(scores: Any) -> Line:
    return {
        metric: {
            "value": number(score.value),
            "interval": ends,
            "undefined": score.undefined,
        }
        for metric, (score, ends) in scores.items()
    }


def _held_out(asked: Hypothesis) -> NeuronRecord:
    """The neuron with those of its records that explainers do not see."""
    found = asked.records.neuron(asked.neuron)
    return replace(
        found, records=tuple(record for record in found.records if record.split in HELD_OUT)
    )


def _shown(simulator: Simulator, neuron: NeuronRecord) -> list[tuple[Stimulus, Any]]:
    """What the simulator sees of each record, and what is highlighted in it."""
    marks = (
        highlights(neuron, _SEED) if sees_highlights(simulator) else [None] * len(neuron.records)
    )
    return [
        (replace(record.stimulus, highlighted=mark.tokens) if mark else record.stimulus, mark)
        for record, mark in zip(neuron.records, marks, strict=True)
    ]


async def _predictions(
    simulator: Simulator, explanation: Explanation, stimuli: Sequence[Stimulus]
) -> AsyncIterator[tuple[int, Simulation]]:
    """By place in `stimuli`: one by one where that can be, and as all together give them."""
    if await _asks_of_each(simulator):
        shortened = False
        try:
            async for place, simulation in _one_by_one(simulator, explanation, stimuli):
                shortened |= simulation.fit is not None and simulation.fit.examples_dropped > 0
                yield place, simulation
        except NeuronFailure as failure:
            if failure.cause != "no-valid-number":  # of one record: the others may have some
                raise
            shortened = True
        if not shortened:
            return
    together = await fitted_anew(simulator, lambda asking: asking.simulate(explanation, stimuli))
    for place, simulation in enumerate(together):
        yield place, simulation


async def _asks_of_each(simulator: Simulator) -> bool:
    llm: LLM | None = getattr(simulator, "llm", None)
    if llm is None or predicted_by(simulator) == "sequences":
        return False
    return not (await llm.capabilities()).reading  # in process, all of a neuron is read at once


async def _one_by_one(
    simulator: Simulator, explanation: Explanation, stimuli: Sequence[Stimulus]
) -> AsyncIterator[tuple[int, Simulation]]:
    async def one(stimulus: Stimulus) -> Simulation:
        [made] = await fitted_anew(
            simulator, lambda asking: asking.simulate(explanation, [stimulus])
        )
        found: Simulation = made
        return found

    tasks = [asyncio.ensure_future(one(stimulus)) for stimulus in stimuli]
    try:
        for place, task in enumerate(tasks):
            yield place, await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
