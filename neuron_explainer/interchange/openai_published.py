"""Imported runs, read back as they were published."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_explainer.interchange import openai
from neuron_explainer.interchange.openai_results import SCORES
from neuron_explainer.interchange.sequences import token_text
from neuron_explainer.record_set import Corpus
from neuron_explainer.runs import Run
from neuron_explainer.store import Folder, Shard

_Row = Mapping[str, Any]


def between(
    folder: Folder, name: str, shard: Shard, columns: list[str] | None = None
) -> pa.Table | None:
    """The rows of table `name` that are about neurons in `shard`; None when there is no such table.

    Tables need not be cut where `shard` is.
    """
    parts = [
        folder.read(file, columns)
        for other, file in folder.shards(name)
        if other.start < shard.stop and shard.start < other.stop
    ]
    if not parts:
        return None
    table = pa.concat_tables(parts)
    neuron = table["neuron"]
    inside = pc.and_(pc.greater_equal(neuron, shard.start), pc.less(neuron, shard.stop))
    return table.filter(inside)


def published_results(
    run: Run, scoring: Folder, site: str, corpus: Corpus
) -> Iterator[openai.NeuronSimulationResults]:
    """The results of each neuron of a site, with all its explanations, in order of neurons."""
    layer = int(site.split(".")[1])
    for shard, file in scoring.shards(f"{site}/published"):
        texts = _texts(run.folder, site, shard)
        simulations = _BySequence(between(scoring, f"{site}/published_simulations", shard), corpus)
        rows = scoring.read(file).to_pylist()
        for neuron, explanations in groupby(rows, lambda row: row["neuron"]):
            yield openai.NeuronSimulationResults(
                openai.NeuronId(layer, neuron),
                tuple(
                    openai.ScoredExplanation(
                        texts[neuron, row["explanation"]],
                        openai.ScoredSimulation(
                            simulations.of(neuron, row["explanation"]), **_scores(row)
                        ),
                    )
                    for row in explanations
                    if row["explanation"] is not None
                ),
            )


def _texts(folder: Folder, site: str, shard: Shard) -> dict[tuple[int, int], str]:
    """Explanations by neuron and place."""
    found = {}
    for name in ("explanations", "alternatives"):
        table = between(folder, f"{site}/{name}", shard)
        for row in table.to_pylist() if table is not None else []:
            found[row["neuron"], row.get("explanation", 0)] = row["text"]
    return found


def _scores(row: _Row) -> dict[str, float | None]:
    return {name: row[name] for name in SCORES}


class _BySequence:
    """The simulations of a shard, one neuron in memory as objects at a time."""

    def __init__(self, table: pa.Table, corpus: Corpus) -> None:
        self._table = table
        self._neurons = table["neuron"].to_numpy()
        self._corpus = corpus

    def of(self, neuron: int, explanation: int) -> tuple[openai.ScoredSequenceSimulation, ...]:
        start, stop = np.searchsorted(self._neurons, [neuron, neuron + 1])
        rows = self._table.slice(start, stop - start)
        rows = rows.filter(pc.equal(rows["explanation"], explanation)).to_pylist()
        return tuple(
            self._scored(list(chain)) for _, chain in groupby(rows, lambda row: row["position"])
        )

    def _scored(self, chain: list[_Row]) -> openai.ScoredSequenceSimulation:
        simulation = None
        for row in reversed(chain):  # the deepest first: the others hold it
            simulation = self._simulation(row, simulation)
        assert simulation is not None
        truth = tuple(chain[0]["true_activations"])
        return openai.ScoredSequenceSimulation(simulation, truth, **_scores(chain[0]))

    def _simulation(
        self, row: _Row, inner: openai.SequenceSimulation | None
    ) -> openai.SequenceSimulation:
        tokens = self._corpus.stimulus(row["sequence"]).tokens
        return openai.SequenceSimulation(
            tuple(map(token_text, tokens)),
            tuple(row["expected_activations"]),
            row["activation_scale"],
            tuple(map(tuple, row["distribution_values"])),
            tuple(map(tuple, row["distribution_probabilities"])),
            inner,
        )
