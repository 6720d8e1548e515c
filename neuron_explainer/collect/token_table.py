"""Mean activation per token, and per token after a certain other, of every neuron.

The table leaks nothing: what a neuron's own calibration, valid and test records added to it is
subtracted before it is used. Tokens that are too rare share one pooled row. So do those for which
the memory allowed does not suffice, the rarest first; the layout says how many that are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.batches import Placed
from neuron_explainer.collect.sparse import summed
from neuron_explainer.collect.state import Commit
from neuron_explainer.record_set import Corpus
from neuron_explainer.subjects.base import Latents

_SINGLE = float(np.finfo(np.float32).eps)
_PRODUCT_TOKENS = 1 << 13  # in one matrix product: more would have more rows that are mostly 0
# from torch 2.8 on, a product of half precision can be had in single precision
_SUMS_IN_SINGLE = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
POOLED = 0  # the row of all tokens without one of their own


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Which token, or pair of tokens, has which row. Row 0 is the pool."""

    keys: NDArray[np.int64]  # (rows - 1,) ascending; previous * vocabulary + token for pairs
    pairs: bool
    rare: int  # how many have too few occurrences for a row
    dropped: int  # how many would have enough but do not fit the memory allowed
    vocabulary: int

    @property
    def rows(self) -> int:
        """Number of rows, the pool included."""
        return len(self.keys) + 1

    @property
    def names(self) -> tuple[NDArray[np.int32] | None, NDArray[np.int32]]:
        """The previous token and the token of each row but the pool, (rows - 1,)."""
        previous, tokens = np.divmod(self.keys, self.vocabulary)
        names = tokens.astype(np.int32)
        return (previous.astype(np.int32) if self.pairs else None), names

    def rows_of(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each position in `tokens` (…, time)."""
        keys = _pair_keys(tokens, self.vocabulary) if self.pairs else tokens
        if not len(self.keys):
            return np.zeros_like(keys)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place + 1, POOLED)


def _pair_keys(tokens: NDArray[np.int64], vocabulary: int) -> NDArray[np.int64]:
    """previous * vocabulary + token; -1 at the first position, which has no previous."""
    keys = np.full(tokens.shape, -1, np.int64)
    keys[..., 1:] = tokens[..., :-1] * vocabulary + tokens[..., 1:]
    return keys


def token_layout(corpus: Corpus, minimum: int, most: int) -> TableLayout:
    """Rows for tokens with at least `minimum` occurrences, at most `most` rows."""
    counts = corpus.folder.read("vocabulary.parquet")["count"].to_numpy().copy()
    counts[corpus.vocabulary[1]] = 0
    chosen, rare, dropped = _frequent(counts, minimum, most)
    return TableLayout(chosen, False, rare, dropped, len(counts))


def context_layout(corpus: Corpus, minimum: int, most: int) -> TableLayout:
    """Rows for pairs of neighbouring tokens with at least `minimum` occurrences."""
    vocabulary = len(corpus.vocabulary[0])
    pairs, counts = _count_pairs(corpus, vocabulary)
    chosen, rare, dropped = _frequent(counts, minimum, most)
    return TableLayout(pairs[chosen], True, rare, dropped, vocabulary)


def _frequent(
    counts: NDArray[np.int64], minimum: int, most: int
) -> tuple[NDArray[np.int64], int, int]:
    """Indices in order, the number below `minimum` and the number cut off by `most`."""
    enough = np.flatnonzero(counts >= minimum)
    rare = int(np.count_nonzero(counts)) - len(enough)
    kept = enough[np.argsort(-counts[enough], kind="stable")[:most]]
    return np.sort(kept), rare, len(enough) - len(kept)


def _count_pairs(corpus: Corpus, vocabulary: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    special = corpus.vocabulary[1]
    pairs, counts = np.array([], np.int64), np.array([], np.int64)
    for first in range(0, len(corpus), 1 << 14):
        keys = [
            _pair_keys(corpus.token_ids(sequence).astype(np.int64), vocabulary)[1:]
            for sequence in range(first, min(first + (1 << 14), len(corpus)))
        ]
        together = np.concatenate([pairs, *keys])
        weights = np.concatenate([counts, np.ones(len(together) - len(pairs), np.int64)])
        pairs, places = np.unique(together, return_inverse=True)
        counts = np.bincount(places, weights, len(pairs)).astype(np.int64)
    counts[special[pairs % vocabulary]] = 0
    return pairs, counts


class TokenTableAccumulator:
    """Sums of activations per row and neuron."""

    def __init__(
        self, layout: TableLayout, neurons: int, device: torch.device | str = "cpu"
    ) -> None:
        self.layout = layout
        self._sums = torch.zeros((layout.rows, neurons), device=device)
        self._counts = np.zeros(layout.rows, np.int64)

    def update(self, rows: NDArray[np.int64], activations: Tensor) -> None:
        """Add `activations` (tokens, neurons) to the table's `rows` (tokens,)."""
        self._sums.index_add_(0, torch.from_numpy(rows), activations)
        self._counts += np.bincount(rows, minlength=len(self._counts))

    def weigh(self, values: Tensor, batch: Placed) -> Commit:
        """Add the scored positions of `values` (batch, time, neurons) of any type.

        By matrix products with the rows as ones and zeros: on a GPU, sums into the same row from
        many threads would come in any order, and never twice to the same bytes.
        """
        sums: list[tuple[Tensor, Tensor]] = []
        for part in batch.once(self.layout, partial(_parts, self.layout)):
            members = part.column[None, :] == part.order[:, None]
            sums.append((part.rows, _product(members, values[part.excerpts].flatten(0, 1))))
        return self._adding(self._sums, sums, batch)

    def weigh_sparse(self, scored: Latents, batch: Placed) -> Commit:
        """Add latents at scored positions; all that are not in `scored` are 0."""
        rows = torch.from_numpy(self.layout.rows_of(batch.batch.tokens).ravel())
        cells = rows.to(self._sums.device)[scored.place] * scored.shape[2] + scored.latent
        sums = summed(cells, scored.value.float())
        return self._adding(self._sums.view(-1), [sums], batch)

    def _adding(self, into: Tensor, sums: Sequence[tuple[Tensor, Tensor]], batch: Placed) -> Commit:
        rows = self.layout.rows_of(batch.batch.tokens)[batch.batch.scored]
        counts = np.bincount(rows, minlength=len(self._counts))

        def commit() -> None:
            for where, values in sums:
                into.index_add_(0, where, values)
            self._counts += counts

        return commit

    def state(self) -> dict[str, Tensor]:
        """All that it holds, by name."""
        return {"sums": self._sums, "counts": torch.from_numpy(self._counts)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must have the same layout."""
        self._sums.copy_(state["sums"])
        self._counts[:] = state["counts"].numpy()

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add the sums of other excerpts, in single precision like those within a part."""
        self._sums += state["sums"].to(self._sums.device)
        self._counts += state["counts"].numpy()

    def without(
        self, neurons: slice, held_out: "HeldOut"
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums and counts (neurons, rows) less what `held_out` added to them.

        A sum that comes from held-out records alone is exactly zero afterwards: what single
        precision would leave of it would still say where the neuron fires in them.
        """
        sums = self._sums[:, neurons].T.contiguous().double().cpu().numpy()
        rows = sums.shape[1]
        cells = held_out.neuron * rows + held_out.row
        own = np.bincount(cells, held_out.activation, sums.size).reshape(sums.shape)
        times = np.bincount(cells, minlength=sums.size).reshape(sums.shape)
        magnitude = np.bincount(cells, np.abs(held_out.activation), sums.size)
        rounding = _SINGLE * times * magnitude.reshape(sums.shape)
        counts = self._counts[None, :] - times
        left = sums - own
        return np.where((counts > 0) & (np.abs(left) > rounding), left, 0.0), counts


@dataclass(frozen=True, slots=True)
class _Part:
    """Some excerpts of a batch, and which rows of the table their tokens have."""

    excerpts: slice
    rows: Tensor  # (different rows,)
    order: Tensor  # 0, 1, 2 and so on, as many
    column: Tensor  # (tokens,) which of them each position has; -1 where it is not scored


def _parts(layout: TableLayout, batch: Placed) -> list[_Part]:
    rows, scored = layout.rows_of(batch.batch.tokens), batch.batch.scored
    step = max(1, _PRODUCT_TOKENS // scored.shape[1])
    return [
        _part(slice(first, first + step), rows, scored, batch.scored.device)
        for first in range(0, len(scored), step)
    ]


def _part(
    excerpts: slice, rows: NDArray[np.int64], scored: NDArray[np.bool_], device: torch.device
) -> _Part:
    there, which = np.unique(rows[excerpts][scored[excerpts]], return_inverse=True)
    column = np.full(scored[excerpts].shape, -1)
    column[scored[excerpts]] = which
    order = torch.arange(len(there), device=device)
    distinct, columns = (torch.from_numpy(part).to(device) for part in (there, column.ravel()))
    return _Part(excerpts, distinct, order, columns)


def _product(members: Tensor, values: Tensor) -> Tensor:
    """The float32 sums (rows, neurons) of `values` (tokens, neurons) by `members` of each row."""
    chosen = members.to(values.dtype)
    if values.dtype != torch.float32 and values.device.type == "cuda" and _SUMS_IN_SINGLE:
        return torch.mm(chosen, values, out_dtype=torch.float32)
    return chosen.float() @ values.float()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Every scored token of the neurons' own records that must not be in the table, once each."""

    neuron: NDArray[np.int64]  # (cells,) within the shard
    row: NDArray[np.int64]
    activation: NDArray[np.float32]


def best_rows(
    counts: NDArray[np.int64],
    means: NDArray[np.float64],
    gains: NDArray[np.float64],
    most: int,
) -> NDArray[np.bool_]:
    """The rows (neurons, rows) worth keeping, at most `most` of each neuron, never the pool.

    Half of them have the highest `gains` (see token_gain), the others the highest `means`.
    """
    usable = counts > 0
    usable[:, POOLED] = False
    best = [
        _largest(np.where(usable, ranking, -np.inf), number)
        for ranking, number in ((gains, most - most // 2), (means, most // 2))
    ]
    return (best[0] | best[1]) & usable


def _largest(values: NDArray[np.float64], number: int) -> NDArray[np.bool_]:
    """Where the `number` largest of each row stand; of equal ones the first."""
    if number >= values.shape[1]:
        return np.ones(values.shape, bool)
    if number == 0:
        return np.zeros(values.shape, bool)
    last = np.partition(values, -number, axis=1)[:, -number, None]
    above, equal = values > last, values == last
    room = number - np.count_nonzero(above, axis=1, keepdims=True)
    chosen: NDArray[np.bool_] = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return chosen
