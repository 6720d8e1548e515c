"""Chains of elementwise steps that a GPU can do in one pass over memory instead of many."""

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

Result = TypeVar("Result")
# what torch.compile raises where it cannot work: without Triton, a C compiler, a supported GPU
_UNFIT = (RuntimeError, ImportError, OSError, AttributeError, TypeError, NotImplementedError)


class Fused(Generic[Result]):
    """A function of tensors that is compiled for a GPU once that pays, and plain otherwise.

    Compiling takes some seconds, so it is put off until about as much was spent without it. Where
    it cannot be done the function stays plain: the results differ by rounding at most.
    """

    at_once = False  # do not put it off

    def __init__(self, function: Callable[..., Result], after: int) -> None:
        """Compile it when so many elements of its first argument were worked off plainly."""
        self._plain = function
        self._after = after
        self._compiled: Callable[..., Result] | None = None
        self._seen = 0
        self.broken: str | None = None  # why it cannot be compiled, where that was tried

    def __call__(self, first: torch.Tensor, *others: Any) -> Result:
        """What the function gives."""
        if first.device.type != "cuda" or self.broken is not None:
            return self._plain(first, *others)
        self._seen += first.numel()
        if self._seen <= self._after and not self.at_once:
            return self._plain(first, *others)
        try:
            if self._compiled is None:
                # what it would say of its own limits is of no use to anybody here
                logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
                self._compiled = torch.compile(self._plain, dynamic=True)
            return self._compiled(first, *others)
        except torch.OutOfMemoryError:
            raise
        except _UNFIT as error:
            self.broken = f"{type(error).__name__}: {error}"
            return self._plain(first, *others)
