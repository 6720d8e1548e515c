"""What knowing only how far apart query and key are comes to: the null of attention heads.

Strong pairs are nearer to each other than pairs drawn at random, so a judge that says yes to near
pairs, whatever the explanation, is far above chance. A score of a head means what it adds to this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.records import Explanation, Simulation, Stimulus
from neuron_explainer.simulate.asking import at_least
from neuron_explainer.simulate.base import OwnExplanation, Predicted


@dataclass(frozen=True, slots=True)
class PairDistanceSimulator(OwnExplanation):
    """The nearer, the stronger. The explanation is not read."""

    half: int = 8  # tokens between query and key at which the prediction is half of the largest

    name = "pair-distance"
    predicts: ClassVar[Predicted] = "sequences"
    simulates: ClassVar = "heads"

    def __post_init__(self) -> None:
        at_least(1, half=self.half)

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """One constant a sequence, from 0 to 10. Raises NeuronFailure without a pair."""
        del explanation
        return [
            Simulation(np.full(len(stimulus.tokens), self._says(stimulus), np.float32))
            for stimulus in stimuli
        ]

    def _says(self, stimulus: Stimulus) -> float:
        if stimulus.pair is None:
            raise NeuronFailure("no-pair", "the record is not one of an attention head")
        query, key = stimulus.pair
        return 10.0 * self.half / (self.half + query - key)
