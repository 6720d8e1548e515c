"""When a neuron counts as firing, for scores that ask whether it does and not how much.

A sparse neuron, such as most autoencoder latents, fires wherever its activation is above 0: that is
what its activation means. A neuron that is above 0 somewhere in nearly every text, as most GELU
neurons are, would then fire everywhere; it fires where it exceeds `FIRING_SHARE` of its maximum.
"""

from math import inf

import numpy as np

from neuron_explainer.records import BoolArray, Record, Statistics

FIRING_SHARE = 0.5  # of the neuron's largest activation in the corpus


def firing_threshold(statistics: Statistics | None) -> float:
    """The raw activation above which a neuron fires; infinite for one that never does.

    0 for a neuron that stays silent in half of all excerpts at least.
    """
    if statistics is None or statistics.maximum is None or statistics.maximum <= 0:
        return inf
    boundaries = statistics.quantile_boundaries
    median = boundaries[0] if boundaries else None  # of its maximum in an excerpt
    return 0.0 if median is not None and median <= 0 else FIRING_SHARE * statistics.maximum


def firing(record: Record, threshold: float) -> BoolArray:
    """The scored positions (tokens,) at which the neuron fires."""
    # single precision would make a threshold out of a stored activation that just exceeds it
    return record.scored & (record.activations.astype(np.float64) > threshold)
