"""What goes through the subject at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.record_set import Corpus
from neuron_explainer.records import BoolArray

Made = TypeVar("Made")

_WINDOW = 1024  # excerpts that are sorted by length before they are cut into batches
_READ = 8  # excerpts after which the memory they were read from is let go


@dataclass(frozen=True, slots=True)
class Batch:
    """Excerpts padded on the right with token 0."""

    positions: NDArray[np.int64]  # (batch,) in the corpus
    tokens: NDArray[np.int64]  # (batch, time)
    scored: BoolArray  # (batch, time); false at BOS, special tokens and padding
    start: int = 0  # where it begins in the batch that it is a part of
    of: NDArray[np.int64] | None = None  # the positions of that batch, where it is a part
    _placed: dict[torch.device, "Placed"] = field(default_factory=dict, compare=False)

    @property
    def whole(self) -> NDArray[np.int64]:
        """The positions of the whole batch: one object for all its parts, by which to know them."""
        return self.positions if self.of is None else self.of

    def on(self, device: torch.device) -> "Placed":
        """The same on a device, moved there once."""
        if device not in self._placed:
            self._placed[device] = Placed.of(self, device)
        return self._placed[device]

    def pieces(self, most: int) -> list["Batch"]:
        """Parts of so many excerpts, in order; the last may have fewer."""
        count = len(self.positions)
        return [self.part(first, min(count, first + most)) for first in range(0, count, most)]

    def part(self, first: int, stop: int) -> "Batch":
        """The excerpts from `first` up to `stop`, with the padding of the whole batch."""
        rows = slice(first, stop)
        start, of = self.start + first, self.whole
        return Batch(self.positions[rows], self.tokens[rows], self.scored[rows], start, of)


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch on the device where its activations are."""

    batch: Batch
    positions: Tensor  # (batch,)
    scored: Tensor  # (batch, time)
    whole: bool  # whether all positions but the first are scored
    _parts: dict[tuple[int, int], "Placed"] = field(default_factory=dict, compare=False)
    _made: dict[int, tuple[Any, Any]] = field(default_factory=dict, compare=False)

    @property
    def count(self) -> int:
        """How many positions are scored."""
        return int(self.batch.scored.sum())

    def part(self, first: int, stop: int) -> "Placed":
        """The excerpts from `first` up to `stop`; made once, for all sites."""
        if (first, stop) == (0, len(self.batch.positions)):
            return self
        if (first, stop) not in self._parts:
            part = self.batch.part(first, stop)
            self._parts[first, stop] = Placed.of(part, self.scored.device)
        return self._parts[first, stop]

    def once(self, key: object, make: Callable[["Placed"], Made]) -> Made:
        """What `make` makes of it for `key`; made once, for all sites."""
        if id(key) not in self._made:
            self._made[id(key)] = (key, make(self))
        made: Made = self._made[id(key)][1]
        return made

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> "Placed":
        """Of a batch, moved to `device`."""
        positions = torch.from_numpy(batch.positions).to(device, non_blocking=True)
        scored = torch.from_numpy(batch.scored).to(device, non_blocking=True)
        whole = bool(batch.scored[:, 1:].all() and not batch.scored[:, 0].any())
        return cls(batch, positions, scored, whole)


def batches(
    corpus: Corpus,
    size: int,
    seed: int | Sequence[int],
    among: NDArray[np.int64] | None = None,
    tokens: int = 0,
) -> Iterator[Batch]:
    """Every excerpt, or those `among` them, once, in an order that is random but for
    neighbours of equal length.

    `size` excerpts make a batch; where `tokens` is not 0, so many as fit that many tokens, padding
    included, but at least one. Memory holds four bytes an excerpt besides what is read at once.
    """
    order = np.arange(len(corpus), dtype=np.int32) if among is None else among.astype(np.int32)
    np.random.default_rng(seed).shuffle(order)
    edges = [*range(0, len(order), max(_WINDOW, tokens // 4)), len(order)]
    for start, stop in pairwise(edges):
        sequences = list(_read(corpus, order[start:stop]))
        sequences.sort(key=lambda item: len(item[1]), reverse=True)
        first = 0
        while first < len(sequences):
            most = max(1, tokens // len(sequences[first][1])) if tokens else size
            yield _batch(corpus, sequences[first : first + most])
            first += most


def _read(
    corpus: Corpus, places: NDArray[np.int32]
) -> Iterator[tuple[np.int32, NDArray[np.int32]]]:
    """Copies: of each one read here and there the system keeps many more in memory."""
    for number, place in enumerate(places):
        yield place, corpus.token_ids(place).copy()
        if number % _READ == 0:
            corpus.release()


def _batch(corpus: Corpus, sequences: list[tuple[np.int32, NDArray[np.int32]]]) -> Batch:
    time = len(sequences[0][1])
    tokens = np.zeros((len(sequences), time), np.int64)
    scored = np.zeros((len(sequences), time), bool)
    for row, (_, ids) in enumerate(sequences):
        tokens[row, : len(ids)] = ids
        scored[row, : len(ids)] = corpus.scored(ids)
    return Batch(np.array([place for place, _ in sequences], np.int64), tokens, scored)
