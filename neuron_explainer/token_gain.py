"""How much of a neuron's variance one row of a token table explains."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Scores are computed half on top records, whose tokens are not those of the corpus. The train
# records say which they are but are few: this weight scored best on held-out records.
_RECORD_WEIGHT = 0.2


def mixture(corpus: Floats, records: Floats) -> Floats:
    """Shares of tokens in corpus and train records together, from their counts (…, rows)."""
    parts = [
        counts / np.maximum(1.0, counts.sum(-1, keepdims=True)) for counts in (corpus, records)
    ]
    mixed: Floats = (1 - _RECORD_WEIGHT) * parts[0] + _RECORD_WEIGHT * parts[1]
    return mixed


def variance_gain(shares: Floats, means: Floats, baseline: Floats) -> Floats:
    """Variance explained by predicting `means` (…, rows) instead of `baseline` (…, rows or 1)."""
    gain: Floats = shares * (means - baseline) ** 2
    return gain
