"""The bins of a neuron's histogram, which collect fills and published formats carry."""

import numpy as np
from numpy.typing import NDArray

LOWEST_EXPONENT = -16
_BINS = 64
# Bin 0 holds activations <= 0; bin i > 0 those up to HISTOGRAM_EDGES[i - 1], half an octave each.
# Smaller positive values fall in bin 1, larger ones in the last.
HISTOGRAM_EDGES: NDArray[np.float64] = np.array(
    [2.0 ** (LOWEST_EXPONENT + step // 2) * (1.5 if step % 2 else 1.0) for step in range(_BINS)]
)
