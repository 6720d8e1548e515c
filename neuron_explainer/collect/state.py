"""The state of what collects: tensors by dotted names, from the outside in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

# What a batch changes, worked out before: it takes no memory, so it is done whole or not at all
Commit = Callable[[], None]


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with `prefix` before every name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def within(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stands in `state` under names that begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


class Mergeable(Protocol):
    """Keeps something of the excerpts it was given, whatever their order."""

    def state(self) -> dict[str, Tensor]:
        """All that it holds, by name."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must be of the same shape."""

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in what such a one kept of other excerpts."""


class Composite(ABC):
    """Mergeable because its parts are."""

    @abstractmethod
    def parts(self) -> Mapping[str, Mergeable]:
        """The parts by name; no name with a dot is the beginning of another."""

    def state(self) -> dict[str, Tensor]:
        """All that it holds, by name."""
        held: dict[str, Tensor] = {}
        for name, part in self.parts().items():
            held |= prefixed(f"{name}.", part.state())
        return held

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must be of the same sizes and seed."""
        for name, part in self.parts().items():
            part.restore(within(f"{name}.", state))

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in what such a one kept of other excerpts of the corpus."""
        for name, part in self.parts().items():
            part.merge(within(f"{name}.", state))
