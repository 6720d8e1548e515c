"""What a simulator is, and what most of them share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from neuron_explainer.errors import ConfigError
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.records import Explanation, Simulation, Stimulus

Predicted = Literal["tokens", "sequences"]
NULLS = ("constant", "shuffled", "pair-distance")  # simulators that know nothing of the neuron


class Simulator(Protocol):
    """Predicts activations from an explanation and text alone.

    Implementations are frozen dataclasses whose fields are their options. One whose prediction is
    the same at all tokens of a sequence says so by `predicts: ClassVar = "sequences"`; one that
    wants to see tokens highlighted, rightly or wrongly, by `highlights: ClassVar = True`; one that
    simulates attention heads, and these alone, by `simulates: ClassVar = "heads"`.
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


def others_explanation(neurons: Sequence[int], seed: int) -> Mapping[int, int]:
    """A random cycle through the neurons: none gets its own explanation if there are two."""
    order = np.random.default_rng([seed, *neurons[:1]]).permutation(neurons)
    return dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))


class OwnExplanation:
    """For simulators that simulate every neuron with its own explanation: all but the nulls."""

    __slots__ = ()

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        """Every neuron's own explanation."""
        del seed
        return {neuron: neuron for neuron in neurons}


def predicted_by(simulator: Simulator) -> Predicted:
    """What a simulator's predictions are about."""
    predicted: Predicted = getattr(simulator, "predicts", "tokens")
    return predicted


def sees_highlights(simulator: Simulator) -> bool:
    """Whether a simulator is to be given `Stimulus.highlighted`."""
    return bool(getattr(simulator, "highlights", False))


def check_sites(simulator: Simulator, sites: Iterable[str]) -> None:
    """Raises ConfigError where a simulator of neurons is given heads, or the other way round."""
    heads = getattr(simulator, "simulates", "neurons") == "heads"
    for site in sites:
        if is_pattern(site) != heads:
            what = ("neurons", "attention heads")
            raise ConfigError(
                f"{simulator.name} simulates {what[heads]}; the units of {site} are "
                f"{what[not heads]}: choose another --simulator"
            )
