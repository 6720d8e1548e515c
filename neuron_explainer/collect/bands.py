"""Random excerpts from each quantile band of a neuron's per-excerpt maximum, in one pass.

Which band an excerpt belongs to is known only at the end. So for each band a few excerpts are drawn
from the whole corpus by their random priority, at a rate that leaves some tens of them above the
band's lower end, and of those drawn the ones of largest maximum are kept; the lowest band keeps a
uniform sample. At the end the exact boundaries decide, and a band takes its candidates of highest
priority. Where too few of them are inside, as for a neuron in a few hundred, those inside among the
random and the top records are candidates, too. What is kept depends on the excerpts alone, not on
their order, so that what was kept of parts of a corpus merges into what is kept of the whole.
(Largest elements of a hash-drawn sample: a bottom-k sketch at several rates, Cohen and Kaplan 2007,
"Summarizing data using bottom-k sketches".)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.reservoirs import (
    EMPTY,
    PRIORITIES,
    Reservoir,
    priority_keys,
)
from neuron_explainer.collect.state import prefixed, within

QUANTILES = (0.5, 0.9, 0.99, 0.999)
BANDS = tuple(zip((0.0, *QUANTILES), (*QUANTILES, 1.0), strict=True))


@dataclass(frozen=True, slots=True)
class BandSample:
    """What the bands hold in the end; EMPTY keys where a band has too few excerpts."""

    boundaries: NDArray[np.float32]  # (neurons, quantiles)
    keys: Tensor  # (neurons, bands, per_band)
    maxima: Tensor
    activations: Tensor  # (neurons, bands, per_band, time)


class BandReservoirs:
    """Candidates for every band.

    `excerpts` is the size of the corpus; the per-excerpt maxima of `remembered` of them, chosen by
    `seed`, are kept to find the boundaries, which are exact when that is all of them and otherwise
    those of a uniform sample. Bands that lie within the `top` best excerpts need no candidates of
    their own. The reservoirs of the others, of these `capacities`, lie with those of other kinds
    and are set before the first batch.
    """

    def __init__(
        self,
        neurons: int,
        per_band: int,
        excerpts: int,
        remembered: int,
        top: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.per_band = per_band
        self._maxima = torch.empty((neurons, min(excerpts, remembered)), device=device)
        self._known = 0  # columns of it that are filled
        self._remembered = np.zeros(excerpts, bool)
        chosen = np.arange(excerpts, dtype=np.int32)
        np.random.default_rng(seed).shuffle(chosen)
        self._remembered[chosen[:remembered]] = True
        self._rates = {
            band: _sampling(band, per_band, excerpts)
            for band, (low, _) in enumerate(BANDS)
            if np.ceil((1.0 - low) * excerpts) > top or per_band > top
        }
        self.reservoirs: Sequence[Reservoir] = ()

    @property
    def capacities(self) -> list[int]:
        """Of the reservoirs that the bands need."""
        return [capacity for _, capacity in self._rates.values()]

    @property
    def _own(self) -> Mapping[int, Reservoir]:
        return dict(zip(self._rates, self.reservoirs, strict=True))

    @property
    def rates(self) -> list[int]:
        """The smallest random rank that is drawn for each reservoir."""
        return [rate for rate, _ in self._rates.values()]

    @property
    def uniform(self) -> list[bool]:
        """Which reservoirs keep a uniform sample; the others the largest of what is drawn."""
        return [band == 0 for band in self._rates]

    def remembered(self, maxima: Tensor, positions: NDArray[np.int64]) -> Tensor:
        """Those `maxima` (neurons, batch) of a batch that the boundaries are found from."""
        columns = np.flatnonzero(self._remembered[positions])
        if len(columns) == len(positions):
            return maxima
        return maxima[:, torch.from_numpy(columns).to(maxima.device)]

    def remember(self, maxima: Tensor) -> None:
        """Keep what `remembered` chose."""
        stop = self._known + maxima.shape[1]
        self._maxima[:, self._known : stop] = maxima
        self._known = stop

    def state(self) -> dict[str, Tensor]:
        """All that it holds, by name."""
        held = {"maxima": self._maxima[:, : self._known]}
        for band, reservoir in self._own.items():
            held |= prefixed(f"{band}.", reservoir.state())
        return held

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken of, which must have been made for the same corpus."""
        self._known = 0
        self.remember(state["maxima"])
        for band, reservoir in self._own.items():
            reservoir.restore(within(f"{band}.", state))

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in what was kept of other excerpts of the same corpus."""
        self.remember(state["maxima"])
        for band, reservoir in self._own.items():
            reservoir.merge(within(f"{band}.", state))

    def result(self, top: Reservoir, random: Reservoir, seed: int) -> BandSample:
        """The sample of every band; `seed` is that of the random ranks."""
        known = self._maxima[:, : self._known]
        boundaries = np.quantile(known.numpy(), QUANTILES, axis=1).T.astype(np.float32)
        edges = np.pad(boundaries, ((0, 0), (1, 1)), constant_values=np.inf)
        edges[:, 0] = -np.inf
        limits = torch.from_numpy(edges)[:, :, None]
        samples = []
        for band in range(len(BANDS)):
            own = self._own.get(band, top)
            inside = limits[:, band], limits[:, band + 1]
            sample = self._pick([own], slice(None), inside, seed)
            short = torch.nonzero((sample[0] == EMPTY).any(1))[:, 0]
            if own is not top and len(short):
                fuller = self._pick([own, random, top], short, inside, seed)
                for part, better in zip(sample, fuller, strict=True):
                    part[short] = better
            samples.append(sample)
        keys, maxima, activations = (torch.stack(parts, 1) for parts in zip(*samples, strict=True))
        return BandSample(boundaries, keys, maxima, activations)

    def _pick(
        self,
        sources: Sequence[Reservoir],
        neurons: slice | Tensor,
        within: tuple[Tensor, Tensor],
        seed: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, maxima and activations of the excerpts of highest priority in a band."""
        maxima = torch.cat([source.maxima[neurons] for source in sources], 1)
        keys = torch.cat([_priorities(source, seed)[neurons] for source in sources], 1)
        inside = (maxima >= within[0][neurons]) & (maxima <= within[1][neurons])
        ordered, order = torch.where(inside, keys, EMPTY).sort(1, descending=True)
        ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = EMPTY  # in two of the sources
        keys, best = ordered.topk(self.per_band, 1)
        places = order.gather(1, best)
        activations = torch.cat([source.activations[neurons] for source in sources], 1)
        rows = places[:, :, None].expand(-1, -1, activations.shape[2])
        return keys, maxima.gather(1, places), activations.gather(1, rows)


def _priorities(reservoir: Reservoir, seed: int) -> Tensor:
    return priority_keys(seed, len(reservoir.positions), reservoir.positions)


def _sampling(band: int, per_band: int, excerpts: int) -> tuple[int, int]:
    """The smallest random rank that is drawn for a band, and how many of those drawn are kept.

    So many are drawn that three times `per_band` of them can be expected inside the band, and so
    many kept that those above its lower end seldom overflow: three standard deviations.
    """
    low, high = BANDS[band]
    above = (3 * per_band + 2) * (1.0 - low) / (high - low)  # expected above the lower end
    kept = int(np.ceil(above + 3.0 * np.sqrt(above))) if per_band else 0
    if band == 0:  # of a uniform sample half is inside
        return 0, 5 * per_band
    rate = min(1.0, above / ((1.0 - low) * max(1, excerpts)))
    return min(int((1.0 - rate) * PRIORITIES), PRIORITIES - 1), kept
