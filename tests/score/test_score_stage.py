"""Scores of simulations on disk: planted ones, whose scores are known."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from commands import in_process

from neuron_explainer.config import ScoreSettings, SimulateSettings
from neuron_explainer.errors import DataError
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import (
    Failure,
    FloatArray,
    NeuronId,
    Record,
    Simulation,
    Split,
)
from neuron_explainer.runner import failure_table
from neuron_explainer.runs import Run, simulation_table
from neuron_explainer.score import summary
from neuron_explainer.score.stage import CHOICES, SiteScores, score
from neuron_explainer.simulate.base import NULLS
from neuron_explainer.simulate.stage import simulate
from neuron_explainer.store import Folder, Shard
from neuron_explainer.workspace import Workspace

SITE, LATENTS = "blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk"
NEURONS = Shard(0, 16)
HELD_OUT: tuple[Split, ...] = ("calibration", "valid")
VALID = ScoreSettings()
Predict = Callable[[Record], FloatArray]


@pytest.fixture
def run(small_workspace: Workspace, tmp_path: Path) -> Run:
    """A copy of the small run, to write simulations into."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    return Run(Workspace(root), "tiny-token-lookup")


def _records(run: Run, site: str, splits: tuple[Split, ...]) -> list[tuple[Record, ...]]:
    record_set = RecordSet(run.workspace.data, run.subject, site)
    return [neuron.records for neuron in record_set.shard(NEURONS, ["records"], splits)]


def _plant(
    run: Run,
    predict: Predict,
    splits: tuple[Split, ...] = HELD_OUT,
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> Folder:
    """Simulations `planted` of both sites, each record predicted as `predict` says."""
    folder = run.simulations("planted")
    folder.open({"simulator": "planted", "seed": 0, "splits": splits})
    for site in (SITE, LATENTS):
        records = _records(run, site, splits)
        made = [[Simulation(predict(record)) for record in of_neuron] for of_neuron in records]
        table = simulation_table(range(NEURONS.start, NEURONS.stop), records, made)
        folder.write({f"{site}/{NEURONS.file('simulations')}": change(table)})
    return folder


def _score(run: Run, simulator: str = "planted", settings: ScoreSettings = VALID) -> SiteScores:
    scores = {made.site: made for made in score(run, simulator, settings)}
    assert set(scores) == {SITE, LATENTS}
    return scores[SITE]


def test_a_prediction_equal_to_the_truth_scores_1_everywhere(run: Run) -> None:
    _plant(run, lambda record: record.activations)
    scores = _score(run)
    np.testing.assert_array_equal(scores.neurons, np.arange(16))
    assert len(scores.scores) == 2 * 7 + 1
    for name, made in scores.scores.items():
        assert made.reasons == (None,) * 16, name
        np.testing.assert_allclose(made.values, 1.0, rtol=1e-5, err_msg=name)


def test_scale_and_offset_of_a_prediction_do_not_matter(run: Run) -> None:
    _plant(run, lambda record: 3 * record.activations.astype(np.float64) - 7)
    for made in _score(run).scores.values():
        np.testing.assert_allclose(made.values, 1.0, rtol=1e-4)


def test_what_is_predicted_where_no_token_counts_does_not_matter(run: Run) -> None:
    _plant(run, lambda record: np.where(record.scored, record.activations, 1e6))
    np.testing.assert_allclose(_score(run).scores["correlation_random_only"].values, 1.0, rtol=1e-5)


def test_noise_scores_about_0(run: Run) -> None:
    rng = np.random.default_rng(0)
    _plant(run, lambda record: rng.normal(size=len(record.tokens)))
    for choice in CHOICES:
        assert abs(_score(run).scores[f"correlation_{choice}"].values.mean()) < 0.05


def test_shuffled_explanations_score_about_0_and_their_own_far_above(run: Run) -> None:
    own, shuffled = (
        _score(run, name).scores["correlation_top_and_random"].values
        for name in ("token-lookup", "shuffled")
    )
    assert abs(shuffled.mean()) < 0.1
    assert own.mean() > 0.3


def test_random_records_alone_are_scored_alone(run: Run) -> None:
    _plant(
        run,
        lambda record: record.activations if record.kind == "random" else -record.activations,
    )
    scores = _score(run).scores
    np.testing.assert_allclose(scores["correlation_random_only"].values, 1.0, rtol=1e-5)
    assert (scores["correlation_top_and_random"].values < 0.5).all()


def test_tokens_without_a_prediction_are_left_out_of_both_sides(run: Run) -> None:
    def every_second(record: Record) -> FloatArray:
        return np.where(np.arange(len(record.tokens)) % 2, record.activations, np.nan)

    _plant(run, every_second)
    np.testing.assert_allclose(_score(run).scores["correlation_top_and_random"].values, 1.0, 1e-5)


def test_a_neuron_without_any_prediction_is_undefined_not_0(run: Run) -> None:
    _plant(run, lambda record: np.full(len(record.tokens), np.nan))
    made = _score(run).scores["correlation_top_and_random"]
    assert set(made.reasons) == {"no tokens"}
    assert np.isnan(made.values).all()


def test_a_constant_prediction_has_no_correlation_but_is_counted(run: Run) -> None:
    made = _score(run, "constant").scores["correlation_top_and_random"]
    assert set(made.reasons) == {"prediction is constant"}
    (row,) = (
        row for row in summary.rows_of(run, VALID) if (row.site, row.label) == (SITE, "constant")
    )
    counted = row.correlation["top_and_random"]
    assert (counted.n, counted.defined, counted.undefined_share) == (64, 0, 1.0)
    assert counted.mean is None
    assert counted.mean_undefined_as_zero == 0.0
    assert counted.reasons == {"prediction is constant": 64}


def test_without_a_calibration_split_only_the_correlation_is_defined(run: Run) -> None:
    _plant(run, lambda record: record.activations, splits=("valid",))
    for name, made in _score(run).scores.items():
        if name.startswith("correlation"):
            np.testing.assert_allclose(made.values, 1.0, rtol=1e-5)
        else:
            assert all(made.reasons), name


def test_a_shard_without_any_simulation_has_scores_of_nobody(run: Run) -> None:
    _plant(run, lambda record: record.activations, change=lambda table: table.slice(0, 0))
    scores = _score(run)
    assert len(scores.neurons) == 0
    assert all(len(made.values) == 0 for made in scores.scores.values())


def test_a_simulation_whose_record_is_gone_is_reported(run: Run) -> None:
    def elsewhere(table: pa.Table) -> pa.Table:
        sequences = table["sequence"].to_numpy().copy()
        sequences[0] = 10**6
        return table.set_column(4, table.schema.field(4), pa.array(sequences))

    _plant(run, lambda record: record.activations, change=elsewhere)
    with pytest.raises(DataError, match="a simulation has no record"):
        _score(run)


def test_a_simulation_of_another_length_than_its_record_is_reported(run: Run) -> None:
    _plant(run, lambda record: record.activations[:-1])
    with pytest.raises(DataError, match="differ in length"):
        _score(run)


def test_scoring_twice_changes_nothing(run: Run) -> None:
    folder = _plant(run, lambda record: record.activations)
    _score(run)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    _score(run)
    after = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert after == before


def test_a_simulator_that_has_not_run_is_named_with_its_command(run: Run) -> None:
    with pytest.raises(DataError, match="simulate tiny-token-lookup --simulator nobody"):
        _score(run, "nobody")


def test_a_run_that_does_not_exist_is_answered_with_those_that_do(run: Run) -> None:
    with pytest.raises(DataError, match="there are: tiny-token-lookup, tiny-token-lookup-all"):
        _score(Run(run.workspace, "nothing"))


def test_a_split_that_was_not_simulated_is_not_scored(run: Run) -> None:
    with pytest.raises(DataError, match=r"not simulated the test split .* --test"):
        _score(run, "token-lookup", ScoreSettings("test"))


def test_the_test_split_is_scored_on_request_and_beside_the_other(run: Run) -> None:
    shutil.rmtree(run.simulations("token-lookup").path)
    asyncio.run(simulate(run, "token-lookup", SimulateSettings(test=True)))
    valid = _score(run, "token-lookup")
    test = _score(run, "token-lookup", ScoreSettings("test"))
    again = _score(run, "token-lookup")
    for name, made in valid.scores.items():
        np.testing.assert_array_equal(made.values, again.scores[name].values)
    assert not np.array_equal(
        valid.scores["correlation_random_only"].values,
        test.scores["correlation_random_only"].values,
    )
    rows = summary.rows_of(run, ScoreSettings("test"))
    assert {row.label for row in rows} == {"token-lookup"}


def test_the_summary_has_a_row_a_site_and_simulator_nulls_and_references_last(run: Run) -> None:
    rows = summary.rows_of(run, VALID)
    labels = ["token-lookup", summary.WHOLE_TABLE_LABEL, "constant", "shuffled"]
    assert [(row.site, row.label) for row in rows] == [
        (site, label) for site in (SITE, LATENTS) for label in labels
    ]
    assert {row.run for row in rows} == {"tiny-token-lookup", "tiny-token-lookup-all"}
    for row in rows:
        cells = summary.cells(row)
        assert cells["n"] == f"{row.correlation['top_and_random'].n:,}"
        assert cells["null"] == (row.label in NULLS)
        assert row.correlation["top_and_random"].n <= 64


def test_a_run_of_other_records_is_no_reference(run: Run) -> None:
    assert [reference.name for reference in summary.references(run)] == ["tiny-token-lookup-all"]
    other = Run(run.workspace, "tiny-token-lookup-all")
    other.folder.update({"inputs": {SITE: "another digest"}})
    assert summary.references(run) == []
    remarks = summary.remarks(run, summary.rows_of(run, VALID))
    assert "no whole-table baseline" in remarks[-1]


def test_what_is_undefined_is_remarked_with_its_reason_and_as_0(run: Run) -> None:
    def nothing_on_random(record: Record) -> FloatArray:
        return np.where(record.kind == "random", np.nan, record.activations)

    _plant(run, nothing_on_random)
    _score(run)
    planted = [row for row in summary.rows_of(run, VALID) if row.label == "planted"]
    remark = summary.remarks(run, planted)[0]
    assert "planted, random only: 100.0% undefined (no tokens)" in remark
    assert "with undefined as 0 the mean is 0.000" in remark


def test_a_row_for_programs_holds_every_score(run: Run) -> None:
    row = summary.as_json(summary.rows_of(run, VALID)[0], seed=0)
    assert row["site"] == SITE
    assert row["simulator"] == "token-lookup"
    scores = row["scores"]
    assert isinstance(scores, dict)
    assert len(scores) == 2 * 7 + 1
    for made in scores.values():
        assert made["interval"]["low"] <= made["mean"] <= made["interval"]["high"]


def test_settings_that_differ_in_the_seed_alone_give_the_same_scores(run: Run) -> None:
    _plant(run, lambda record: record.activations)
    one, other = (_score(run, settings=replace(VALID, seed=seed)) for seed in (0, 1))
    for name, made in one.scores.items():
        np.testing.assert_array_equal(made.values, other.scores[name].values)


def test_neurons_without_a_simulation_are_told_with_their_cause(run: Run) -> None:
    folder = _plant(run, lambda record: record.activations)
    neuron = NeuronId(run.subject, SITE, 3)
    failures = failure_table([Failure(neuron, "simulate", "context-overflow", "too long")])
    folder.write({f"{SITE}/{NEURONS.file('failures')}": failures})
    _score(run)
    row = next(row for row in summary.rows_of(run, VALID) if row.label == "planted")
    assert summary.as_json(row, seed=0)["failures"] == {"context-overflow": 1}
    told = f"{SITE}, planted: 1 neurons without a simulation (context-overflow) are in no figure"
    assert told in summary.remarks(run, [row])


def test_a_simulator_that_was_stopped_at_once_is_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.simulations("stopped").open({"simulator": "numbers", "seed": 0, "splits": HELD_OUT})
    done = in_process(monkeypatch, capsys)("score", run.name, "--workspace", run.workspace.root)
    assert done.code == 0
    assert "note: stopped has not simulated a shard yet: left out" in done.err
