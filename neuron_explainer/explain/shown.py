"""Which of a neuron's records an explainer shows, and at which levels.

firing      the strongest train records, then quantile records spread over the neuron's range
contrast    quantile records in which it hardly fires: non-examples
level       an activation from 0 to 10, relative to the largest in all that is shown

Positions that do not count are at level 0, and a first one that does not (BOS) is left out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from neuron_explainer.activations import normalise
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.few_shot import FewShotNeuron
from neuron_explainer.records import NeuronRecord, Record

# A record of contrast stays below this share of the largest activation.
_HARDLY = 0.3


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """A record as a prompt shows it."""

    tokens: tuple[bytes, ...]
    levels: tuple[int, ...]  # 0–10


@dataclass(frozen=True, slots=True)
class Shown:
    """Records in the order in which they are shown; when room is short the last go first."""

    firing: tuple[ShownRecord, ...]
    contrast: tuple[ShownRecord, ...] = ()

    def __len__(self) -> int:
        return len(self.firing) + len(self.contrast)

    def first(self, number: int) -> "Shown":
        """Only the first records."""
        return Shown(self.firing[:number], self.contrast[: max(0, number - len(self.firing))])

    def non_zero_share(self) -> float:
        """The share of all tokens that are not at level 0."""
        levels = [level for record in (*self.firing, *self.contrast) for level in record.levels]
        return sum(level > 0 for level in levels) / len(levels) if levels else 0.0


def choose(
    neuron: NeuronRecord, records: int, quantile: int = 0, contrast: int = 0, seed: int = 0
) -> Shown:
    """Up to so many records of each sort; fewer where the record set has no more of it.

    Raises NeuronFailure("never-active") when no train record fires, "no-quantile-records" when
    some are asked for and there is none.
    """
    top = sorted(neuron.split("train"), key=lambda record: -record.maximum)[:records]
    if not top or top[0].maximum <= 0.0:
        raise NeuronFailure("never-active", "no train record has an activation above 0")
    known = {record.sequence for record in top}
    others = [record for record in neuron.of_kind("quantile") if record.sequence not in known]
    if (quantile or contrast) and not others:
        raise NeuronFailure(
            "no-quantile-records", "collect with --per-band 1 or more, or ask for none of them"
        )
    others.sort(key=lambda record: (-record.maximum, record.sequence))
    low = [record for record in others if record.maximum < _HARDLY * top[0].maximum]
    quiet = low[::-1][:contrast]
    silent = {record.sequence for record in quiet}
    loud = [r for r in others if r.maximum > 0.0 and r.sequence not in silent]
    spread = _spread(loud, quantile, random.Random(f"{seed}/{neuron.neuron}"))
    scale = max(record.maximum for record in (*top, *spread))
    return Shown(
        tuple(_shown(record, scale) for record in (*top, *spread)),
        tuple(_shown(record, scale) for record in quiet),
    )


def examples(neuron: FewShotNeuron) -> Shown:
    """An example neuron's records, all of which fire."""
    return Shown(
        tuple(
            ShownRecord(tuple(token.encode() for token in tokens), levels)
            for tokens, levels in neuron.records
        )
    )


def _spread(records: Sequence[Record], number: int, chance: random.Random) -> list[Record]:
    """One record out of each of so many equal parts of the list, which is by falling maximum."""
    number = min(number, len(records))
    bounds = [round(part * len(records) / number) for part in range(number + 1)] if number else []
    return [records[chance.randrange(low, high)] for low, high in pairwise(bounds)]


def _shown(record: Record, scale: float) -> ShownRecord:
    begin = 1 if len(record.tokens) > 1 and not record.scored[0] else 0
    levels = normalise(np.where(record.scored, record.activations, 0.0), scale)
    return ShownRecord(record.tokens[begin:], tuple(levels[begin:].tolist()))
