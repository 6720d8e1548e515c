"""The point from which rows are nearest, whatever a few of them are."""

import torch
from torch import Tensor

_ROUNDS = 100
_ENOUGH = 1e-5  # of the mean distance
_NEAREST = 1e-6  # of it: a row that the point has come to would otherwise weigh infinitely


@torch.no_grad()
def geometric_median(rows: Tensor) -> Tensor:
    """The point (width,) with the smallest sum of distances to `rows` (rows, width).

    Weiszfeld's iteration: the mean, weighted by one over the distances, until it rests. `rows` must
    hold at least one.
    """
    point = rows.mean(dim=0)
    for _ in range(_ROUNDS):
        distances = (rows - point).norm(dim=1)
        scale = distances.mean()
        if scale == 0:
            return point
        weights = 1 / distances.clamp_min(_NEAREST * scale)
        moved = (weights @ rows) / weights.sum()
        step, point = (moved - point).norm(), moved
        if step < _ENOUGH * scale:
            break
    return point
