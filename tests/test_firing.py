"""When a neuron counts as firing: any activation of a sparse one, half the maximum of others."""

from collections.abc import Sequence
from math import inf

import numpy as np
import pytest

from neuron_explainer.firing import firing, firing_threshold
from neuron_explainer.records import Record, Statistics


def _statistics(maximum: float | None, boundaries: Sequence[float | None] | None) -> Statistics:
    histogram = np.zeros(0, np.int64)
    return Statistics(0, None, maximum, None, None, None, None, boundaries, histogram)


@pytest.mark.parametrize(
    ("maximum", "boundaries", "threshold"),
    [
        (8.0, (0.0, 0.5, 2.0, 6.0), 0.0),  # silent in half of all excerpts
        (8.0, (-0.1, 0.5, 2.0, 6.0), 0.0),
        (8.0, (0.2, 0.5, 2.0, 6.0), 4.0),
        (8.0, None, 4.0),  # not published
        (8.0, (None, 0.5), 4.0),
        (8.0, (), 4.0),
        (0.0, (0.0,), inf),
        (-1.0, (-1.0,), inf),
        (None, None, inf),
    ],
)
def test_the_threshold_depends_on_whether_the_neuron_is_sparse(
    maximum: float | None, boundaries: Sequence[float | None] | None, threshold: float
) -> None:
    assert firing_threshold(_statistics(maximum, boundaries)) == threshold


def test_a_neuron_of_which_nothing_is_known_never_fires() -> None:
    assert firing_threshold(None) == inf


def test_a_neuron_fires_above_the_threshold_at_scored_positions() -> None:
    activations = np.array([9.0, 4.0, 4.5, 0.0], np.float16)
    scored = np.array([False, True, True, True])
    record = Record((b"a",) * 4, activations.astype(np.float32), scored, "top", "valid", 0)
    assert firing(record, 4.0).tolist() == [False, False, True, False]
    assert firing(record, 0.0).tolist() == [False, True, True, False]
    assert not firing(record, inf).any()
