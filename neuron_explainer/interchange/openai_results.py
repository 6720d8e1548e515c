"""NeuronSimulationResults as rows of a run's tables, a shard of neurons at a time.

What our tables have no column for goes to tables of its own, so that nothing is lost:
`alternatives` beside the explanations, `published` and `published_simulations` beside the
simulations. See docs/formats.md.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from neuron_explainer import schemas
from neuron_explainer.interchange.columns import ListColumn, NestedColumn
from neuron_explainer.interchange.import_job import Fault
from neuron_explainer.interchange.openai import (
    NeuronSimulationResults,
    ScoredSequenceSimulation,
    ScoredSimulation,
    SequenceSimulation,
)
from neuron_explainer.interchange.openai_records import MOST_RECORDS, ActivationRows, at_most
from neuron_explainer.interchange.sequences import SequenceWriter
from neuron_explainer.records import Kind

IMPORTED = "imported"  # the explainer and the simulator of what was imported
TOP_SEQUENCES = 5  # a published simulation has the top records first, then the random ones

ALTERNATIVES = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("explanation", pa.int16(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)

SCORES = ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score")

# one row an explanation; explanation is null for a neuron without any
PUBLISHED = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("explanation", pa.int16()),
        *(pa.field(name, pa.float64()) for name in SCORES),
    ]
)

# one row a simulation; depth 1 is the uncalibrated simulation of the one before it, and so on
PUBLISHED_SIMULATIONS = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("explanation", pa.int16(), nullable=False),
        pa.field("position", pa.int16(), nullable=False),
        pa.field("depth", pa.int8(), nullable=False),
        pa.field("sequence", pa.int32(), nullable=False),
        pa.field("activation_scale", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in SCORES),
        pa.field("true_activations", pa.list_(pa.float64())),
        pa.field("expected_activations", pa.list_(pa.float64()), nullable=False),
        pa.field("distribution_values", pa.list_(pa.list_(pa.float64())), nullable=False),
        pa.field("distribution_probabilities", pa.list_(pa.list_(pa.float64())), nullable=False),
    ]
)


def check_results(results: NeuronSimulationResults, source: str) -> None:
    """Raises DataError when a list is longer than our tables can number."""
    at_most(MOST_RECORDS, source, "scored_explanations", results.scored_explanations)
    for place, explanation in enumerate(results.scored_explanations):
        name = f"scored_explanations[{place}].scored_simulation.scored_sequence_simulations"
        at_most(
            MOST_RECORDS, source, name, explanation.scored_simulation.scored_sequence_simulations
        )


class ResultRows:
    """The neurons of a shard, from their NeuronSimulationResults."""

    def __init__(self, sequences: SequenceWriter) -> None:
        self._sequences = sequences
        self._records = ActivationRows(sequences)
        self._simulations = ActivationRows(sequences)
        self._published_simulations = _PublishedSimulations(sequences)
        self._explanations: list[dict[str, object]] = []
        self._alternatives: list[dict[str, object]] = []
        self._published: list[dict[str, object]] = []

    @property
    def size(self) -> int:
        """How many numbers are held."""
        return self._published_simulations.size

    def add(self, neuron: int, results: NeuronSimulationResults) -> tuple[Fault, ...]:
        """Add a neuron, larger than those before. Returns why it has no explanation, if so."""
        if not results.scored_explanations:
            self._published.append({"neuron": neuron})
            layer = results.neuron_id.layer_index
            return (("no-explanation", f"{layer}/{neuron}: no-explanation"),)
        first, *others = results.scored_explanations
        self._explanations.append(
            {"neuron": neuron, "explainer": IMPORTED, "text": first.explanation}
        )
        self._alternatives += (
            {"neuron": neuron, "explanation": place, "text": other.explanation}
            for place, other in enumerate(others, 1)
        )
        self._add_simulations(neuron, first.scored_simulation.scored_sequence_simulations)
        for place, explanation in enumerate(results.scored_explanations):
            self._add_published(neuron, place, explanation.scored_simulation)
        return ()

    def _add_simulations(self, neuron: int, scored: Sequence[ScoredSequenceSimulation]) -> None:
        for position, sequence in enumerate(scored):
            kind: Kind = "top" if position < TOP_SEQUENCES else "random"
            rank = position if kind == "top" else position - TOP_SEQUENCES
            place = (neuron, kind, rank, None)
            tokens, simulation = sequence.simulation.tokens, sequence.simulation
            self._records.add(place, "valid", tokens, sequence.true_activations)
            self._simulations.add(place, "valid", tokens, simulation.expected_activations)

    def _add_published(self, neuron: int, explanation: int, scored: ScoredSimulation) -> None:
        scores = {name: getattr(scored, name) for name in SCORES}
        self._published.append({"neuron": neuron, "explanation": explanation, **scores})
        for position, sequence in enumerate(scored.scored_sequence_simulations):
            self._published_simulations.add((neuron, explanation, position), sequence)

    def tables(self) -> dict[str, dict[str, pa.Table]]:
        """The tables of the record set, of the run and of its simulations, by name."""
        explanations = pa.Table.from_pylist(self._explanations, schema=schemas.EXPLANATIONS)
        return {
            "data": {"records": self._records.records()},
            "explanations": {
                "explanations": explanations,
                "alternatives": pa.Table.from_pylist(self._alternatives, schema=ALTERNATIVES),
            },
            "scoring": {
                "simulations": self._simulations.simulations(),
                "published": pa.Table.from_pylist(self._published, schema=PUBLISHED),
                "published_simulations": self._published_simulations.table(),
            },
        }


class _PublishedSimulations:
    def __init__(self, sequences: SequenceWriter) -> None:
        self._sequences = sequences
        self._rows: list[dict[str, object]] = []
        self._truth, self._expected = ListColumn(), ListColumn()
        self._values, self._probabilities = NestedColumn(), NestedColumn()

    @property
    def size(self) -> int:
        return self._truth.size + self._expected.size + 2 * self._values.size

    def add(self, place: tuple[int, int, int], scored: ScoredSequenceSimulation) -> None:
        """Add one row for the simulation and one for each that it is calibrated from."""
        for depth, simulation in enumerate(_chain(scored.simulation)):
            row: dict[str, object] = dict(
                zip(("neuron", "explanation", "position"), place, strict=True)
            )
            row["depth"] = depth
            row["sequence"] = self._sequences.number(simulation.tokens)
            row["activation_scale"] = simulation.activation_scale
            if not depth:
                row |= {name: getattr(scored, name) for name in SCORES}
            self._rows.append(row)
            self._truth.append(None if depth else scored.true_activations)
            self._expected.append(simulation.expected_activations)
            self._values.append(simulation.distribution_values)
            self._probabilities.append(simulation.distribution_probabilities)

    def table(self) -> pa.Table:
        lists = {
            "true_activations": self._truth.to_arrow(),
            "expected_activations": self._expected.to_arrow(),
            "distribution_values": self._values.to_arrow(),
            "distribution_probabilities": self._probabilities.to_arrow(),
        }
        columns = [
            lists[field.name]
            if field.name in lists
            else pa.array([row.get(field.name) for row in self._rows], field.type)
            for field in PUBLISHED_SIMULATIONS
        ]
        return pa.table(columns, schema=PUBLISHED_SIMULATIONS)


def _chain(simulation: SequenceSimulation | None) -> Iterator[SequenceSimulation]:
    while simulation is not None:
        yield simulation
        simulation = simulation.uncalibrated_simulation
