"""Per neuron, the excerpts with the largest keys, exact and in memory that does not grow.

A key is one 64-bit integer: a rank in the upper half, the excerpt's position in the lower. Ordered
by activation it gives the top records, by a seeded random number a uniform sample. Keys are unique,
so what is kept does not depend on the order or the size of the batches, and two reservoirs merge.
A reservoir may be ordered by something else than its keys, which then only name what it holds.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

EMPTY = torch.iinfo(torch.int64).min
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
    ordered = activation_keys(maxima, torch.zeros(maxima.shape[1], dtype=torch.int64))
    return torch.where(keys == EMPTY, EMPTY, (ordered & ~_POSITION) | (keys >> 32))


def _with_position(ranks: Tensor, positions: Tensor) -> Tensor:
    return (ranks.to(torch.int64) << 32) | (_POSITION - positions)


def positions_of(keys: Tensor) -> Tensor:
    """The excerpt positions in `keys`; -1 where a key is EMPTY."""
    return torch.where(keys == EMPTY, -1, _POSITION - (keys & _POSITION))


class Reservoir:
    """The `capacity` excerpts of highest order of each neuron, with their activations."""

    def __init__(self, neurons: int, capacity: int, time: int) -> None:
        self.keys = torch.full((neurons, capacity), EMPTY, dtype=torch.int64)
        self.order = self.keys.clone()
        self.activations = torch.zeros((neurons, capacity, time))
        self.maxima = torch.zeros((neurons, capacity))

    def update(
        self, keys: Tensor, maxima: Tensor, activations: Tensor, order: Tensor | None = None
    ) -> None:
        """Offer a batch: `keys`, `maxima` (neurons, batch), `activations` (batch, time, neurons).

        `order` (neurons, batch) says which are kept, by default the keys themselves. An excerpt
        whose order is EMPTY is not taken.
        """
        order = keys if order is None else order
        capacity = self.keys.shape[1]
        if not capacity:
            return
        candidates = torch.nonzero(order.amax(1) > self.order.amin(1))[:, 0]
        if not len(candidates):
            return
        both = torch.cat([self.order[candidates], order[candidates]], 1)
        kept = torch.zeros(both.shape, dtype=torch.bool)
        kept.scatter_(1, both.topk(capacity, 1, sorted=False).indices, True)
        # in each neuron as many leave as enter, and both lists go neuron by neuron
        leaving, slots = torch.nonzero(~kept[:, :capacity], as_tuple=True)
        entering, places = torch.nonzero(kept[:, capacity:], as_tuple=True)
        del leaving
        neurons = candidates[entering]
        self.keys[neurons, slots] = keys[neurons, places]
        self.order[neurons, slots] = order[neurons, places]
        self.maxima[neurons, slots] = maxima[neurons, places]
        rows = activations[places, :, neurons]  # (entering, time)
        self.activations[neurons, slots, : rows.shape[1]] = rows
        if rows.shape[1] < self.activations.shape[2]:
            self.activations[neurons, slots, rows.shape[1] :] = 0.0

    def sort(self) -> None:
        """Order every neuron's excerpts by falling order, empty slots last."""
        self._take(self.order.argsort(1, descending=True))

    def state(self) -> dict[str, Tensor]:
        """All that it holds, by name."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must be a reservoir of the same shape."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in another reservoir, of other excerpts and the same shape, by its `state`."""
        capacity = self.keys.shape[1]
        for name in _STATE:
            setattr(self, name, torch.cat([getattr(self, name), state[name]], 1))
        self._take(self.order.topk(capacity, 1, sorted=False).indices)

    def _take(self, places: Tensor) -> None:
        for name in ("keys", "order", "maxima"):
            setattr(self, name, getattr(self, name).gather(1, places))
        self.activations = self.activations.gather(
            1, places[:, :, None].expand(-1, -1, self.activations.shape[2])
        )


_STATE = ("keys", "order", "maxima", "activations")
