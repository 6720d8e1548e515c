"""The published objects as JSON. Reference values: see tests/test_golden.py."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_objects import Json, neuron_records, record, result, results, whole_files

from neuron_explainer.errors import DataError
from neuron_explainer.interchange import openai

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden"
FILE = Path(os.environ.get("NEURON_EXPLAINER_GOLDEN", BESIDE)) / "reference.json"
golden = pytest.mark.skipif(not FILE.is_file(), reason=f"no reference values: {FILE}")
ID = '{"layer_index": 0, "neuron_index": 1}'


def reference(name: str) -> Json:
    """One case of the reference values."""
    cases = json.loads(FILE.read_bytes())["cases"]
    return next(case for case in cases if case["id"] == name)


def scored(score: float | None = None) -> openai.ScoredSequenceSimulation:
    """A calibrated simulation of three tokens."""
    tokens, expected = ("a", "b", "c"), (1.0, 9.0, 2.0)
    values = tuple((0.0, number) for number in expected)
    halves = ((0.25, 0.75),) * 3
    raw = openai.SequenceSimulation(
        tokens, expected, "simulated_normalized_activations", values, halves
    )
    simulation = openai.SequenceSimulation(
        tokens, expected, "neuron_activations", values, halves, raw
    )
    return openai.ScoredSequenceSimulation(simulation, (0.0, 4.0, 0.5), score, score, score)


@golden
def test_undefined_scores_are_written_as_null_like_the_reference() -> None:
    written = json.loads(openai.dumps(scored(math.nan)))
    found = {
        "ev": written["ev_correlation_score"],
        "r2": written["rsquared_score"],
        "ad": written["absolute_dev_explained_score"],
    }
    assert found == reference("serialise_nan")["expected"]


@golden
def test_an_activation_record_is_written_byte_for_byte_like_the_reference() -> None:
    assert openai.dumps(record(1.0, tokens=["a"])).decode() == reference("fastdc_dump")["expected"]


@golden
def test_a_neuron_record_of_which_nothing_is_known_is_written_like_the_reference() -> None:
    written = openai.dumps(openai.NeuronRecord(openai.NeuronId(1, 2)))
    assert json.loads(written) == reference("fastdc_dump_neuron")["expected"]


@golden
def test_an_object_without_a_tag_is_known_like_in_the_reference() -> None:
    case = reference("fastdc_load_legacy")
    found = openai.loads(case["input"])
    assert type(found).__name__ == case["expected"]
    assert found == record(1.0, tokens=["a"])


@golden
def test_a_scored_simulation_is_written_like_the_reference() -> None:
    expected = reference("scored_simulation_json")["expected"]
    loaded = openai.loads(json.dumps(expected))
    assert isinstance(loaded, openai.ScoredSequenceSimulation)
    assert loaded.simulation == scored().simulation
    assert json.loads(openai.dumps(loaded)) == expected


@whole_files
@given(st.one_of(neuron_records(3, 4), results(3, 4)))
def test_what_is_written_is_read_back(item: openai.NeuronRecord) -> None:
    assert openai.loads(openai.dumps(item)) == item


def test_tags_and_optional_fields_may_be_absent_at_every_level() -> None:
    sequence = {
        "simulation": {
            "tokens": ["a"],
            "expected_activations": [1],
            "activation_scale": "neuron_activations",
        },
        "true_activations": [0],
    }
    simulation = {"scored_sequence_simulations": [sequence]}
    legacy = {
        "neuron_id": json.loads(ID),
        "scored_explanations": [{"explanation": "rain", "scored_simulation": simulation}],
    }
    found = openai.loads(json.dumps(legacy))
    assert isinstance(found, openai.NeuronSimulationResults)
    read = found.scored_explanations[0].scored_simulation.scored_sequence_simulations[0]
    assert read.simulation.expected_activations == (1.0,)
    assert read.simulation.uncalibrated_simulation is None
    assert read.ev_correlation_score is None


def test_infinities_are_written_as_null_inside_lists_too() -> None:
    broken = record(1.0, math.inf, -math.inf, math.nan, tokens=["a", "b", "c", "\ud800"])
    assert json.loads(openai.dumps(broken))["activations"] == [1.0, None, None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tokens": ["a"], "activations": [NaN]}', "field activations[0]: .*NaN"),
        ('{"tokens": ["a"], "activations": [-Infinity]}', "field activations[0]: .*-Infinity"),
        ('{"tokens": ["a"], "activations": [1e999]}', "field activations[0]: .*1e999"),
        ('{"tokens": ["a"], "activations": [null]}', "field activations[0]: expected a number"),
        ('{"tokens": ["a"], "activations": [true]}', "field activations[0]: expected a number"),
        ('{"tokens": ["a"], "activations": [9007199254740993]}', "field activations[0]: .*exactly"),
        ('{"tokens": ["a", 1], "activations": [1, 2]}', "field tokens[1]: expected text"),
        ('{"tokens": "ab", "activations": [1, 2]}', "field tokens: expected a list"),
        ('{"tokens": ["a"], "activations": [1, 2]}', "1 tokens but 2 activations"),
        ('{"neuron_id": %s, "mean": "x"}', "field mean: expected a number, not 'x'"),
        ('{"neuron_id": %s, "random_sample": null}', "field random_sample: expected a list"),
        ('{"neuron_id": %s, "random_sample": [{"tokens": []}]}', "random_sample[0].activations"),
        ('{"neuron_id": {"layer_index": -1, "neuron_index": 1}}', "field neuron_id.layer_index"),
        ('{"neuron_id": {"layer_index": 1.0, "neuron_index": 1}}', "field neuron_id.layer_index"),
        ('{"dataclass_name": "NeuronRecord", "neuron_id": %s, "b\\u001bd": 1}', "'b.x1bd'"),
        ('{"dataclass_name": "Nothing", "neuron_id": %s}', "none of the published"),
        ('{"layer_index": 0, "neuron_index": 0, "colour": 1}', "none of the published"),
        ("[]", "expected an object"),
        ("{", "no JSON"),
        ("", "no JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 2_000 + "1" + "}" * 2_000, "nested too deep"),
        ('{"tokens": ["\\ud800"], "activations": [' + "1" * 5_000 + "]}", "no JSON"),
    ],
)
def test_what_is_malformed_is_refused_by_file_and_field(text: str, message: str) -> None:
    pattern = "^x.json is malformed: .*" + message.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(DataError, match=pattern) as caught:
        openai.loads(text.replace("%s", ID), "x.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(DataError, match=r"x\.json is malformed: it is no JSON"):
        openai.loads(b"\xff\xfe{}", "x.json")


def test_an_object_of_another_kind_is_refused() -> None:
    with pytest.raises(DataError, match="dataclass_name is 'NeuronSimulationResults'"):
        openai.load_as(openai.NeuronRecord, openai.dumps(result(0, 1)), "x.json")


def test_simulations_nested_without_end_are_refused() -> None:
    simulation = '{"tokens":[],"expected_activations":[],"activation_scale":"neuron_activations"'
    deep = (simulation + ',"uncalibrated_simulation":') * 300 + simulation + "}" * 301
    with pytest.raises(DataError, match="nested too deep"):
        openai.loads(deep)


def test_an_explanation_must_be_text() -> None:
    half = '{"explanation": "\\ud800", "scored_simulation": {"scored_sequence_simulations": []}}'
    with pytest.raises(DataError, match="field explanation: it holds half a surrogate pair"):
        openai.loads(half)


def test_a_token_of_a_million_characters_is_read() -> None:
    long = record(1.0, tokens=["x" * 1_000_000])
    assert openai.loads(openai.dumps(long)) == long
