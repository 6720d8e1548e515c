"""Batches on their way to the subject: made ahead of time, halved where memory does not suffice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from neuron_explainer.collect.batches import Batch
from neuron_explainer.config import CollectSettings
from neuron_explainer.errors import SubjectError

_DEVICE_TOKENS = 1 << 16  # so many keep a large GPU busy between two waits for it
Item = TypeVar("Item")


def batch_tokens(settings: CollectSettings, device: str) -> int:
    """How many tokens make a batch; 0 where `settings.batch` excerpts do.

    Of what is asked for and the kind of device alone, so that all parts of a pass agree.
    """
    on_gpu = device.startswith(("cuda", "auto"))
    return settings.batch_tokens or (_DEVICE_TOKENS if on_gpu else 0)


def made_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made while the one before is in use."""
    with ThreadPoolExecutor(1, "batches") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


class Fitting:
    """Takes in batches, in parts from the first that does not fit the device's memory on.

    `take` must not take in again what it took in of a batch that is given to it in parts.
    """

    def __init__(self, take: Callable[[Batch], None]) -> None:
        self._take = take
        self._most: int | None = None  # excerpts that may fit

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know."""
        if self._most is None:
            return ()
        return (
            f"the device ran out of memory: batches were halved, down to {self._most} excerpts; "
            "a smaller --batch-tokens saves the attempts",
        )

    def __call__(self, batch: Batch) -> None:
        """Take in a batch. Raises SubjectError where not even one excerpt fits."""
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            excerpts = len(part.positions)
            if self._most is not None and excerpts > self._most:
                waiting += reversed(part.pieces(self._most))
            elif not self._fits(part):
                if excerpts == 1:
                    raise SubjectError(
                        f"one excerpt of {part.tokens.shape[1]} tokens does not fit the device's "
                        "memory: choose --dtype bfloat16, fewer --excerpt-tokens, a smaller "
                        "--memory or fewer layers at once"
                    )
                self._most = excerpts // 2
                waiting.append(part)

    def _fits(self, batch: Batch) -> bool:
        try:
            self._take(batch)
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        if not fits:  # only here the error, which held what was computed, is gone
            torch.cuda.empty_cache()  # nothing, where CUDA is not in use
        return fits
