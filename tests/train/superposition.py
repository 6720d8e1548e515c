"""A toy model of superposition: more features than dimensions, few of them present at a time."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from neuron_explainer.config import TrainSettings
from neuron_explainer.train.loop import Trainer
from neuron_explainer.train.objectives import Objective
from neuron_explainer.train.weights import Weights

WIDTH, FEATURES, PRESENT = 24, 36, 2


@dataclass(frozen=True)
class Superposition:
    """Rows that are sums of some of `features` (features, width), each of length 1."""

    features: Tensor
    generator: Generator

    @classmethod
    def of(cls, seed: int) -> "Superposition":
        generator = Generator().manual_seed(1000 + seed)  # not what weights begin with
        directions = torch.randn(FEATURES, WIDTH, generator=generator)
        return cls(normalize(directions, dim=1), generator)

    def rows(self, number: int) -> Tensor:
        """`PRESENT` features in each row, with strengths of 0.5 to 1.5 (number, width)."""
        keys = torch.rand(number, FEATURES, generator=self.generator)
        chosen = keys.topk(PRESENT, dim=1).indices
        strengths = 0.5 + torch.rand(number, PRESENT, generator=self.generator)
        return torch.zeros(number, FEATURES).scatter(1, chosen, strengths) @ self.features

    def recovered(self, weights: Weights) -> float:
        """Mean over features of the largest cosine similarity to a decoder row."""
        cosines = self.features @ normalize(weights.decoder.detach(), dim=1).T
        return float(cosines.amax(dim=1).mean())


def trainer_for(
    toy: Superposition, objective: Objective, settings: TrainSettings, latents: int
) -> Trainer:
    """A trainer on the toy's rows, in the unit of training."""
    rows = toy.rows(4096)
    unit = float((rows - rows.mean(dim=0)).square().mean().sqrt())
    generator = Generator().manual_seed(settings.seed)
    weights = Weights(rows.mean(dim=0) / unit, latents, 1.0, generator)
    return Trainer(weights, objective, unit, settings)


def run(trainer: Trainer, toy: Superposition, settings: TrainSettings) -> None:
    """Train to the end."""
    while trainer.step < trainer.schedule.steps:
        trainer.update(toy.rows(settings.batch) / trainer.unit)
