"""Which neurons are compared, and how what is missing is counted."""

import numpy as np
import pytest

from neuron_explainer.compare.results import compare
from neuron_explainer.compare.statistics import Resampling
from neuron_explainer.compare.table import NOT_IN_SEED, Cells, Column, Table, pair
from neuron_explainer.errors import DataError


def cells(scores: dict[int, float], failures: dict[int, str] | None = None) -> Cells:
    """Scores by neuron, and neurons with a failure instead."""
    failed = failures or {}
    keys = sorted({*scores, *failed})
    return Cells(
        np.array(keys, np.int64),
        np.array([scores.get(key, np.nan) for key in keys]),
        np.array([failed.get(key) for key in keys], np.object_),
        np.array([key in scores for key in keys]),
    )


def test_a_failure_of_one_method_is_undefined_and_not_left_out() -> None:
    failing = cells({0: 0.5, 2: 0.4}, {1: "simulate: timeout"})
    keys, (a, b) = pair([Column("a", [failing]), Column("b", [cells({0: 0.3, 1: 0.3, 2: 0.3})])])
    assert keys.tolist() == [0, 1, 2]
    assert a.undefined == {"simulate: timeout": 1}
    assert (a.absent, b.absent) == (0, 0)
    np.testing.assert_allclose(a.or_chance(0.0), [0.5, 0.0, 0.4])
    found = compare(Table("r", keys, ["0", "1", "2"], None, (b, a)), Resampling(resamples=200))
    contrast, zero = found.pairs[0].contrast, found.pairs[0].undefined_as_chance
    assert contrast is not None
    assert zero is not None
    assert (contrast.n, zero.n) == (2, 3)
    assert contrast.difference.value > 0
    assert zero.difference.value == pytest.approx(0)


def test_a_neuron_that_no_method_could_score_is_not_compared() -> None:
    dead = {7: "explain: never-active"}
    keys, methods = pair([Column(name, [cells({0: 0.5, 1: 0.1}, dead)]) for name in "ab"])
    assert keys.tolist() == [0, 1]
    assert [method.undefined for method in methods] == [{}, {}]


def test_a_neuron_that_one_method_never_tried_is_left_out_and_counted() -> None:
    keys, (a, b) = pair(
        [Column("a", [cells({0: 0.1, 3: 0.2})]), Column("b", [cells({0: 0.1, 1: 0.2, 2: 0.3})])]
    )
    assert keys.tolist() == [0]
    assert (a.absent, b.absent) == (2, 1)


def test_a_seed_without_a_neuron_leaves_the_other_seeds() -> None:
    keys, (a, _) = pair(
        [
            Column("a", [cells({0: 0.1, 1: 0.2}), cells({0: 0.3})]),
            Column("b", [cells({0: 0.0, 1: 0.0})]),
        ]
    )
    assert keys.tolist() == [0, 1]
    np.testing.assert_allclose(a.means, [0.2, 0.2])
    np.testing.assert_allclose(a.or_chance(0.0), [0.2, 0.1])
    assert a.undefined == {NOT_IN_SEED: 1}


def test_methods_without_a_neuron_in_common_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to compare"):
        pair([Column("a", [cells({0: 0.1})]), Column("b", [cells({1: 0.1})])])
