"""How sure one neuron's score is: bootstrap intervals over its sequences, from their sums.

A score of all a neuron's tokens at once is a function of sums over them, so a sequence is kept as
its sums, and a resample of sequences costs one addition a sequence.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.score.bootstrap import interval

Floats = NDArray[np.float64]

_SEED = 0
_RESAMPLES = 1000
_HALF_WAY = 5.0


def correlation_sums(truth: Floats, predicted: Floats) -> Floats:
    """Of one sequence's counted tokens (tokens,): how many, Σx, Σy, Σx², Σy², Σxy."""
    return np.array(
        [
            len(truth),
            *(truth.sum(), predicted.sum()),
            *(truth @ truth, predicted @ predicted, truth @ predicted),
        ]
    )


def correlation_of(sums: Floats) -> Floats:
    """Pearson's r from sums (..., 6); NaN where one side is constant."""
    count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(all="ignore"):
        spread_x, spread_y = count * xx - x * x, count * yy - y * y
        constant = (spread_x <= 1e-12 * count * xx) | (spread_y <= 1e-12 * count * yy)
        found = (count * xy - x * y) / np.sqrt(spread_x * spread_y)
    return np.where(constant, np.nan, np.clip(found, -1.0, 1.0))


def correlation_interval(sequences: Sequence[Floats]) -> list[float] | None:
    """The interval of r over all tokens, from each sequence's `correlation_sums`."""
    if len(sequences) < 2:
        return None
    return _ends(interval(np.stack(sequences), correlation_of, _SEED, resamples=_RESAMPLES))


def accuracy_interval(fires: NDArray[np.bool_], said: Floats) -> list[float] | None:
    """The interval of balanced accuracy over sequences, both (sequences,); said from 0 to 10."""
    if len(said) < 2:
        return None
    right = 0.5 * (1.0 + np.sign(said - _HALF_WAY))
    columns = np.stack([fires, fires * right, ~fires, ~fires * (1.0 - right)], axis=1)

    def statistic(sums: Floats) -> Floats:
        active, found, silent, spared = np.moveaxis(sums, -1, 0)
        return np.asarray(0.5 * (found / active + spared / silent), np.float64)

    return _ends(interval(columns.astype(np.float64), statistic, _SEED, resamples=_RESAMPLES))


def area_interval(fires: NDArray[np.bool_], said: Floats) -> list[float] | None:
    """The interval of the AUROC over sequences, both (sequences,)."""
    if len(said) < 2:
        return None
    # above[i, j]: whether the i-th active sequence is ranked above the j-th silent one
    above = 0.5 * (1.0 + np.sign(said[fires][:, None] - said[~fires]))

    def statistic(times: Floats) -> Floats:
        """`times` (..., sequences): how often each was drawn."""
        active, silent = times[..., fires], times[..., ~fires]
        pairs = active.sum(axis=-1) * silent.sum(axis=-1)
        return np.asarray(((active @ above) * silent).sum(axis=-1) / pairs, np.float64)

    return _ends(interval(np.eye(len(said)), statistic, _SEED, resamples=_RESAMPLES))


def _ends(found: object) -> list[float] | None:
    low, high = getattr(found, "low", None), getattr(found, "high", None)
    return None if low is None or high is None else [float(f"{low:.6g}"), float(f"{high:.6g}")]
