"""Per neuron, the excerpts with the largest keys, exact and in memory that does not grow.

A key is one 64-bit integer: a rank in the upper half, the excerpt's position in the lower. Ordered
by activation it gives the top records, by a seeded random number a uniform sample. Keys are unique,
so what is kept does not depend on the order or the size of the batches, and two reservoirs merge.
They are whole numbers, computed alike on every device.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from neuron_explainer.collect.state import Commit

EMPTY = torch.iinfo(torch.int64).min + 1
_PICKED = 1 << 12  # excerpts of a neuron that are picked at once in main memory
_BELOW_EMPTY, _NO_SLOT = EMPTY - 1, torch.iinfo(torch.int64).max
PRIORITIES = 1 << 31  # how many random priorities there are
_POSITION = 0xFFFFFFFF


def activation_ranks(maxima: Tensor) -> Tensor:
    """Float32 `maxima` as int32 in the same order; NaN above all."""
    bits = (maxima + 0.0).contiguous().view(torch.int32)  # + 0.0: minus zero ties with zero
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def priority_ranks(seed: int, neurons: int, positions: Tensor) -> Tensor:
    """Random int32 that are not negative, independent for each neuron: (neurons, batch).

    `positions` is (batch,), or (neurons, batch) where each neuron has its own. The same seed,
    neuron and position always give the same number.
    """
    places = positions if positions.ndim == 2 else positions[None, :]
    neuron = torch.arange(neurons, device=positions.device)[:, None]
    return ranks_of(seeded(seed, places), neuron)


def seeded(seed: int, positions: Tensor) -> Tensor:
    """The part of a random rank, int32, that depends on `seed` and excerpt alone."""
    return _mix(positions.to(torch.int32) * 0x2545F491 + (seed & 0x3FFFFFFF))


def ranks_of(seeded: Tensor, neurons: Tensor) -> Tensor:
    """Random ranks, by what depends on the excerpt, of these neurons."""
    return _mix(seeded ^ (neurons.to(torch.int32) * 0x27D4EB2F)) & 0x7FFFFFFF


def _mix(value: Tensor) -> Tensor:
    """MurmurHash3's finaliser on int32, whose products wrap around."""
    value = (value ^ ((value >> 16) & 0xFFFF)) * -2048144789
    value = (value ^ ((value >> 13) & 0x7FFFF)) * -1028477387
    return value ^ ((value >> 16) & 0xFFFF)


def activation_keys(maxima: Tensor, positions: Tensor) -> Tensor:
    """Keys (neurons, batch) that order by maximum activation, earlier positions first in a tie.

    `maxima` is float32 (neurons, batch), `positions` int64 (batch,).
    """
    return keys_of(activation_ranks(maxima), behind(positions))


def priority_keys(seed: int, neurons: int, positions: Tensor) -> Tensor:
    """Keys that order at random, as `priority_ranks`; a position of -1 gives EMPTY."""
    keys = keys_of(priority_ranks(seed, neurons, positions), behind(positions))
    return torch.where(positions < 0, EMPTY, keys)


def keys_of(ranks: Tensor, ties: Tensor) -> Tensor:
    """Keys that order by int32 `ranks`, in a tie by `ties`, which are from 0 to 2³² − 1."""
    return (ranks.to(torch.int64) << 32) | ties


def behind(positions: Tensor) -> Tensor:
    """The lower half of a key in which earlier positions come first."""
    return _POSITION - positions


def positions_of(keys: Tensor) -> Tensor:
    """The excerpt positions in `keys`; -1 where a key is EMPTY."""
    return torch.where(keys == EMPTY, -1, _POSITION - (keys & _POSITION))


def exchanged(held: Tensor, row: Tensor, offered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the keys `offered` (offers,) take the place of which of `held` (rows, capacity).

    Each is offered to a `row` (offers,), which ascends. Keys are unique within a row but for EMPTY,
    which is not taken. Of each exchange the row, the slot and the offer, (exchanges,) each; no slot
    twice.
    """
    if not len(row):
        return row, row, row
    capacity = held.shape[1]
    rows, inverse, counts = torch.unique_consecutive(row, return_inverse=True, return_counts=True)
    starts = counts.cumsum(0) - counts
    column = torch.arange(len(row), device=row.device) - starts[inverse]
    both = held.new_full((len(rows), capacity + int(counts.amax())), _BELOW_EMPTY)  # never kept
    both[:, :capacity] = held[rows]
    both[inverse, column + capacity] = torch.where(offered == EMPTY, _BELOW_EMPTY, offered)
    kept = torch.zeros(both.shape, dtype=torch.bool, device=both.device)
    kept.scatter_(1, both.topk(capacity, 1, sorted=False).indices, True)
    # in each row as many leave as enter, and both lists go row by row
    leaving, slot = torch.nonzero(~kept[:, :capacity], as_tuple=True)
    entering = torch.nonzero(kept[inverse, column + capacity])[:, 0]
    return rows[leaving], slot, entering


class Offers(NamedTuple):
    """Excerpts of a batch that reservoirs may keep, (offers,) each, by reservoir and neuron."""

    number: Tensor  # of the reservoir
    neuron: Tensor
    place: Tensor  # in the batch
    order: Tensor


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
            order, positions, maxima = (part[number, :, :capacity] for part in parts)
            activations = self._activations[:, start : start + capacity]
            self.each.append(Reservoir(order, positions, maxima, activations))

    def lowest(self) -> Tensor:
        """The order that an excerpt must exceed to be kept, (reservoirs, neurons)."""
        return self._order.amin(2)

    def offers(self, orders: Tensor) -> Offers:
        """What is worth offering of a batch of these `orders` (reservoirs, neurons, batch)."""
        worth = orders > self.lowest()[:, :, None] if self._total else orders < EMPTY
        number, neuron, place = torch.nonzero(worth, as_tuple=True)
        return Offers(number, neuron, place, orders[number, neuron, place])

    def weigh(self, offers: Offers, positions: Tensor, maxima: Tensor, rows: Rows) -> Commit:
        """Offer excerpts of a batch at `positions` (batch,) with its `maxima` (neurons, batch).

        Each reservoir keeps those of highest order.
        """
        width, time = self._order.shape[2], self._activations.shape[2]
        row = offers.number * self._neurons + offers.neuron
        row, slot, entering = exchanged(self._order.flatten(0, 1), row, offers.order)
        number, neuron, place = (part[entering] for part in offers[:3])
        cell = row * width + slot
        values = [offers.order[entering], positions[place], maxima[neuron, place]]
        of_row = neuron * self._total + self._starts[number] + slot
        # A GPU's memory may run out, so there all is picked before anything is changed. In main
        # memory it is picked bit by bit: large pieces of ever other sizes would leave gaps in it.
        size = _PICKED if cell.device.type == "cpu" else max(1, len(place))
        parts = [torch.split(part, size) for part in (of_row, place, neuron)]
        pieces = list(zip(*parts, strict=True))
        whole = rows.pick(place, neuron, time) if len(pieces) == 1 else None

        def commit() -> None:
            held = (self._order, self._positions, self._maxima)
            for part, entered in zip(held, values, strict=True):
                part.view(-1)[cell] = entered
            for where, places, neurons in pieces:
                picked = rows.pick(places, neurons, time) if whole is None else whole
                self._activations.view(-1, time)[where] = picked

        return commit
