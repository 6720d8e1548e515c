"""The keys and values of tokens that many texts begin with: computed once, then attended to.

Only caches that keep every token's keys and values as they are can be cut and shared. A model
whose cache is of another kind (a sliding window, a recurrent state) raises Unusual.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]

_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUGH_AGREEMENT = 0.1  # of half precision


class Unusual(Exception):
    """The model's cache cannot be cut and shared."""


# What models raise that are built otherwise than is assumed here. Whoever catches it lets
# torch.OutOfMemoryError pass, which is a RuntimeError.
UNFIT = (
    *(Unusual, RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError),
    AssertionError,
)


@dataclass(frozen=True, slots=True)
class States:
    """Tokens with their keys and values, one pair a layer, each (1, heads, tokens, width)."""

    ids: Ids
    layers: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, length: int) -> "States":
        """Those of the first tokens, which never depend on later ones."""
        parts = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers]
        return States(self.ids[:length], tuple(parts))


NONE = States(np.zeros(0, np.int64), ())


@dataclass(frozen=True, slots=True)
class Passed:
    """What a forward pass over padded rows leaves behind."""

    states: Tensor  # the last hidden ones, (rows, longest, width)
    cache: Any  # of the tokens before and of these, padding too


class Passes:
    """A model's forward passes: over a whole text, and on from states that are there already."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._base = network.base_model
        self._device = network.device
        self._dtype = network.dtype
        self._placed = "position_ids" in inspect.signature(self._base.forward).parameters
        # such windows, as GPT-Neo's, count from a token's place in the cache
        self._windowed = bool(getattr(network.config, "window_size", None))
        self.run = 0  # tokens so far

    def whole(self, ids: Ids) -> Tensor:
        """The logits (tokens, vocabulary) of a text, by nothing but the model's own code."""
        self.run += len(ids)
        row = torch.tensor(ids[None], device=self._device)
        logits: Tensor = self._network(input_ids=row, use_cache=False).logits[0]
        return logits

    def alike(self, shares: Tensor, others: Tensor) -> bool:
        """Whether two ways to the same probabilities differ by no more than rounding."""
        most = _AGREEMENT.get(self._dtype, _ROUGH_AGREEMENT)
        return bool((shares - others).abs().max() <= most)

    def extended(self, states: States, ids: Ids) -> States:
        """`states` and those of the tokens after them."""
        passed = self.after(states, [ids])
        layers = tuple((layer.keys, layer.values) for layer in passed.cache.layers)
        return States(np.concatenate([states.ids, ids]), layers)

    def after(self, states: States, rows: Sequence[Ids]) -> Passed:
        """The rows, each of which goes on after the same states."""
        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros((len(rows), len(states) + longest), np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(states) + len(row)] = 1
        begin = len(states)
        places = np.broadcast_to(np.arange(begin, begin + longest), ids.shape)
        self.run += sum(map(len, rows))
        cache = _spread(states, len(rows)) if len(states) else None
        passed = self._pass(ids, torch.from_numpy(mask).to(self._device), places, cache)
        _check(passed.cache, len(rows), begin + longest)
        return passed

    def beside(self, passed: Passed, token: int, places: Sequence[Ids], begin: int) -> Tensor:
        """Last hidden states of one more token at places of each row, (rows, most places, width).

        A token at a place stands after the tokens before the place and sees them and itself, none
        of the row's own tokens from there on and no other such token. `begin` is the place of the
        rows' first token. Raises Unusual where no such place can be given. The cache is used up.
        """
        if not self._placed or self._windowed:
            raise Unusual("a place other than the next")
        most = max(map(len, places))
        known = begin + passed.states.shape[1]
        ids = np.full((len(places), most), token, np.int64)
        at = np.zeros((len(places), most), np.int64)
        seen = np.zeros((len(places), 1, most, known + most), bool)
        seen[:, 0, range(most), range(known, known + most)] = True
        for row, some in enumerate(places):
            at[row, : len(some)] = some
            for number, place in enumerate(some):
                seen[row, 0, number, :place] = True
        self.run += sum(map(len, places))
        mask = torch.zeros(seen.shape, dtype=self._dtype)
        mask.masked_fill_(torch.from_numpy(~seen), torch.finfo(self._dtype).min)
        return self._pass(ids, mask.to(self._device), at, passed.cache).states

    def _pass(self, ids: Ids, mask: Tensor, places: Ids, cache: Any) -> Passed:
        placed = {"position_ids": torch.tensor(places, device=self._device)} if self._placed else {}
        output = self._base(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **placed,
        )
        return Passed(output.last_hidden_state, output.past_key_values)


def picked(states: Tensor, columns: Sequence[Ids]) -> Tensor:
    """(all columns of all rows, width) of states (rows, longest, width)."""
    rows = np.repeat(np.arange(len(columns)), [len(some) for some in columns])
    at = [torch.from_numpy(places).to(states.device) for places in (rows, np.concatenate(columns))]
    return states[at[0], at[1]]


def _spread(states: States, rows: int) -> Any:
    """A cache in which every row has the same states; the model copies them when it appends."""
    from transformers import DynamicCache

    cache: Any = DynamicCache()
    for number, (keys, values) in enumerate(states.layers):
        cache.update(keys[:, :, :0], values[:, :, :0], number)
        cache.layers[number].keys = keys.expand(rows, -1, -1, -1)
        cache.layers[number].values = values.expand(rows, -1, -1, -1)
    return cache


def _check(cache: Any, rows: int, tokens: int) -> None:
    """Raise Unusual unless the cache is one that keeps all tokens of all layers."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers: Any = cache.layers if type(cache) is DynamicCache else ()
    complete = all(
        type(layer) is DynamicLayer
        and layer.keys is not None
        and (layer.keys.shape[0], layer.keys.shape[2]) == (rows, tokens)
        for layer in layers
    )
    if not layers or not complete:
        raise Unusual(type(cache).__name__)
