"""Moments, density and histogram of every neuron, in one pass and constant memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.batches import Placed
from neuron_explainer.histogram import HISTOGRAM_EDGES, LOWEST_EXPONENT

_LOWEST_EXPONENT, _BINS = LOWEST_EXPONENT, len(HISTOGRAM_EDGES)
_SMALLEST_VARIANCE = 1e-16  # fourth powers of what varies less are lost to single precision
_FIRST_HALF_OCTAVE = 2 * (127 + _LOWEST_EXPONENT)  # what bin 1 ends with
_CHUNK_ELEMENTS = 1 << 17  # of float32: the working set stays in the cache
_DEVICE_CHUNK_ELEMENTS = 1 << 26  # so that there are few steps


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

    def __init__(self, neurons: int, device: torch.device | str = "cpu") -> None:
        self.tokens = 0
        self._shift: Tensor | None = None
        self._sums = torch.zeros((4, neurons), dtype=torch.float64, device=device)
        self._positive = torch.zeros(neurons, dtype=torch.float64, device=device)
        # bins from 1 on, bin 0 within bin 1; bin by bin, for most neurons are in the same ones
        self._histogram = torch.zeros(_BINS * neurons, dtype=torch.int64, device=device)
        cells = torch.arange(neurons, dtype=torch.int32, device=device)
        self._cells = cells - _FIRST_HALF_OCTAVE * neurons
        # used again for every chunk: fresh memory would cost more than the sums
        most = _CHUNK_ELEMENTS if self._sums.device.type == "cpu" else _DEVICE_CHUNK_ELEMENTS
        self._step = max(1, most // max(1, neurons))
        self._scratch: Tensor | None = None
        self._ones: Tensor | None = None

    def update(self, rows: Tensor) -> None:
        """Add `rows` (tokens, neurons), float32."""
        if not len(rows):
            return
        if self._shift is None:
            self._shift = rows.mean(0)
        self.tokens += len(rows)
        for first in range(0, len(rows), self._step):
            self._add(rows[first : first + self._step], self._shift)

    def update_batch(self, values: Tensor, batch: Placed) -> None:
        """Add the scored positions of `values` (batch, time, neurons) of any type, in few steps."""
        if self._shift is None:
            self._shift = values[0][batch.scored[0]].float().mean(0)
        self.tokens += int(batch.batch.scored.sum())
        step = max(1, self._step // values.shape[1])
        for first in range(0, len(values), step):
            block = slice(first, first + step)
            rows = values[block, 1:] if batch.whole else values[block][batch.scored[block]]
            self._add(rows.reshape(-1, rows.shape[-1]).float(), self._shift)

    def _add(self, rows: Tensor, shift: Tensor) -> None:
        if self._scratch is None or self._ones is None:
            self._scratch = rows.new_empty((2, self._step, rows.shape[1]))
            self._ones = self._histogram.new_ones(self._step * rows.shape[1])
        first, second = self._scratch[:, : len(rows)]
        torch.sub(rows, shift, out=first)
        torch.mul(first, first, out=second)
        self._sums[0] += first.sum(0)
        self._sums[1] += second.sum(0)
        self._sums[2] += first.mul_(second).sum(0)
        self._sums[3] += second.mul_(second).sum(0)
        self._positive += torch.gt(rows, 0.0, out=first).sum(0)
        cells = _half_octaves(rows, second.view(torch.int32)).mul_(len(shift)).add_(self._cells)
        self._histogram.index_add_(0, cells.view(-1), self._ones[: cells.numel()])

    def state(self) -> dict[str, Tensor]:
        """All that it holds, by name; no `shift` before the first row."""
        held = {"tokens": torch.tensor(self.tokens), "sums": self._sums}
        held |= {"positive": self._positive, "histogram": self._histogram}
        return held if self._shift is None else held | {"shift": self._shift}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must be of as many neurons."""
        self.tokens = int(state["tokens"])
        shift = state.get("shift")
        self._shift = None if shift is None else shift.to(self._sums.device)
        for held, name in self._totals():
            held.copy_(state[name])

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add the rows of another accumulator.

        Density and histogram are exact; the power sums are moved to this one's provisional mean in
        double precision.
        """
        if "shift" not in state:
            return
        if self._shift is None:
            self.restore(state)
            return
        count = int(state["tokens"])
        apart = state["shift"].double() - self._shift.double()
        self._sums += _moved(state["sums"], apart, count)
        self._positive += state["positive"]
        self._histogram += state["histogram"]
        self.tokens += count

    def _totals(self) -> list[tuple[Tensor, str]]:
        totals = (self._sums, self._positive, self._histogram)
        return list(zip(totals, ("sums", "positive", "histogram"), strict=True))

    def result(self) -> Moments:
        """The moments of all rows so far."""
        sums = self._sums.cpu().numpy() / max(1, self.tokens)
        nothing = np.zeros(sums.shape[1])
        shift = nothing if self._shift is None else self._shift.double().cpu().numpy()
        positive = self._positive.cpu().numpy()
        histogram = np.pad(self._histogram.view(_BINS, -1).T.cpu().numpy(), ((0, 0), (1, 0)))
        histogram[:, 0] = self.tokens - positive
        histogram[:, 1] -= histogram[:, 0]
        density = positive / max(1, self.tokens)
        mean, variance, skewness, kurtosis = _central(shift, *sums)
        return Moments(self.tokens, mean, variance, skewness, kurtosis, density, histogram)


def _moved(sums: Tensor, apart: Tensor, count: int) -> Tensor:
    """Power sums (4, neurons) of `count` values x, of x + `apart` instead: binomial theorem."""
    first, second, third, fourth = sums
    return torch.stack(
        [
            first + count * apart,
            second + 2 * apart * first + count * apart**2,
            third + 3 * apart * second + 3 * apart**2 * first + count * apart**3,
            fourth
            + 4 * apart * third
            + 6 * apart**2 * second
            + 4 * apart**3 * first
            + count * apart**4,
        ]
    )


def _half_octaves(rows: Tensor, out: Tensor) -> Tensor:
    """The half octave of each activation, from the float's own bits; `out` is int32.

    Exponent and first mantissa bit. What is too small or not positive gets the first one that has a
    bin of its own (the sign bit makes the whole number negative), what is too large the last.
    """
    low, high = _FIRST_HALF_OCTAVE << 22, (_FIRST_HALF_OCTAVE + _BINS - 1) << 22
    torch.clamp(rows.view(torch.int32), low, high, out=out)
    return out.add_(0x3FFFFF).bitwise_right_shift_(22)  # an edge belongs to the bin below


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
