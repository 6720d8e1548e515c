"""Random excerpts from each quantile band of a neuron's per-excerpt maximum, in one pass.

Which band an excerpt belongs to is known only at the end. So each band keeps more candidates than
it needs, drawn at random from the excerpts that may still fall into it: those inside the quantiles
of the excerpts seen so far, widened by four standard errors. Excerpts must come in random order.
At the end the exact boundaries decide, and a band takes its candidates of highest priority. Where
too few of them are inside, as for one neuron in ten while the quantiles are not well known, those
inside among the random and the top records are candidates, too.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.collect.reservoirs import EMPTY, Reservoir, positions_of, priority_keys

QUANTILES = (0.5, 0.9, 0.99, 0.999)
BANDS = tuple(zip((0.0, *QUANTILES), (*QUANTILES, 1.0), strict=True))
_FIRST_CHECKPOINT = 64
_CHECKPOINT_RATIO = 4
_STANDARD_ERRORS = 4.0
_OVERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class BandSample:
    """What the bands hold in the end; EMPTY keys where a band has too few excerpts."""

    boundaries: NDArray[np.float32]  # (neurons, quantiles)
    keys: Tensor  # (neurons, bands, per_band)
    maxima: Tensor
    activations: Tensor  # (neurons, bands, per_band, time)


class BandReservoirs:
    """Candidates for every band.

    `excerpts` is the size of the corpus; the per-excerpt maxima of the first `remembered` of them
    are kept to find the boundaries, which are exact when that is all of them and otherwise those of
    a uniform sample. Bands that lie within the `top` best excerpts need no candidates of their own.
    """

    def __init__(
        self, neurons: int, time: int, per_band: int, excerpts: int, remembered: int, top: int
    ) -> None:
        self.per_band = per_band
        self.seen = 0
        self._maxima = torch.empty((neurons, min(excerpts, remembered)))
        self._next_checkpoint = _FIRST_CHECKPOINT
        self._bounds: dict[int, tuple[Tensor, Tensor]] = {}
        wide = [
            band
            for band, (low, _) in enumerate(BANDS)
            if np.ceil((1.0 - low) * excerpts) > top or per_band > top
        ]
        # one for all until the first checkpoint: so long all of them would hold the same
        self._reservoirs = dict.fromkeys(wide, Reservoir(neurons, _OVERSAMPLING * per_band, time))

    def update(self, keys: Tensor, maxima: Tensor, activations: Tensor) -> None:
        """Offer a batch: random-priority `keys` and `maxima` (neurons, batch), `activations`."""
        room = self._maxima.shape[1] - self.seen
        if room > 0:
            self._maxima[:, self.seen : self.seen + maxima.shape[1]] = maxima[:, :room]
        self.seen += maxima.shape[1]
        for band, reservoir in self._distinct().items():
            allowed = self._allowed(band, maxima)
            reservoir.update(torch.where(allowed, keys, EMPTY), maxima, activations)
        if self.seen >= self._next_checkpoint:
            self._narrow()
            self._next_checkpoint *= _CHECKPOINT_RATIO

    def _distinct(self) -> dict[int, Reservoir]:
        return self._reservoirs if self._bounds else dict(list(self._reservoirs.items())[:1])

    def _allowed(self, band: int, maxima: Tensor) -> Tensor:
        if band not in self._bounds:
            return torch.isfinite(maxima)
        low, high = self._bounds[band]
        return (maxima >= low[:, None]) & (maxima <= high[:, None])

    def _narrow(self) -> None:
        """Drop what lies outside the quantiles so far, give or take their standard error."""
        known = min(self.seen, self._maxima.shape[1])
        ordered = self._maxima[:, :known].sort(1).values
        for band in list(self._reservoirs)[1:] if not self._bounds else ():
            self._reservoirs[band] = deepcopy(self._reservoirs[band])
        for band, reservoir in self._reservoirs.items():
            bounds = _widened(ordered, BANDS[band])
            self._bounds[band] = bounds
            outside = ~self._allowed(band, reservoir.maxima)
            reservoir.keys[outside] = EMPTY

    def result(self, top: Reservoir, random: Reservoir, seed: int) -> BandSample:
        """The sample of every band; `seed` is that of the priorities given to `update`."""
        known = self._maxima[:, : min(self.seen, self._maxima.shape[1])]
        boundaries = np.quantile(known.numpy(), QUANTILES, axis=1).T.astype(np.float32)
        edges = np.pad(boundaries, ((0, 0), (1, 1)), constant_values=np.inf)
        edges[:, 0] = -np.inf
        limits = torch.from_numpy(edges)[:, :, None]
        samples = []
        for band in range(len(BANDS)):
            own = self._reservoirs.get(band, top)
            within = limits[:, band], limits[:, band + 1]
            sample = self._pick([own], slice(None), within, seed)
            short = torch.nonzero((sample[0] == EMPTY).any(1))[:, 0]
            if own is not top and len(short):
                fuller = self._pick([own, random, top], short, within, seed)
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
    return priority_keys(seed, len(reservoir.keys), positions_of(reservoir.keys))


def _widened(ordered: Tensor, band: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Bounds (neurons,) that hold a band of the whole corpus, from the sorted maxima of a part."""
    count = ordered.shape[1]
    bounds = []
    for quantile, sign in zip(band, (-1.0, 1.0), strict=True):
        error = _STANDARD_ERRORS * np.sqrt(quantile * (1.0 - quantile) * count) + 1.0
        place = quantile * (count - 1) + sign * error
        if 0.0 < quantile < 1.0 and 0 <= place <= count - 1:
            bounds.append(ordered[:, int(np.floor(place) if sign < 0 else np.ceil(place))])
        else:
            bounds.append(torch.full((len(ordered),), sign * torch.inf))
    return bounds[0], bounds[1]
