"""Per neuron, the excerpts with the largest keys, exact and in memory that does not grow.

A key is one 64-bit integer: a rank in the upper half, the excerpt's position in the lower. Ordered
by activation it gives the top records, by a seeded random number a uniform sample. Keys are unique,
so what is kept does not depend on the order or the size of the batches, and two reservoirs merge.
They are whole numbers, computed alike on every device.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from neuron_explainer.collect.state import Commit

EMPTY = torch.iinfo(torch.int64).min + 1
_BELOW_EMPTY, _NO_SLOT = EMPTY - 1, torch.iinfo(torch.int64).max
PRIORITIES = 1 << 31  # how many random priorities there are
_POSITION = 0xFFFFFFFF


def activation_keys(maxima: Tensor, positions: Tensor) -> Tensor:
    """Keys (neurons, batch) that order by maximum activation, earlier positions first in a tie.

    `maxima` is float32 (neurons, batch), `positions` int64 (batch,).
    """
    bits = (maxima + 0.0).contiguous().view(torch.int32)  # + 0.0: minus zero ties with zero
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return _with_position(ordered, positions)


def priority_keys(seed: int, neurons: int, positions: Tensor) -> Tensor:
    """Keys that order at random, independently for each neuron: (neurons, batch).

    `positions` is (batch,), or (neurons, batch) where each neuron has its own. The same seed,
    neuron and position always give the same key; a position of -1 gives EMPTY.
    """
    places = positions if positions.ndim == 2 else positions[None, :]
    neuron = torch.arange(neurons, dtype=torch.int32, device=positions.device)[:, None]
    mixed = _mix(places.to(torch.int32) * 0x2545F491 + (seed & 0x3FFFFFFF))
    ranks = _mix(mixed ^ (neuron * 0x27D4EB2F)) & 0x7FFFFFFF
    return torch.where(places < 0, EMPTY, _with_position(ranks, places))


def _mix(value: Tensor) -> Tensor:
    """MurmurHash3's finaliser on int32, whose products wrap around."""
    value = (value ^ ((value >> 16) & 0xFFFF)) * -2048144789
    value = (value ^ ((value >> 13) & 0x7FFFF)) * -1028477387
    return value ^ ((value >> 16) & 0xFFFF)


def tie_breaking_keys(maxima: Tensor, keys: Tensor) -> Tensor:
    """Order (neurons, batch) by maximum activation, in a tie by the random priority in `keys`."""
    nowhere = torch.zeros(maxima.shape[1], dtype=torch.int64, device=maxima.device)
    ordered = activation_keys(maxima, nowhere)
    return torch.where(keys == EMPTY, EMPTY, (ordered & ~_POSITION) | (keys >> 32))


def _with_position(ranks: Tensor, positions: Tensor) -> Tensor:
    return (ranks.to(torch.int64) << 32) | (_POSITION - positions)


def positions_of(keys: Tensor) -> Tensor:
    """The excerpt positions in `keys`; -1 where a key is EMPTY."""
    return torch.where(keys == EMPTY, -1, _POSITION - (keys & _POSITION))


def exchanged(held: Tensor, offered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of `offered` (rows, batch) take the place of which of `held` (rows, capacity).

    Both are keys, unique within a row but for EMPTY, which is not taken. Of each exchange the row,
    the slot and the place in the batch, (exchanges,) each; no slot twice.
    """
    capacity = held.shape[1]
    row, place = torch.nonzero(offered > held.amin(1)[:, None], as_tuple=True)
    rows, inverse, counts = torch.unique_consecutive(row, return_inverse=True, return_counts=True)
    if not len(rows):
        return row, row, place
    starts = counts.cumsum(0) - counts
    column = torch.arange(len(row), device=row.device) - starts[inverse]
    both = held.new_full((len(rows), capacity + int(counts.amax())), _BELOW_EMPTY)  # never kept
    both[:, :capacity] = held[rows]
    both[inverse, column + capacity] = offered[row, place]
    kept = torch.zeros(both.shape, dtype=torch.bool, device=both.device)
    kept.scatter_(1, both.topk(capacity, 1, sorted=False).indices, True)
    # in each row as many leave as enter, and both lists go row by row
    leaving, slot = torch.nonzero(~kept[:, :capacity], as_tuple=True)
    entering = kept[inverse, column + capacity]
    return rows[leaving], slot, place[entering]


class Rows(Protocol):
    """A batch's activations, of which some are picked."""

    def pick(self, places: Tensor, neurons: Tensor, time: int) -> Tensor:
        """The activations of these neurons in these excerpts, (picked,) each.

        Float32 (picked, time), padded with 0.
        """


class Reservoir:
    """The excerpts of highest order of each neuron, with their positions and activations."""

    def __init__(
        self, order: Tensor, positions: Tensor, maxima: Tensor, activations: Tensor
    ) -> None:
        """Of what holds them: (neurons, capacity) each, activations (neurons, capacity, time)."""
        self.order = order
        self.positions = positions  # -1: an empty slot
        self.maxima = maxima
        self.activations = activations

    def sort(self) -> None:
        """Order every neuron's excerpts by falling order, empty slots last."""
        self._take(self.state(), self.order.argsort(1, descending=True))

    def state(self) -> dict[str, Tensor]:
        """All that it holds, by name."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must be a reservoir of the same shape."""
        for name, held in self.state().items():
            held.copy_(state[name])

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in another reservoir, of other excerpts and the same shape, by its `state`."""
        both = {
            name: torch.cat([held, state[name].to(held.device)], 1)
            for name, held in self.state().items()
        }
        self._take(both, both["order"].topk(self.order.shape[1], 1, sorted=False).indices)

    def _take(self, state: Mapping[str, Tensor], slots: Tensor) -> None:
        for name in ("order", "positions", "maxima"):
            getattr(self, name).copy_(state[name].gather(1, slots))
        activations = state["activations"]
        where = slots[:, :, None].expand(-1, -1, activations.shape[2])
        self.activations.copy_(activations.gather(1, where))


_STATE = ("order", "positions", "maxima", "activations")


class Reservoirs:
    """Several reservoirs of the same neurons, filled together: few large steps, not many small.

    Orders, positions and maxima lie side by side (reservoir, neuron, slot) as if all reservoirs had
    the largest capacity; a slot that is not there has an order that never leaves.
    """

    def __init__(
        self,
        neurons: int,
        capacities: Sequence[int],
        time: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._neurons, self._total = neurons, sum(capacities)
        shape = (len(capacities), neurons, max(capacities, default=0))
        self._order = torch.full(shape, _NO_SLOT, dtype=torch.int64, device=device)
        self._positions = torch.full_like(self._order, -1)
        self._maxima = torch.zeros(shape, device=device)
        self._activations = torch.zeros((neurons, self._total, time), device=device)
        starts = [sum(capacities[:number]) for number in range(len(capacities))]
        self._starts = torch.tensor(starts, device=device)
        self.each: list[Reservoir] = []
        for number, (start, capacity) in enumerate(zip(starts, capacities, strict=True)):
            self._order[number, :, :capacity] = EMPTY
            parts = (self._order, self._positions, self._maxima)
            held = [part[number, :, :capacity] for part in parts]
            self.each.append(Reservoir(*held, self._activations[:, start : start + capacity]))

    def weigh(self, orders: Tensor, positions: Tensor, maxima: Tensor, rows: Rows) -> Commit:
        """Offer the excerpts at `positions` (batch,) with their `maxima` (neurons, batch).

        By `orders` (reservoirs, neurons, batch) each reservoir says which it keeps; it does not
        take those whose order is EMPTY.
        """
        width, time = self._order.shape[2], self._activations.shape[2]
        if not self._total:
            return lambda: None
        row, slot, place = exchanged(self._order.view(-1, width), orders.flatten(0, 1))
        number, neuron = row // self._neurons, row % self._neurons
        cell = row * width + slot
        entering = [orders[number, neuron, place], positions[place], maxima[neuron, place]]
        of_row = neuron * self._total + self._starts[number] + slot
        picked = rows.pick(place, neuron, time)

        def commit() -> None:
            held = (self._order, self._positions, self._maxima)
            for part, values in zip(held, entering, strict=True):
                part.view(-1)[cell] = values
            self._activations.view(-1, time)[of_row] = picked

        return commit
