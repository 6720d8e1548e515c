"""Agreement of scores from different sequences."""

import numpy as np
import pytest

from neuron_explainer.compare.reliability import Reliability, reliability_of, spearman_brown
from neuron_explainer.compare.sources import SITE_BITS, Source
from neuron_explainer.config import ScoreSettings
from neuron_explainer.runs import Run
from neuron_explainer.workspace import Workspace

SITES = ["blocks.0.mlp.hook_post"]
TOP_AND_RANDOM = ("top", "random")


@pytest.fixture(scope="module")
def found(small_workspace: Workspace) -> Reliability:
    made = reliability_of("lookup", _source(small_workspace), SITES, _keys(), TOP_AND_RANDOM, 0)
    assert made is not None
    return made


def _source(here: Workspace, simulator: str = "token-lookup") -> Source:
    return Source(Run(here, "tiny-token-lookup"), simulator, ScoreSettings())


def _keys() -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.arange(64, dtype=np.int64) | (0 << SITE_BITS)


def test_more_sequences_agree_better(found: Reliability) -> None:
    assert found.sequences == (2, 4, 6, 8, 10)
    values = [estimate.value for estimate in found.agreement]
    assert values[0] < values[-1]
    assert all(-1 <= value <= 1 for value in values)
    for estimate in found.agreement:
        assert estimate.interval is not None
        assert estimate.interval.low < estimate.value < estimate.interval.high


def test_the_reported_score_is_projected_from_the_largest_sets(found: Reliability) -> None:
    assert found.reported_sequences == 10
    assert found.reported == pytest.approx(found.agreement[-1].value)


def test_the_formula_of_spearman_and_brown() -> None:
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(0.7, 1) == pytest.approx(0.7)
    assert spearman_brown(spearman_brown(0.4, 5), 1 / 5) == pytest.approx(0.4)


def test_a_prediction_that_never_varies_has_no_agreement(small_workspace: Workspace) -> None:
    constant = _source(small_workspace, "constant")
    assert reliability_of("constant", constant, SITES, _keys(), TOP_AND_RANDOM, 0) is None


def test_the_same_seed_gives_the_same_agreement(
    small_workspace: Workspace, found: Reliability
) -> None:
    source = _source(small_workspace)
    assert reliability_of("lookup", source, SITES, _keys(), TOP_AND_RANDOM, 0) == found
