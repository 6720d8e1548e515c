"""Pairs of positions that an attention head connects: a query i and a key j that is not after it.

The flat index of a pair is i(i+1)/2 + j: the lower triangle of the pattern, row by row.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Whole = TypeVar("Whole", int, NDArray[np.int64])

PATTERN = "attn.hook_pattern"  # ends the name of a site whose units are a block's heads


def is_pattern(site: str) -> bool:
    """Whether the units of a site are attention heads."""
    return site.endswith(f".{PATTERN}")


def flat_index(query: Whole, key: Whole) -> Whole:
    """The index of pairs, of which no key is after its query."""
    return query * (query + 1) // 2 + key


def pair_at(flat: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Query and key positions of flat indices (pairs,) below 2⁵⁰: the inverse of `flat_index`."""
    query = ((np.sqrt(8.0 * flat + 1.0) - 1.0) / 2.0).astype(np.int64)
    query -= flat_index(query, 0 * query) > flat  # the root may be rounded up
    return query, flat - flat_index(query, 0 * query)
