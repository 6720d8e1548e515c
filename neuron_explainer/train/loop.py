"""The steps of a training: rates, the optimiser, which latents are alive, and what to show.

idle     rows since each latent fired last (n,)
dead     idle for long: a 20th of the training, 10 million rows at most
density  share of rows at which a latent fires
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from neuron_explainer.config import TrainSettings
from neuron_explainer.errors import ConfigError
from neuron_explainer.train.buffer import Buffer
from neuron_explainer.train.objectives import Objective, Outcome
from neuron_explainer.train.resampling import resample
from neuron_explainer.train.weights import Weights

_LONG = 10_000_000  # rows, as in Gao et al. 2024
_RESAMPLED = (1, 2, 3, 4)  # eighths of the training
_JUDGED = 8192  # rows that new directions are drawn from, at most
_EPSILON = 6.25e-10  # of Adam, as in Gao et al. 2024: gradients of rare latents are small


@dataclass(frozen=True, slots=True)
class Schedule:
    """How rates change over the steps of a training."""

    steps: int
    warm_up: float  # share of the steps
    decay: float  # share of the steps, at the end

    def warmth(self, step: int) -> float:
        """Rises in a line to 1 while the training warms up."""
        return min(1.0, (step + 1) / max(1.0, self.warm_up * self.steps))

    def rate(self, step: int) -> float:
        """Of the full learning rate: warm up, stay, fall in a line towards zero."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(self.warmth(step), left, 1.0)

    @property
    def resampled(self) -> frozenset[int]:
        """The steps in front of which dead latents of an L1 training are resampled."""
        return frozenset(part * self.steps // 8 for part in _RESAMPLED) - {0}


@dataclass(frozen=True, slots=True)
class Recent:
    """What the steps since the last look came to."""

    error: float  # 1 is what the mean gives
    l0: float
    dead: float  # share of the latents
    density: float  # of the median latent

    def __str__(self) -> str:
        return (
            f"loss {self.error:.3f}, L0 {self.l0:.1f}, dead {self.dead:.1%}, "
            f"density {self.density:.2%}"
        )


class Trainer:
    """Weights with their optimiser, and what is known of each latent."""

    def __init__(
        self, weights: Weights, objective: Objective, unit: float, settings: TrainSettings
    ) -> None:
        """`unit` is what a row is divided by, as `weights` defines it.

        The settings must be complete.
        """
        assert settings.lr is not None
        steps = steps_of(settings)
        self.weights = weights
        self.unit = unit
        self.step = 0
        self.schedule = Schedule(steps, settings.warm_up, settings.decay)
        self.long = min(_LONG, max(settings.batch, steps * settings.batch // 20))
        self._objective = objective
        self._lr = settings.lr
        self._optimizer = torch.optim.Adam(weights.parameters(), lr=settings.lr, eps=_EPSILON)
        self._generator = Generator().manual_seed(settings.seed)
        self.idle = torch.zeros_like(weights.encoder_bias, dtype=torch.int64)
        self._fired = torch.zeros_like(self.idle)  # rows, since the last look
        self._error = torch.zeros_like(weights.encoder_bias[0]).double()
        self._rows = 0

    @property
    def dead(self) -> Tensor:
        """Which latents have not fired for long (n,)."""
        return self.idle >= self.long

    def train(self, buffer: Buffer, number: int) -> Tensor:
        """One step on the next `number` rows of the buffer, which are returned."""
        if self._objective.k is None and self.step in self.schedule.resampled:
            self._resample(buffer.peek(_JUDGED) / self.unit)
        rows = buffer.draw(number) / self.unit
        self.update(rows)
        return rows

    def update(self, rows: Tensor) -> None:
        """One step on `rows` (rows, width)."""
        outcome = self._judged(rows)
        self._optimizer.zero_grad()
        torch.autograd.backward(outcome.loss)
        self.weights.remove_parallel()
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * self.schedule.rate(self.step)
        self._optimizer.step()
        self.weights.restore_lengths()
        self._note(outcome)
        self.step += 1

    def recent(self) -> Recent:
        """What the steps since the last call came to. Raises ConfigError when training failed."""
        error = float(self._error) / self._rows
        if not error < float("inf"):
            raise ConfigError(
                f"at step {self.step} of {self.schedule.steps} the loss is no finite number any "
                "more: choose a smaller --lr"
            )
        fired = self._fired.double() / self._rows
        dead = int(self.dead.sum()) / len(self.idle)
        found = Recent(error, float(fired.sum()), dead, float(fired.median()))
        self._fired.zero_()
        self._error.zero_()
        self._rows = 0
        return found

    def state(self) -> dict[str, Any]:
        """All that the steps to come depend on."""
        return {
            "step": self.step,
            "unit": self.unit,
            "weights": self.weights.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "idle": self.idle,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a trainer was whose `state` this is."""
        self.step, self.unit = state["step"], state["unit"]
        self.weights.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self.idle.copy_(state["idle"])

    def _judged(self, rows: Tensor) -> Outcome:
        return self._objective(self.weights, rows, self.dead, self.schedule.warmth(self.step))

    def _note(self, outcome: Outcome) -> None:
        active = outcome.latents.detach() > 0
        number = len(active)
        self.idle += number
        self.idle[active.any(dim=0)] = 0
        self._fired += active.sum(dim=0)
        self._error += outcome.error.detach() * number
        self._rows += number

    def _resample(self, rows: Tensor) -> None:
        with torch.no_grad():
            remainder = self._judged(rows).remainder
        dead = self.dead
        resample(self.weights, self._optimizer, rows, remainder, dead, self._generator)
        self.idle[dead] = 0


def steps_of(settings: TrainSettings) -> int:
    """How many batches it takes to see that many tokens."""
    return -(-settings.tokens // settings.batch)
