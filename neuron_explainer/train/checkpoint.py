"""The state of a training on disk, so that a killed one goes on where it was, to the same bytes."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from neuron_explainer.store import replacing

STATE_VERSION = 1  # to be raised with any change of what a training keeps
_UNREADABLE = (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError)


class Checkpoints:
    """The state of one training, written every so many tokens.

    `key` is what the training depends on: a state of another one is not taken up.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], every: int) -> None:
        """Write at most once in `every` tokens; never where it is 0."""
        self._path = path
        self._key = {**key, "state": STATE_VERSION}
        self._every = every
        self._waiting = 0  # tokens since the last one

    def load(self) -> Mapping[str, Any] | None:
        """What was saved, on the CPU; None where there is nothing whole, or of another training.

        No code that the file may hold is run.
        """
        try:
            held = torch.load(self._path, map_location="cpu", weights_only=True)
            if held["training"] != self._key:
                return None
        except _UNREADABLE:  # a training that begins again is no harm
            return None
        state: Mapping[str, Any] = held["state"]
        return state

    def seen(self, tokens: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Take note of `tokens` more, and write the state when it is time: whole or not at all."""
        self._waiting += tokens
        if self._every and self._waiting >= self._every:
            with replacing(self._path) as file:
                torch.save({"training": self._key, "state": dict(state())}, file)
            self._waiting = 0
