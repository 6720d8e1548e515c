"""Simulators that know nothing: what a score must beat to mean something."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuron_explainer import registry
from neuron_explainer.errors import ConfigError
from neuron_explainer.llm.base import LLM
from neuron_explainer.records import Explanation, Simulation, Stimulus
from neuron_explainer.simulate.base import (
    OwnExplanation,
    Simulator,
    others_explanation,
    predicted_by,
)


@dataclass(frozen=True, slots=True)
class ConstantSimulator(OwnExplanation):
    """The same activation everywhere. Its correlation is undefined, which counts as 0."""

    name = "constant"

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """Ones."""
        del explanation
        return [Simulation(np.ones(len(stimulus.tokens), np.float32)) for stimulus in stimuli]


@dataclass(frozen=True, slots=True)
class ShuffledSimulator:
    """Another simulator, given the explanation of another neuron of the same site."""

    of: str = "token-lookup"
    llm: LLM | None = None  # for a simulator that needs one

    name = "shuffled"

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        """Another neuron's for each, if there are two."""
        return others_explanation(neurons, seed)

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """As the other simulator does. Raises ConfigError for one that judges sequences."""
        other: Simulator = registry.make("simulators", self.of, {}, llm=self.llm)
        if predicted_by(other) == "sequences":
            raise ConfigError(
                f"shuffled predicts tokens, {self.of} sequences: simulate with {self.of} and "
                "--option shuffled=true"
            )
        return await other.simulate(explanation, stimuli)
