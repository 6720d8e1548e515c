"""Activations in random order, in bounded memory: a buffer that is refilled when half is used."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
from torch import Generator, Tensor

from neuron_explainer.collect.batches import Batch, batches
from neuron_explainer.errors import SubjectError
from neuron_explainer.record_set import Corpus
from neuron_explainer.subjects.autoencoder import Normalisation, normalised
from neuron_explainer.subjects.base import Subject


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a site over excerpts of a corpus."""

    subject: Subject
    site: str
    corpus: Corpus
    size: int  # excerpts a forward pass

    @property
    def most(self) -> int:
        """As many rows as one forward pass can give."""
        return self.size * int(self.corpus.lengths.max())

    def rows(self, batch: Batch) -> Tensor:
        """Activations (rows, width) at the tokens that count, single precision, where they arise.

        Raises SubjectError when one is infinite or NaN.
        """
        kept: list[Tensor] = []

        def keep(activations: Tensor) -> None:
            scored = torch.from_numpy(batch.scored).to(activations.device)
            kept.append(activations[scored].float())

        self.subject.observe(torch.from_numpy(batch.tokens), {self.site: keep})
        if not bool(torch.isfinite(kept[0]).all()):
            raise SubjectError(
                f"{self.site} holds numbers that are infinite or NaN: choose --dtype float32"
            )
        return kept[0]

    def once(self, places: Tensor, seed: Sequence[int] = (0,)) -> Iterator[Batch]:
        """The excerpts at `places` (excerpts,), in an order that `seed` decides."""
        return batches(self.corpus, self.size, seed, places.numpy())

    def passes(self, places: Tensor, seed: int) -> Iterator[Batch]:
        """The excerpts at `places`, pass after pass without end, each in an order of its own."""
        for number in count():
            yield from self.once(places, (seed, number))


class Buffer:
    """Rows, as they are encoded, of which any may come next."""

    def __init__(
        self,
        reader: Reader,
        places: Tensor,
        normalisation: Normalisation,
        capacity: int,
        wanted: int,
        seed: int,
    ) -> None:
        """Hold at most `capacity` rows; read about `wanted` in all, of the excerpts at `places`.

        `capacity` must be enough for two forward passes of the reader.
        """
        assert capacity >= 2 * reader.most
        self._reader = reader
        self._normalisation: Normalisation = normalisation
        self._capacity = capacity
        self._wanted = wanted
        self._places = places
        self._seed = seed
        self._batches = reader.passes(places, seed)
        self._read_batches = self.read = 0  # forward passes, and rows
        self._rows: Tensor | None = None  # (capacity, width)
        self._order = torch.zeros(0, dtype=torch.int64)  # slots that are not used yet
        self._generator = Generator().manual_seed(seed)

    def draw(self, number: int) -> Tensor:
        """The next `number` rows (number, width), which are not drawn again; at the end fewer."""
        if self.read < self._wanted and len(self._order) < max(number, self._capacity // 2):
            self._refill()
        taken, self._order = self._order[:number], self._order[number:]
        return self._at(taken)

    def peek(self, number: int) -> Tensor:
        """Up to `number` of the rows that come next, which stay."""
        if not len(self._order):
            self._refill()
        return self._at(self._order[:number])

    def state(self) -> dict[str, Any]:
        """All that decides which rows come next."""
        assert self._rows is not None
        return {
            "rows": self._rows[self._order.to(self._rows.device)],
            "batches": self._read_batches,
            "read": self.read,
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a buffer was whose `state` this is, on the device of what it has read."""
        device = self.peek(1).device
        self._read_batches, self.read = state["batches"], state["read"]
        every = self._reader.passes(self._places, self._seed)
        self._batches = islice(every, self._read_batches, None)
        rows = state["rows"].to(device)
        self._rows = rows.new_empty(self._capacity, rows.shape[1])
        self._rows[: len(rows)] = rows
        self._order = torch.arange(len(rows))
        self._generator.set_state(state["generator"])

    def _at(self, slots: Tensor) -> Tensor:
        assert self._rows is not None
        return self._rows[slots.to(self._rows.device)]

    def _refill(self) -> None:
        """Read into the slots that were used, then mix all that are there."""
        used = torch.ones(self._capacity, dtype=torch.bool)
        used[self._order] = False
        free = used.nonzero().squeeze(1)
        filled = [self._order]
        while len(free) >= self._reader.most and self.read < self._wanted:
            rows = self._next()
            slots, free = free[: len(rows)], free[len(rows) :]
            if self._rows is None:
                self._rows = rows.new_empty(self._capacity, rows.shape[1])
            self._rows[slots.to(rows.device)] = rows
            filled.append(slots)
        order = torch.cat(filled)
        self._order = order[torch.randperm(len(order), generator=self._generator)]

    def _next(self) -> Tensor:
        rows, _ = normalised(self._reader.rows(next(self._batches)), self._normalisation)
        self._read_batches += 1
        self.read += len(rows)
        return rows
