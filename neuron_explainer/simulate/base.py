"""What a simulator is, and what most of them share."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from neuron_explainer.records import Explanation, Simulation, Stimulus


class Simulator(Protocol):
    """Predicts activations from an explanation and text alone.

    Implementations are frozen dataclasses whose fields are their options.
    """

    @property
    def name(self) -> str:
        """As in the registry."""

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        """Whose explanation each neuron is simulated with: its own, but for a null."""

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[Stimulus]
    ) -> list[Simulation]:
        """One simulation a stimulus, on any scale. Raises NeuronFailure."""


class OwnExplanation:
    """For simulators that simulate every neuron with its own explanation: all but the nulls."""

    __slots__ = ()

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        """Every neuron's own explanation."""
        del seed
        return {neuron: neuron for neuron in neurons}
