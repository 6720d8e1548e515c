"""Explains a neuron by the one token on which it is loudest, and predicts it there alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.records import Explanation, NeuronRecord, Simulation, Stimulus, TokenTable
from neuron_explainer.tokens import quoted


@dataclass(frozen=True, slots=True)
class LoudestToken:
    """Names the token with the largest activation in the train records."""

    phrase: str = "Loudest on"

    name = "loudest-token"

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when the neuron never fires."""
        record = max(neuron.split("train"), key=lambda record: record.maximum, default=None)
        if record is None or record.maximum <= 0:
            raise NeuronFailure("never-active", "no train record has an activation above 0")
        token = record.tokens[int(np.argmax(np.where(record.scored, record.activations, -np.inf)))]
        table = TokenTable((None,), (token,), (10.0,), (1.0,), 0.0)
        return Explanation(neuron.neuron, self.name, f"{self.phrase} {quoted(token)}.", table)


@dataclass(frozen=True, slots=True)
class NamedToken:
    """Predicts 10 on the token that is named, and 0 elsewhere."""

    name = "loudest-token"

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        """Every neuron's own explanation."""
        del seed
        return {neuron: neuron for neuron in neurons}

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """One number a token."""
        assert explanation.table is not None
        (named,) = explanation.table.tokens
        return [
            Simulation(np.array([10.0 * (token == named) for token in stimulus.tokens], np.float32))
            for stimulus in stimuli
        ]
