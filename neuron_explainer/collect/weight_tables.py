"""The tables that come of a model's weights alone: `logit_effects`, `input_tokens`, `nearest`."""

from collections.abc import Mapping

import pyarrow as pa

from neuron_explainer.collect.input_tokens import InputTokens
from neuron_explainer.collect.logit_effects import LogitEffects
from neuron_explainer.collect.nearest import Nearest
from neuron_explainer.collect.taken import Taken
from neuron_explainer.config import CollectSettings
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.store import Shard
from neuron_explainer.subjects.base import Subject

WEIGHT_TABLES = ("logit_effects", "input_tokens", "nearest")


class WeightTables:
    """Those tables of a subject's sites, with as many rows a neuron as the settings say."""

    def __init__(
        self, subject: Subject, taken: Mapping[str, Taken], settings: CollectSettings
    ) -> None:
        """`subject` has those neurons alone that are `taken`."""
        self._taken = taken
        self._of_tokens = (
            LogitEffects(subject, settings.logit_tokens),
            InputTokens(subject, settings.input_tokens),
        )
        self._nearest = Nearest(getattr(subject, "whole", subject), settings.nearest)

    def shard(self, site: str, shard: Shard) -> dict[str, pa.Table]:
        """The tables of the neurons at these places among the taken, by name.

        Their neurons are places, but for the `other` ones. Of heads there are none: a head writes
        and reads no single direction. Raises SubjectError when a weight is not finite.
        """
        if is_pattern(site):
            return {}
        made: dict[str, pa.Table] = {}
        for effects in self._of_tokens:
            made |= effects.shard(site, shard)
        near = self._nearest.shard(site, self._taken[site].at(shard))
        return made | {name: self._taken[site].placed(table) for name, table in near.items()}
