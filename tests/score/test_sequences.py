"""Verdicts about sequences: gathered by neuron, and scored against what is so."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.config import ScoreSettings
from neuron_explainer.firing import firing, firing_threshold
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import NeuronRecord, Simulation
from neuron_explainer.runs import Run, simulation_table
from neuron_explainer.score.classification import HALF_WAY, auroc, balanced_accuracy
from neuron_explainer.score.sequences import SEQUENCE_METRICS, Verdicts, largest
from neuron_explainer.score.stage import SiteScores, score
from neuron_explainer.store import Shard
from neuron_explainer.workspace import Workspace

SITES = ("blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk")
NEURONS = Shard(0, 16)
VALID = ScoreSettings()

ROWS = st.lists(
    st.tuples(st.sampled_from([3, 5, 9]), st.booleans(), st.sampled_from([0, 2, 5, 9, np.nan])),
    max_size=30,
)


@given(ROWS)
def test_each_neuron_is_scored_on_its_own_sequences_in_any_order(
    rows: list[tuple[int, bool, float]],
) -> None:
    columns = [np.array([row[place] for row in rows]) for place in range(3)]
    neuron, truth = columns[0].astype(np.int32), columns[1].astype(np.bool_)
    said = columns[2].astype(np.float64)
    neurons = np.array([3, 5, 9], np.int32)
    made = Verdicts(neuron, truth, said).score(neurons)
    assert tuple(made) == SEQUENCE_METRICS
    for row, index in enumerate(neurons):
        mine = [(t, s) for n, t, s in rows if n == index and not np.isnan(s)]
        fires = np.array([[t for t, _ in mine]], np.bool_).reshape(1, -1)
        says = np.array([[s for _, s in mine]], np.float64).reshape(1, -1)
        mask = np.ones_like(fires)
        expected = (balanced_accuracy(fires, says, mask, HALF_WAY), auroc(fires, says, mask))
        for name, one in zip(SEQUENCE_METRICS, expected, strict=True):
            assert made[name].at(row) == one.at(0)


def test_the_largest_value_of_a_sequence_is_taken_where_it_counts() -> None:
    values = np.array([9.0, 1.0, 2.0, 7.0, -3.0])
    counts = np.array([False, True, True, False, True])
    found = largest(values, counts, np.array([3, 0, 1, 1]))
    assert found.tolist() == [2.0, -np.inf, -np.inf, -3.0]


@pytest.fixture
def run(small_workspace: Workspace, tmp_path: Path) -> Run:
    """A copy of the small run, to write simulations into."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    return Run(Workspace(root), "tiny-token-lookup")


def _constant(neuron: NeuronRecord) -> list[Simulation]:
    """10 at all tokens of a sequence in which the neuron fires, 0 elsewhere."""
    threshold = firing_threshold(neuron.statistics)
    return [
        Simulation(np.full(len(r.tokens), 10.0 if firing(r, threshold).any() else 0.0))
        for r in neuron.records
    ]


def _judge(run: Run, *, old: bool, predicts: str | None) -> list[SiteScores]:
    folder = run.simulations("judge")
    folder.open({"simulator": "judge", "seed": 0, "splits": ("valid",)})
    if predicts:
        folder.update({"predicts": predicts})
    for site in SITES:
        held_out = RecordSet(run.workspace.data, run.subject, site)
        neurons = list(held_out.shard(NEURONS, ["records", "neurons"], ["valid"]))
        table: pa.Table = simulation_table(
            range(NEURONS.stop), [n.records for n in neurons], [_constant(n) for n in neurons]
        )
        if old:
            table = table.drop_columns(["highlighted", "genuine"])
        folder.write({f"{site}/{NEURONS.file('simulations')}": table})
    return score(run, "judge", VALID)


@pytest.mark.parametrize("old", [False, True])
def test_the_truth_about_sequences_scores_1_or_is_of_one_kind(run: Run, old: bool) -> None:
    for made in _judge(run, old=old, predicts="sequences"):
        assert len(made.scores) == 2
        for scores in made.scores.values():
            assert set(scores.reasons) <= {None, "truth is constant"}
            assert scores.reasons.count(None) > 12
            assert (scores.values[~np.isnan(scores.values)] == 1).all()


def test_a_manifest_that_does_not_say_what_is_predicted_counts_as_tokens(run: Run) -> None:
    for made in _judge(run, old=True, predicts=None):
        assert "correlation_top_and_random" in made.scores
        assert not any("auroc" in name for name in made.scores)
