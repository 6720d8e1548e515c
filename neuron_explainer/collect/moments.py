"""Moments, density and histogram of every neuron, in one pass and constant memory."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Bin 0 holds activations <= 0; bin i > 0 those up to HISTOGRAM_EDGES[i - 1], half an octave each.
# Smaller positive values fall in bin 1, larger ones in the last.
_LOWEST_EXPONENT = -16
_BINS = 64
HISTOGRAM_EDGES: NDArray[np.float64] = np.array(
    [2.0 ** (_LOWEST_EXPONENT + step // 2) * (1.5 if step % 2 else 1.0) for step in range(_BINS)]
)
_SMALLEST_VARIANCE = 1e-16  # fourth powers of what varies less are lost to single precision
_CHUNK_ELEMENTS = 1 << 17  # of float32: the working set stays in the cache


@dataclass(frozen=True, slots=True)
class Moments:
    """Float64 arrays (neurons,); NaN where undefined. Kurtosis is not excess: a normal has 3."""

    tokens: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    skewness: NDArray[np.float64]
    kurtosis: NDArray[np.float64]
    density: NDArray[np.float64]
    histogram: NDArray[np.int64]  # (neurons, bins)


class MomentAccumulator:
    """Power sums around a provisional mean, so that little is lost to cancellation."""

    def __init__(self, neurons: int) -> None:
        self.tokens = 0
        self._shift: Tensor | None = None
        self._sums = torch.zeros((4, neurons), dtype=torch.float64)
        self._histogram = torch.zeros(neurons * (_BINS + 1), dtype=torch.int64)
        self._offsets = torch.arange(neurons, dtype=torch.int32) * (_BINS + 1)

    def update(self, rows: Tensor) -> None:
        """Add `rows` (tokens, neurons), float32."""
        if not len(rows):
            return
        if self._shift is None:
            self._shift = rows.mean(0)
        self.tokens += len(rows)
        step = max(1, _CHUNK_ELEMENTS // rows.shape[1])
        for first in range(0, len(rows), step):
            self._add(rows[first : first + step], self._shift)

    def _add(self, rows: Tensor, shift: Tensor) -> None:
        first = rows - shift
        second = first * first
        self._sums[0] += first.sum(0)
        self._sums[1] += second.sum(0)
        self._sums[2] += first.mul_(second).sum(0)
        self._sums[3] += second.mul_(second).sum(0)
        bins = _bins(rows).add_(self._offsets)
        self._histogram += torch.bincount(bins.view(-1), minlength=len(self._histogram))

    def result(self) -> Moments:
        """The moments of all rows so far."""
        sums = self._sums.numpy() / max(1, self.tokens)
        shift = np.zeros(sums.shape[1]) if self._shift is None else self._shift.double().numpy()
        histogram = self._histogram.view(-1, _BINS + 1).numpy().copy()
        density = 1.0 - histogram[:, 0] / max(1, self.tokens)
        mean, variance, skewness, kurtosis = _central(shift, *sums)
        return Moments(self.tokens, mean, variance, skewness, kurtosis, density, histogram)


def _bins(rows: Tensor) -> Tensor:
    """The histogram bin of each activation, int32: the float's own bits are its half octave."""
    bits = rows.contiguous().view(torch.int32).clamp(min=0)  # the sign bit makes it negative
    half_octaves = bits.add_(0x3FFFFF).bitwise_right_shift_(22)  # exponent, first mantissa bit
    first = 2 * (127 + _LOWEST_EXPONENT) - 1
    return torch.maximum(half_octaves.clamp(max=1), half_octaves.sub_(first)).clamp_(max=_BINS)


def _central(
    shift: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    third: NDArray[np.float64],
    fourth: NDArray[np.float64],
) -> tuple[NDArray[np.float64], ...]:
    """Mean, variance, skewness and kurtosis from raw moments around `shift`."""
    variance = np.maximum(0.0, second - first**2)
    mu3 = third - 3 * first * second + 2 * first**3
    mu4 = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    defined = (variance > 1e-14 * second) & (variance > _SMALLEST_VARIANCE)
    usable = np.where(defined, variance, np.nan)
    return shift + first, variance, mu3 / usable**1.5, mu4 / usable**2
