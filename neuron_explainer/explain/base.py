"""What an explainer is."""

from typing import Protocol

from neuron_explainer.records import Explanation, NeuronRecord


class Explainer(Protocol):
    """Writes a hypothesis about one neuron from what it is shown.

    Implementations are frozen dataclasses whose fields are their options.
    """

    @property
    def name(self) -> str:
        """As in the registry."""

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """`neuron` holds train and quantile records only. Raises NeuronFailure."""
