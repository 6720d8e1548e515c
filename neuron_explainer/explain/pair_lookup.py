"""The lookup explainer of attention heads: no language model.

An explanation is a table of (key token, query token) from the head's train pairs, each with the
mean norm of what the head writes for it. It says which tokens the head connects, and nothing of
where they stand: a head that attends by position is beyond it.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuron_explainer import prompts
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.records import Explanation, NeuronRecord, TokenTable
from neuron_explainer.tokens import quoted

_NAMED = 6
_SCALE = 10.0  # activations are told on the scale that simulators use
_OTHER_KEY = 0.5  # what a query's mean counts for a key that was not seen with it


@dataclass(frozen=True, slots=True)
class PairLookup:
    """Rows for pairs of tokens, and one for each query token with whatever other key."""

    name = "pair-lookup"
    explains: ClassVar = "heads"

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when no train pair is written for, or a record has no pair."""
        scale = max((record.maximum for record in neuron.split("train")), default=0.0)
        if scale <= 0.0:
            raise NeuronFailure("never-active", "no train pair has an activation above 0")
        found: dict[tuple[bytes | None, bytes], list[float]] = defaultdict(list)
        for record in neuron.split("train"):
            if record.pair is None:
                raise NeuronFailure("no-pair", "the records are not those of an attention head")
            query, key = (record.tokens[place] for place in record.pair)
            found[key, query].append(_SCALE / scale * record.maximum)
            found[None, query].append(_OTHER_KEY * _SCALE / scale * record.maximum)
        table = _table(found)
        return Explanation(neuron.neuron, self.name, _sentence(table), table)


def _table(found: dict[tuple[bytes | None, bytes], list[float]]) -> TokenTable:
    """All rows by falling activation, those of pairs of tokens before the others."""
    rows = [
        (key, query, float(np.mean(norms)), sum(norms)) for (key, query), norms in found.items()
    ]
    rows.sort(key=lambda row: (row[0] is None, -row[2], row[0] or b"", row[1]))
    whole = sum(total for key, _, _, total in rows if key is not None)
    return TokenTable(
        tuple(key for key, _, _, _ in rows),
        tuple(query for _, query, _, _ in rows),
        tuple(mean for _, _, mean, _ in rows),
        tuple(0.0 if key is None else total / whole for key, _, _, total in rows),
        0.0,
    )


def _sentence(table: TokenTable) -> str:
    pairs = [
        f"from {quoted(query)} to {quoted(key)}"
        for key, query in zip(table.previous, table.tokens, strict=True)
        if key is not None
    ]
    others = len(pairs) - _NAMED
    more = f" and {others} more" if others > 0 else ""
    return prompts.render("pair-lookup", {"pairs": ", ".join(pairs[:_NAMED]), "more": more})
