"""Moments, density and histogram of every neuron, in one pass and constant memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.batches import Placed
from neuron_explainer.collect.fused import Fused
from neuron_explainer.collect.sparse import summed
from neuron_explainer.collect.state import Commit
from neuron_explainer.histogram import HISTOGRAM_EDGES, LOWEST_EXPONENT
from neuron_explainer.subjects.base import Latents

_LOWEST_EXPONENT, _BINS = LOWEST_EXPONENT, len(HISTOGRAM_EDGES)
_SMALLEST_VARIANCE = 1e-16  # fourth powers of what varies less are lost to single precision
_FIRST_HALF_OCTAVE = 2 * (127 + _LOWEST_EXPONENT)  # what bin 1 ends with
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
        self._step = max(1, _CHUNK_ELEMENTS // max(1, neurons))
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

    def weigh(self, values: Tensor, batch: Placed) -> Commit:
        """Add the scored positions of `values` (batch, time, neurons) of any type, in few steps."""
        shift = self._shift
        if shift is None:
            shift = values[0][batch.scored[0]].float().mean(0)
        scored = None if batch.whole else batch.scored
        sums, positive = _power_sums(values, shift, scored)
        histogram = _counts(values, scored).flatten()
        return partial(self._commit, shift, batch.count, sums, positive, histogram)

    def weigh_sparse(self, scored: Latents, tokens: int) -> Commit:
        """Add `tokens` tokens, of whose latents all but those in `scored` are 0.

        Powers are summed around 0 in double precision: most latents are 0 most of the time.
        """
        neurons, latent = scored.shape[2], scored.latent
        shift = torch.zeros(neurons, device=self._sums.device) if self._shift is None else None
        value = scored.value.float()
        power = value.double()
        sums = torch.zeros((neurons, 4), dtype=torch.float64, device=value.device)
        powers = torch.stack([power, power**2, power**3, power**4], 1)
        sums.index_add_(0, *summed(latent, powers))
        fired = (value > 0.0).long()
        positive = self._histogram.new_zeros(neurons).index_add_(0, latent, fired)
        histogram = torch.zeros_like(self._histogram)
        histogram[:neurons] = tokens - positive
        cells = _half_octaves(value, torch.empty_like(latent, dtype=torch.int32)).long()
        cells = (cells - _FIRST_HALF_OCTAVE) * neurons + latent
        histogram.index_add_(0, cells, fired)
        shift = self._shift if shift is None else shift
        return partial(self._commit, shift, tokens, sums.T, positive, histogram)

    def _commit(
        self, shift: Tensor | None, tokens: int, sums: Tensor, positive: Tensor, histogram: Tensor
    ) -> None:
        self._shift = shift
        self.tokens += tokens
        self._sums += sums
        self._positive += positive
        self._histogram += histogram

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


def power_sums(values: Tensor, shift: Tensor, scored: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums (4, neurons) of the powers of `values` (batch, time, neurons) less `shift`.

    And how many are above 0 (neurons,). Of `scored` positions (batch, time), where it is None of
    all but the first.
    """
    counted = values[:, 1:] if scored is None else values
    apart = counted.float() - shift
    positive = counted > 0.0
    if scored is not None:
        apart = torch.where(scored[:, :, None], apart, 0.0)
        positive = positive & scored[:, :, None]
    squared = apart * apart
    powers = (apart, squared, squared * apart, squared * squared)
    sums = torch.stack([power.sum((0, 1)) for power in powers])
    return sums.double(), positive.sum((0, 1))


def half_octave_counts(values: Tensor, scored: Tensor | None) -> Tensor:
    """How many of `values` (batch, time, neurons) are in each bin, (bins, neurons).

    Bin 0 is within bin 1, as in the accumulator; positions as in `power_sums`.
    """
    counted = values[:, 1:] if scored is None else values
    neurons = values.shape[2]
    rows = counted.float().contiguous()
    cells = _half_octaves(rows, torch.empty_like(rows, dtype=torch.int32))
    cells = (cells - _FIRST_HALF_OCTAVE) * neurons
    cells = cells + torch.arange(neurons, dtype=torch.int32, device=values.device)
    ones = torch.ones_like(cells) if scored is None else scored[:, :, None].expand_as(cells).int()
    counts = torch.zeros(_BINS * neurons, dtype=torch.int32, device=values.device)
    return counts.index_add_(0, cells.view(-1), ones.reshape(-1)).view(_BINS, neurons)


_power_sums = Fused(power_sums, after=1 << 37)
_counts = Fused(half_octave_counts, after=1 << 37)


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
