"""Principal components of the rows, the yardstick of an autoencoder: as many as fire at a token."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Components:
    """Sums over rows, in double precision, from which their principal components come."""

    def __init__(self, width: int, device: torch.device) -> None:
        """Without any rows yet."""
        double = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.count = 0
        self.sums = torch.zeros_like(double[0])  # (width,)
        self.products = double  # (width, width)

    def add(self, rows: Tensor) -> None:
        """Take in `rows` (rows, width)."""
        self.count += len(rows)
        self.sums += rows.sum(dim=0)
        self.products += rows.T @ rows

    def largest(self, number: int) -> tuple[Tensor, Tensor]:
        """The mean (width,) and the `number` axes of largest variance (width, number)."""
        mean = self.sums / self.count
        covariance = self.products / self.count - torch.outer(mean, mean)
        axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :number]  # ascending
        return mean.float(), axes.float()

    def state(self) -> dict[str, Any]:
        """The sums."""
        return {"count": self.count, "sums": self.sums, "products": self.products}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from sums that are a `state`."""
        self.count = state["count"]
        self.sums.copy_(state["sums"])
        self.products.copy_(state["products"])
