"""Published objects for the tests: made by hand, and generated."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from neuron_explainer.interchange import openai

Json = Any

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
HALVES = st.floats(allow_nan=False, allow_infinity=False, width=16)
MAYBE = st.none() | FLOATS
_AWKWARD = [" the", "the", "", "\n", "\\x00", "\x00", "\ufffd", "😀", "\ud800", "a\udfffb"]
TOKENS = st.sampled_from(_AWKWARD) | st.text(max_size=3)
SCALES: st.SearchStrategy[openai.ActivationScale] = st.sampled_from(
    ["neuron_activations", "simulated_normalized_activations"]
)


# whole files are large for Hypothesis, and each example writes some
whole_files = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tuples(items: st.SearchStrategy[Json], most: int = 3) -> st.SearchStrategy[tuple[Json, ...]]:
    """Tuples of a few items."""
    return st.lists(items, max_size=most).map(tuple)


def one_each(tokens: Sequence[str], items: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """A tuple with an item for each token."""
    return st.tuples(*(items for _ in tokens))


@st.composite
def activation_records(
    draw: st.DrawFn, numbers: st.SearchStrategy[float]
) -> openai.ActivationRecord:
    """Some tokens and an activation for each."""
    tokens = draw(tuples(TOKENS, 4))
    return openai.ActivationRecord(tokens, draw(one_each(tokens, numbers)))


@st.composite
def neuron_records(draw: st.DrawFn, layer: int, neuron: int) -> openai.NeuronRecord:
    """Any NeuronRecord, with activations that fit float32 or not."""
    records = tuples(activation_records(draw(st.sampled_from([FLOATS, HALVES]))), 3)
    return openai.NeuronRecord(
        openai.NeuronId(layer, neuron),
        draw(records),
        draw(st.none() | tuples(records, 3)),
        draw(st.none() | tuples(MAYBE, 5)),
        *draw(st.tuples(MAYBE, MAYBE, MAYBE, MAYBE)),
        draw(records),
    )


@st.composite
def simulations(
    draw: st.DrawFn, tokens: tuple[str, ...], depth: int = 2
) -> openai.SequenceSimulation:
    """Any simulation of `tokens`, calibrated up to `depth` times."""
    inner = None
    if depth and draw(st.booleans()):
        # the published ones have the same tokens; nothing says that they must
        inner = draw(simulations(draw(st.just(tokens) | tuples(TOKENS)), depth - 1))
    values = draw(st.just(()) | one_each(tokens, tuples(MAYBE)))
    probabilities = tuple(tuple(0.5 for _ in numbers) for numbers in values)
    return openai.SequenceSimulation(
        tokens, draw(one_each(tokens, MAYBE)), draw(SCALES), values, probabilities, inner
    )


@st.composite
def scored_sequences(draw: st.DrawFn) -> openai.ScoredSequenceSimulation:
    """Any simulation with any truth and any scores."""
    simulation = draw(tuples(TOKENS).flatmap(simulations))
    truth = draw(one_each(simulation.tokens, FLOATS))
    return openai.ScoredSequenceSimulation(simulation, truth, *draw(st.tuples(MAYBE, MAYBE, MAYBE)))


@st.composite
def results(draw: st.DrawFn, layer: int, neuron: int) -> openai.NeuronSimulationResults:
    """Any results of a neuron, with no, one or two explanations."""
    scored = st.builds(openai.ScoredSimulation, tuples(scored_sequences(), 3), MAYBE, MAYBE, MAYBE)
    explanations = tuples(st.builds(openai.ScoredExplanation, st.text(max_size=9), scored), 2)
    return openai.NeuronSimulationResults(openai.NeuronId(layer, neuron), draw(explanations))


def record(*activations: float, tokens: Sequence[str] | None = None) -> openai.ActivationRecord:
    """An activation record; its tokens are all different unless given."""
    names = tokens or [f" t{place}" for place in range(len(activations))]
    return openai.ActivationRecord(tuple(names), activations)


def neuron_record(layer: int, neuron: int, scale: float = 1.0) -> openai.NeuronRecord:
    """A neuron as published: 20 top records, 20 random ones, 5 bands, all moments."""
    return openai.NeuronRecord(
        openai.NeuronId(layer, neuron),
        tuple(_numbered("random", place, -scale) for place in range(20)),
        tuple((_numbered("band", place, scale / 4),) for place in range(5)),
        (0.5, 1.0, 1.5, 2.0),
        0.25,
        1.5,
        None,
        3.0,
        tuple(_numbered("top", 20 - place, scale) for place in range(20)),
    )


def _numbered(kind: str, place: int, scale: float) -> openai.ActivationRecord:
    return record(place * scale, 0.0, tokens=[f" {kind}", f" {place}"])


def result(
    layer: int, neuron: int, texts: Sequence[str] = ("words about rain",)
) -> openai.NeuronSimulationResults:
    """Results as published: ten sequences an explanation, without scores."""
    return openai.NeuronSimulationResults(
        openai.NeuronId(layer, neuron),
        tuple(
            openai.ScoredExplanation(
                text, openai.ScoredSimulation(tuple(map(scored_sequence, range(10))))
            )
            for text in texts
        ),
    )


def scored_sequence(place: int) -> openai.ScoredSequenceSimulation:
    """The simulation of a sequence of three tokens, calibrated, with distributions."""
    tokens = (" a", f" {place}", " b")
    raw = _simulation(tokens, (0.0, float(place), 1.0), "simulated_normalized_activations", None)
    simulation = _simulation(tokens, (0.1, place / 3, 0.5), "neuron_activations", raw)
    return openai.ScoredSequenceSimulation(simulation, (0.0, place * 0.7, -0.1 * place))


def _simulation(
    tokens: tuple[str, ...],
    expected: tuple[float, ...],
    scale: Literal["neuron_activations", "simulated_normalized_activations"],
    inner: openai.SequenceSimulation | None,
) -> openai.SequenceSimulation:
    values = tuple((0.0, number) for number in expected)
    halves = tuple((0.25, 0.75) for _ in expected)
    return openai.SequenceSimulation(tokens, expected, scale, values, halves, inner)


def write(folder: Path, *objects: openai.NeuronRecord | openai.NeuronSimulationResults) -> Path:
    """The objects as files in `folder`, which is returned."""
    for item in objects:
        suffix = ".json" if isinstance(item, openai.NeuronRecord) else ".jsonl"
        layer, neuron = item.neuron_id.layer_index, item.neuron_id.neuron_index
        path = folder / str(layer) / f"{neuron}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(openai.dumps(item))
    return folder


def contents(folder: Path) -> dict[str, str]:
    """All files of a folder by name, as JSON in one spelling: equal texts are equal JSON.

    Unlike the values, the texts differ where -0.0 stands for 0.0 or 1 for 1.0.
    """
    return {
        path.relative_to(folder).as_posix(): json.dumps(
            json.loads(path.read_bytes()), sort_keys=True
        )
        for path in sorted(folder.rglob("*.json*"))
    }
