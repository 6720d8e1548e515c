"""Published explanations as runs."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_objects import (
    contents,
    neuron_record,
    record,
    result,
    results,
    whole_files,
    write,
)

from neuron_explainer.config import ScoreSettings
from neuron_explainer.errors import DataError, RunMismatch
from neuron_explainer.interchange import openai
from neuron_explainer.interchange.openai_export import export_run
from neuron_explainer.interchange.openai_import import import_explanations, import_records
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import NeuronId
from neuron_explainer.runs import Run
from neuron_explainer.score.stage import score
from neuron_explainer.workspace import Workspace

SITE = "blocks.3.mlp.hook_post"


@whole_files
@given(st.tuples(results(3, 0), results(3, 600), results(11, 0)))
def test_explanations_that_are_imported_are_exported_as_equal_json(
    published: tuple[openai.NeuronSimulationResults, ...],
) -> None:
    with TemporaryDirectory() as folder:
        files, root, out = (Path(folder) / name for name in ("in", "root", "out"))
        found = import_explanations(write(files, *published), root, "gpt-4")
        empty = sum(not item.scored_explanations for item in published)
        assert (found.imported, len(found.failures)) == (3 - empty, empty)
        assert export_run(root, "gpt-4", "imported", out).explanations == 3
        assert contents(out / "explanations") == contents(files)
        assert not (out / "collated-activations").exists()


def test_the_first_explanation_is_the_run_s_and_the_others_are_kept(tmp_path: Path) -> None:
    import_explanations(write(tmp_path / "in", result(3, 5, ["rain", "snow"])), tmp_path, "gpt-4")
    run = Run(Workspace(tmp_path), "gpt-4")
    assert run.sites() == [SITE]
    explanation = run.explanation(NeuronId("gpt-4", SITE, 5))
    assert explanation is not None
    assert (explanation.text, explanation.explainer) == ("rain", "imported")
    others = run.folder.read_all(f"{SITE}/alternatives").to_pylist()
    assert others == [{"neuron": 5, "explanation": 1, "text": "snow"}]


def test_records_are_the_simulated_sequences_with_their_truth(tmp_path: Path) -> None:
    import_explanations(write(tmp_path / "in", result(3, 5)), tmp_path, "gpt-4")
    neuron = RecordSet(tmp_path / "data", "gpt-4", SITE).neuron(5)
    assert [item.kind for item in neuron.records] == ["top"] * 5 + ["random"] * 5
    assert {item.split for item in neuron.records} == {"valid"}
    assert neuron.records[7].tokens == (b" a", b" 7", b" b")
    assert neuron.records[7].activations.tolist() == [0.0, 7 * 0.7, -0.1 * 7]
    assert neuron.statistics is None


def test_simulations_are_the_expected_activations(tmp_path: Path) -> None:
    import_explanations(write(tmp_path / "in", result(3, 5)), tmp_path, "gpt-4")
    run = Run(Workspace(tmp_path), "gpt-4")
    table = run.simulations("imported").read_all(f"{SITE}/simulations")
    assert table.schema.field("activations").type == pa.list_(pa.float64())
    assert table["rank"].to_pylist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert table["activations"].to_pylist()[7] == [0.1, 7 / 3, 0.5]


def test_published_scores_are_computed_anew_from_what_was_imported(tmp_path: Path) -> None:
    import_explanations(write(tmp_path / "in", result(3, 5), result(3, 6)), tmp_path, "gpt-4")
    run = Run(Workspace(tmp_path), "gpt-4")
    (scores,) = score(run, "imported", ScoreSettings())
    scored = result(3, 5).scored_explanations[0].scored_simulation.scored_sequence_simulations
    for choice, sequences in (("top_and_random", scored), ("random_only", scored[5:])):
        truth = np.concatenate([item.true_activations for item in sequences])
        said = np.concatenate(
            [np.array(item.simulation.expected_activations, np.float64) for item in sequences]
        )
        expected = np.corrcoef(truth, said)[0, 1]
        assert scores.scores[f"correlation_{choice}"].values == pytest.approx([expected] * 2)


def test_a_sequence_that_is_simulated_twice_is_scored_twice(tmp_path: Path) -> None:
    item = result(3, 5)
    explanation = item.scored_explanations[0]
    first, *others = explanation.scored_simulation.scored_sequence_simulations
    twice = openai.ScoredSimulation((first, first, *others))
    published = replace(item, scored_explanations=(replace(explanation, scored_simulation=twice),))
    import_explanations(write(tmp_path / "in", published), tmp_path, "x")
    (scores,) = score(Run(Workspace(tmp_path), "x"), "imported", ScoreSettings())
    assert np.isfinite(scores.scores["correlation_top_and_random"].values).all()


def test_a_neuron_without_explanations_is_a_failure_that_is_exported_again(tmp_path: Path) -> None:
    empty = openai.NeuronSimulationResults(openai.NeuronId(3, 4), ())
    files = write(tmp_path / "in", empty, result(3, 5))
    found = import_explanations(files, tmp_path, "x")
    assert [(item.neuron.index, item.cause) for item in found.failures] == [(4, "no-explanation")]
    export_run(tmp_path, "x", "imported", tmp_path / "out")
    assert contents(tmp_path / "out/explanations") == contents(files)


def test_a_bad_line_costs_one_neuron(tmp_path: Path) -> None:
    files = write(tmp_path / "in", *(result(3, place) for place in range(4)))
    line = (files / "3/0.jsonl").read_bytes()
    (files / "3/0.jsonl").write_bytes(line + b"\n" + line + b"\n")
    (files / "3/1.jsonl").write_bytes(line.replace(b'"neuron_activations"', b'"metres"', 1))
    (files / "3/2.jsonl").write_bytes(line[:-40])
    found = import_explanations(files, tmp_path, "x")
    assert found.imported == 1
    assert [item.cause for item in found.failures] == ["malformed"] * 3
    messages = [item.message for item in found.failures]
    assert "3/0.jsonl is malformed: it is no JSON" in messages[0]
    assert "activation_scale: expected neuron_activations or" in messages[1]
    stored = Run(Workspace(tmp_path), "x").folder.read_all(f"{SITE}/failures")["message"]
    assert stored.to_pylist() == messages
    export_run(tmp_path, "x", "imported", tmp_path / "out")
    assert set(contents(tmp_path / "out/explanations")) == {"3/3.jsonl"}


def test_one_line_can_be_imported_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "in", result(3, 5))
    found = import_explanations(tmp_path / "in/3/5.jsonl", tmp_path, "x")
    assert (found.imported, found.sites) == (1, (SITE,))
    (tmp_path / "bad.jsonl").write_text('{"neuron_id": 1}')
    with pytest.raises(DataError, match=r"bad\.jsonl is malformed: "):
        import_explanations(tmp_path / "bad.jsonl", tmp_path, "y")


def test_explanations_do_not_overwrite_records_of_the_same_name(tmp_path: Path) -> None:
    import_records(write(tmp_path / "in", neuron_record(3, 0)), tmp_path / "data", "x")
    with pytest.raises(RunMismatch, match="choose another name"):
        import_explanations(write(tmp_path / "in", result(3, 0)), tmp_path, "x")
    assert RecordSet(tmp_path / "data", "x", SITE).neuron(0).statistics is not None


def test_an_activation_that_was_not_given_is_null_and_does_not_count(tmp_path: Path) -> None:
    simulation = openai.SequenceSimulation(("a", "b"), (None, 2.0), "neuron_activations")
    truth = record(1.0, 2.0).activations
    scored = openai.ScoredSimulation((openai.ScoredSequenceSimulation(simulation, truth),))
    published = openai.NeuronSimulationResults(
        openai.NeuronId(3, 0), (openai.ScoredExplanation("rain", scored),)
    )
    files = write(tmp_path / "in", published)
    import_explanations(files, tmp_path, "x")
    run = Run(Workspace(tmp_path), "x")
    table = run.simulations("imported").read_all(f"{SITE}/simulations")
    assert table["activations"].to_pylist() == [[None, 2.0]]
    export_run(tmp_path, "x", "imported", tmp_path / "out")
    assert contents(tmp_path / "out/explanations") == contents(files)
