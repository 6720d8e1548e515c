"""Explanations made worse on purpose, to see which metrics notice.

Oikarinen, Yan and Weng 2025, "Evaluating Neuron Explanations: A Unified Framework with Sanity
Checks": a metric is of use only if it falls both when an explanation leaves out half of what
activates the neuron and when it names as much again that does not.

loud        a row of a token table that predicts more than what is not in the table
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.records import TokenTable

_LEAST_LOUD = 2
_TRIES = 8  # tokens drawn for each that is added


def has_concepts(table: TokenTable) -> bool:
    """Whether there is enough to leave out: two loud rows or more."""
    return len(_loud(table)) >= _LEAST_LOUD


def missing_concepts(table: TokenTable, rng: np.random.Generator) -> TokenTable:
    """The table without a random half of its loud rows."""
    loud = _loud(table)
    dropped = set(rng.choice(loud, len(loud) // 2, replace=False).tolist())
    kept = [row for row in range(len(table.tokens)) if row not in dropped]
    return replace(
        table,
        previous=tuple(table.previous[row] for row in kept),
        tokens=tuple(table.tokens[row] for row in kept),
        activations=tuple(table.activations[row] for row in kept),
        shares=tuple(table.shares[row] for row in kept),
    )


def added_concepts(
    table: TokenTable,
    vocabulary: tuple[bytes, ...],
    counts: NDArray[np.int64],
    rng: np.random.Generator,
) -> TokenTable:
    """The table with other tokens at loud rows' levels, about as frequent as these in the corpus.

    `counts` (vocabulary,) says how often each token occurs. Tokens are drawn by how often they
    occur, without those of the table and those that by themselves would be too many.
    """
    loud = _loud(table)
    place = {token: row for row, token in enumerate(vocabulary)}
    wanted = sum(
        int(counts[place[table.tokens[row]]]) for row in loud if table.tokens[row] in place
    )
    free = np.where(counts <= wanted, counts, 0).astype(np.float64)
    free[[place[token] for token in table.tokens if token in place]] = 0.0
    if not free.any():
        return table
    chosen: dict[int, None] = {}
    drawn = rng.choice(len(free), _TRIES * len(loud), p=free / free.sum()).tolist()
    for token in drawn:
        if token not in chosen and sum(int(counts[other]) for other in chosen) < wanted:
            chosen[token] = None
    levels = rng.choice([table.activations[row] for row in loud], len(chosen)).tolist()
    return replace(
        table,
        previous=(*table.previous, *(None for _ in chosen)),
        tokens=(*table.tokens, *(vocabulary[token] for token in chosen)),
        activations=(*table.activations, *levels),
        shares=(*table.shares, *(0.0 for _ in chosen)),
    )


def _loud(table: TokenTable) -> list[int]:
    return [row for row, level in enumerate(table.activations) if level > max(0.0, table.otherwise)]
