"""Predicts by looking tokens up in the explanation's table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.records import Explanation, Simulation, Stimulus, TokenTable
from neuron_explainer.simulate.base import OwnExplanation


@dataclass(frozen=True, slots=True)
class LookupSimulator(OwnExplanation):
    """A token's row after its previous token, else its own row, else the mean of the rest."""

    name = "token-lookup"

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """Raises NeuronFailure when the explanation has no table."""
        if explanation.table is None:
            raise NeuronFailure("no-table", "the explanation has no token table to look up")
        return look_up(explanation.table, stimuli)


def look_up(table: TokenTable, stimuli: Sequence[Stimulus]) -> list[Simulation]:
    """The table's prediction for every token."""
    rows = zip(table.previous, table.tokens, table.activations, strict=True)
    plain: dict[bytes, float] = {}
    after: dict[tuple[bytes, bytes], float] = {}
    for previous, token, activation in rows:
        if previous is None:
            plain[token] = activation
        else:
            after[previous, token] = activation
    otherwise = table.otherwise
    simulations = []
    for stimulus in stimuli:
        values = [plain.get(token, otherwise) for token in stimulus.tokens]
        if after:
            pairs = zip(stimulus.tokens, stimulus.tokens[1:], strict=False)
            for place, pair in enumerate(pairs, 1):
                values[place] = after.get(pair, values[place])
        simulations.append(Simulation(np.array(values, np.float32)))
    return simulations
