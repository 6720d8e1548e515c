"""What a module does to a direction of the residual stream, however it holds its weights."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LOUD = 1e3  # so that a norm's epsilon does not matter


def oriented(projection: Any) -> Tensor:
    """A projection's weight as (in, out): `Linear` holds it as (out, in), `Conv1D` as (in, out)."""
    weight: Tensor = projection.weight
    return weight.T if isinstance(projection, nn.Linear) else weight


def at_least_single(tensor: Tensor) -> Tensor:
    """`tensor` in single precision, or double where it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True, slots=True, eq=False)
class NormGain:
    """The linear part of a norm: what it does to a direction, but for its scale."""

    gain: Tensor  # (width,), double
    centred: bool  # whether the mean is taken off

    def __call__(self, directions: Tensor) -> Tensor:
        """Directions (rows, width) as they leave the norm (rows, width), unscaled."""
        directions = directions.to(self.gain.device)
        if self.centred:
            directions = directions - directions.mean(-1, keepdim=True)
        return directions * self.gain.to(directions)

    def entering(self, directions: Tensor) -> Tensor:
        """What is read in directions (rows, width) behind the norm, as directions before it."""
        directions = directions.to(self.gain.device)
        scaled = directions * self.gain.to(directions)
        return scaled - scaled.mean(-1, keepdim=True) if self.centred else scaled


@torch.inference_mode()
def gain_of(norm: nn.Module, width: int) -> NormGain:
    """Found by what the norm does, so that it need not be known whether it is a LayerNorm or an
    RMSNorm, nor whether its gain is its weight or one more.

    For an input whose mean is 0 and whose root mean square is 1 every norm gives gain · x + bias.
    """
    own = deepcopy(norm).double()
    device = next((weight.device for weight in own.parameters()), None)
    x = torch.ones(width, dtype=torch.float64, device=device)
    x[1::2] = -1
    if width % 2:
        x[-3:] = torch.tensor([1, 1, -2])
    gain = _odd(own, x) * x.square().mean().sqrt() / x
    constant = _odd(own, torch.ones_like(x))
    return NormGain(gain, bool(constant.abs().max() < gain.abs().max() / _LOUD))


def _odd(norm: nn.Module, x: Tensor) -> Tensor:
    """What depends on the sign of its input: all but the bias."""
    plus, minus = norm(_LOUD * x[None]), norm(-_LOUD * x[None])
    return torch.as_tensor((plus - minus)[0] / 2)
