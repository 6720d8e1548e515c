"""One training: its buffer, its trainer and the components of what it has seen."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from neuron_explainer.config import TrainSettings
from neuron_explainer.errors import SubjectError
from neuron_explainer.train.buffer import Buffer
from neuron_explainer.train.checkpoint import Checkpoints
from neuron_explainer.train.components import Components
from neuron_explainer.train.loop import Trainer
from neuron_explainer.train.median import geometric_median
from neuron_explainer.train.objectives import Objective
from neuron_explainer.train.weights import Weights

_SAMPLE = 8192  # rows, for the bias and the unit
_LOOKS = 200  # how often figures are shown

Told = Callable[[int, str], None]


class Display(Protocol):
    """Shows how far a training is, and how well it goes."""

    def __call__(self, label: str, total: int, unit: str) -> AbstractContextManager[Told]:
        """A block in which the function it gives is called with what was done, and figures."""


def unseen(label: str, total: int, unit: str) -> AbstractContextManager[Told]:
    """No display at all."""
    del label, total, unit
    return nullcontext(lambda _amount, _figures: None)


@dataclass(frozen=True, slots=True)
class Training:
    """All that changes while an autoencoder is trained."""

    buffer: Buffer
    trainer: Trainer
    components: Components

    @classmethod
    def begin(cls, buffer: Buffer, objective: Objective, settings: TrainSettings) -> "Training":
        """With a bias and a unit from the buffer's first rows, and directions from the seed.

        The settings must be complete. Raises SubjectError when the rows do not vary.
        """
        rows = buffer.peek(_SAMPLE)
        unit = float((rows - rows.mean(dim=0)).square().mean().sqrt())
        if unit == 0:
            raise SubjectError(
                f"{settings.site} has the same activations at every token: choose another --site"
            )
        width, latents = rows.shape[1], settings.latents
        assert latents is not None
        # so many random directions give back this many times the row that is encoded
        excess = 1.0 if objective.k is not None else max(1.0, latents / (2 * width))
        generator = Generator().manual_seed(settings.seed)
        weights = Weights(geometric_median(rows) / unit, latents, 1 / excess, generator)
        trainer = Trainer(weights, objective, unit, settings)
        return cls(buffer, trainer, Components(width, rows.device))

    def run(self, settings: TrainSettings, kept: Checkpoints, display: Display) -> None:
        """Train to the end. Raises ConfigError when the loss grows beyond all numbers."""
        trainer, batch = self.trainer, settings.batch
        steps = trainer.schedule.steps
        every = max(1, steps // _LOOKS)
        with display("train", steps * batch, "tokens") as told:
            told(trainer.step * batch, "")
            seen = 0
            while trainer.step < steps:
                self.components.add(trainer.train(self.buffer, batch))
                seen += batch
                if trainer.step % every == 0 or trainer.step == steps:
                    told(seen, str(trainer.recent()))
                    kept.seen(seen, self.state)
                    seen = 0

    def state(self) -> Mapping[str, Any]:
        """All that the rest of the training depends on."""
        return {
            "buffer": self.buffer.state(),
            "trainer": self.trainer.state(),
            "components": self.components.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a training was whose `state` this is."""
        self.buffer.restore(state["buffer"])
        self.trainer.restore(state["trainer"])
        self.components.restore(state["components"])


def split(lengths: Tensor, held: int, seed: int) -> tuple[Tensor, Tensor]:
    """Excerpts of these `lengths` (excerpts,) that are held out, and those that are trained on.

    Drawn at random: `held` tokens, but at most a tenth of the excerpts, and at least one.
    """
    order = torch.randperm(len(lengths), generator=Generator().manual_seed(seed))
    enough = int(torch.searchsorted(lengths[order].cumsum(0), held)) + 1
    number = max(1, min(enough, len(order) // 10))
    return order[:number], order[number:]
