"""Lets a GPU reduce one site's activations while it computes the next ones.

Which excerpts of a batch are kept is known on the device, but how many only after asking it: to
wait there at every site would leave it idle. So each site's work is put off until the subject has
been given what follows, and is done on a stream of its own.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor

from neuron_explainer.subjects.base import Latents

Seen = TypeVar("Seen", Tensor, Latents)
_UNCHANGED = "mlp.hook_post"  # what goes into a projection, and is not written to any more


class Overlap:
    """Runs what is given to it one call later, or at once on a CPU."""

    def __init__(self) -> None:
        self._waiting: Callable[[], None] | None = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def behind(self, site: str, reduce: Callable[[Seen], None]) -> Callable[[Seen], None]:
        """An observer of a site that runs `reduce`, on a GPU only when it is called again."""

        def observe(seen: Seen) -> None:
            device = (seen if isinstance(seen, Tensor) else seen.value).device
            if device.type != "cuda":
                reduce(seen)
                return
            if isinstance(seen, Tensor) and not site.endswith(_UNCHANGED):
                seen = seen.clone()  # the model may go on to write to it
            ready = torch.cuda.current_stream(device).record_event()
            self.finish()
            self._waiting = self._on_stream(device, ready, seen, reduce)

        return observe

    def finish(self) -> None:
        """Run what is waiting."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()

    def drop(self) -> None:
        """Forget what is waiting: its batch comes again."""
        self._waiting = None

    def join(self) -> None:
        """Wait until everything is done, on all devices."""
        self.finish()
        for stream in self._streams.values():
            stream.synchronize()

    def _on_stream(
        self,
        device: torch.device,
        ready: torch.cuda.Event,
        seen: Seen,
        reduce: Callable[[Seen], None],
    ) -> Callable[[], None]:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream = self._streams[device]
        for tensor in _tensors(seen):
            tensor.record_stream(stream)

        def run() -> None:
            stream.wait_event(ready)
            with torch.cuda.stream(stream):
                reduce(seen)

        return run


def _tensors(seen: Tensor | Latents) -> list[Tensor]:
    if isinstance(seen, Tensor):
        return [seen]
    parts = (getattr(seen, part.name) for part in fields(seen))
    return [part for part in parts if isinstance(part, Tensor)]
