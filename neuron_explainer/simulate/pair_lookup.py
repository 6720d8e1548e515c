"""Predicts how strongly a head writes for a pair by looking its two tokens up in a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.records import Explanation, Simulation, Stimulus
from neuron_explainer.simulate.base import Predicted, others_explanation


@dataclass(frozen=True, slots=True)
class PairLookupSimulator:
    """The row of key and query, else that of the query, else the table's value for all others."""

    shuffled: bool = False  # simulate each head with another one's table: the null

    name = "pair-lookup"
    predicts: ClassVar[Predicted] = "sequences"
    simulates: ClassVar = "heads"

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        """Every head's own explanation, or another head's."""
        if self.shuffled:
            return others_explanation(neurons, seed)
        return {neuron: neuron for neuron in neurons}

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """One constant a sequence. Raises NeuronFailure without a table or without a pair."""
        table = explanation.table
        if table is None:
            raise NeuronFailure("no-table", "the explanation has no table of tokens to look up")
        rows = dict(
            zip(zip(table.previous, table.tokens, strict=True), table.activations, strict=True)
        )
        made = []
        for stimulus in stimuli:
            if stimulus.pair is None:
                raise NeuronFailure("no-pair", "the record is not one of an attention head")
            query, key = (stimulus.tokens[place] for place in stimulus.pair)
            value = rows.get((key, query), rows.get((None, query), table.otherwise))
            made.append(Simulation(np.full(len(stimulus.tokens), value, np.float32)))
        return made
