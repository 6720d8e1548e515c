"""What an explainer is."""

from collections.abc import Iterable
from typing import Protocol

from neuron_explainer.errors import ConfigError
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.records import Explanation, NeuronRecord


class Explainer(Protocol):
    """Writes a hypothesis about one neuron from what it is shown.

    Implementations are frozen dataclasses whose fields are their options. One that explains
    attention heads, and these alone, says so by `explains: ClassVar = "heads"`.
    """

    @property
    def name(self) -> str:
        """As in the registry."""

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """`neuron` holds train and quantile records only. Raises NeuronFailure."""


def check_sites(explainer: Explainer, sites: Iterable[str]) -> None:
    """Raises ConfigError where an explainer of neurons is given heads, or the other way round."""
    heads = getattr(explainer, "explains", "neurons") == "heads"
    for site in sites:
        if is_pattern(site) != heads:
            what = ("neurons", "attention heads")
            raise ConfigError(
                f"{explainer.name} explains {what[heads]}; the units of {site} are "
                f"{what[not heads]}: choose another --explainer or site"
            )
