"""Heads explained, simulated and scored: an oracle, a constant, and the table of token pairs."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import planted_head
import pytest
from planted_head import SITE

from neuron_explainer import registry
from neuron_explainer.config import ExplainSettings, ScoreSettings, SimulateSettings
from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.explain.pair_lookup import PairLookup
from neuron_explainer.explain.stage import explain
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, NeuronId, NeuronRecord, Record, Simulation
from neuron_explainer.records import Stimulus as HeldOut
from neuron_explainer.runs import Run
from neuron_explainer.score.classification import auroc
from neuron_explainer.score.stage import score
from neuron_explainer.score.summary import rows_of
from neuron_explainer.simulate.pair_distance import PairDistanceSimulator
from neuron_explainer.simulate.pair_lookup import PairLookupSimulator
from neuron_explainer.simulate.stage import simulate
from neuron_explainer.workspace import Workspace

HEAD = NeuronId("planted", SITE, 0)


@dataclass(frozen=True, slots=True)
class _Knowing:
    """Says what is true of the planted head, or nothing but a constant."""

    right: bool = True

    name = "knowing"
    predicts: ClassVar = "sequences"
    simulates: ClassVar = "heads"

    def assign(self, neurons: Sequence[int], seed: int) -> Mapping[int, int]:
        del seed
        return {neuron: neuron for neuron in neurons}

    async def simulate(
        self, explanation: Explanation, stimuli: Sequence[HeldOut]
    ) -> list[Simulation]:
        del explanation
        return [
            Simulation(np.full(len(stimulus.tokens), self._says(stimulus), np.float32))
            for stimulus in stimuli
        ]

    def _says(self, stimulus: HeldOut) -> float:
        assert stimulus.pair is not None
        return 10.0 * (not self.right or stimulus.pair[1] == stimulus.pair[0] - 1)


@pytest.fixture(scope="module")
def explained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The planted model's heads, collected and explained."""
    here = planted_head.collected(tiny, tmp_path_factory.mktemp("heads"))
    asyncio.run(explain(here, "planted", [SITE], ExplainSettings("pair-lookup", "run")))
    return here


def _auroc(here: Workspace, simulator: str, **options: object) -> list[float]:
    run = Run(here, "run")
    asyncio.run(simulate(run, simulator, SimulateSettings(), options=options, label="tried"))
    (found,) = score(run, "tried", ScoreSettings())
    return [float(value) for value in found.scores["auroc_top_and_random"].values]


@pytest.mark.parametrize(("right", "expected"), [(True, 1.0), (False, 0.5)])
def test_an_oracle_finds_the_planted_head_and_a_constant_is_at_chance(
    explained: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    right: bool,
    expected: float,
) -> None:
    here = Workspace(shutil.copytree(explained.root, tmp_path / "own"))
    built_in = registry.resolve
    monkeypatch.setattr(
        registry,
        "resolve",
        lambda table, name: _Knowing if name == "knowing" else built_in(table, name),
    )
    assert _auroc(here, "knowing", right=right)[0] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_lookup_goes_through_all_stages(
    explained: Workspace, tmp_path: Path, shuffled: bool
) -> None:
    here = Workspace(shutil.copytree(explained.root, tmp_path / "own"))
    values = _auroc(here, "pair-lookup", shuffled=shuffled)
    assert len(values) == 2
    assert all(0 <= value <= 1 for value in values)


def test_distance_is_scored_as_a_null(explained: Workspace, tmp_path: Path) -> None:
    here = Workspace(shutil.copytree(explained.root, tmp_path / "own"))
    run = Run(here, "run")
    asyncio.run(simulate(run, "pair-distance", SimulateSettings()))
    (found,) = score(run, "pair-distance", ScoreSettings())
    held_out = RecordSet(here.data, "planted", SITE).neuron(0).split("valid")
    strong, near = [], []
    for record in held_out:
        assert record.pair is not None
        strong.append(record.pair[0] - 1 == record.pair[1])
        near.append(record.pair[1] - record.pair[0])
    expected = auroc(np.array([strong]), np.array([near], float), np.ones((1, len(near)), bool))
    assert found.scores["auroc_top_and_random"].values[0] == expected.values[0]
    (row,) = rows_of(run, ScoreSettings())
    assert row.null


def test_distance_says_the_nearer_the_stronger_and_half_at_eight_tokens() -> None:
    pairs = [(9, 9), (9, 8), (9, 1), (9, 0)]
    asked = [_record("a b c d e f g h i j", pair, 0.0).stimulus for pair in pairs]
    told = Explanation(HEAD, "test", "whatever")
    said = [
        one.activations[0] for one in asyncio.run(PairDistanceSimulator().simulate(told, asked))
    ]
    assert said == sorted(said, reverse=True)
    assert (said[0], said[2]) == (10.0, 5.0)
    with pytest.raises(NeuronFailure, match="not one of an attention head"):
        asyncio.run(PairDistanceSimulator().simulate(told, [replace(asked[0], pair=None)]))
    with pytest.raises(ConfigError, match="half is 0"):
        PairDistanceSimulator(half=0)


def test_a_simulator_of_neurons_does_not_simulate_heads(explained: Workspace) -> None:
    work = simulate(Run(explained, "run"), "constant", SimulateSettings())
    with pytest.raises(ConfigError, match="constant simulates neurons; the units of"):
        asyncio.run(work)


def _record(text: str, pair: tuple[int, int], activation: float) -> Record:
    tokens = tuple(word.encode() for word in text.split())
    activations = np.zeros(len(tokens), np.float32)
    activations[pair[0]] = activation
    scored = np.ones(len(tokens), np.bool_)
    return Record(tokens, activations, scored, "top", "train", 0, None, pair)


def _explain(*records: Record) -> Explanation:
    return asyncio.run(PairLookup().explain(NeuronRecord(HEAD, records, None)))


def test_the_table_has_pairs_of_tokens_and_queries_with_any_other_key() -> None:
    made = _explain(
        _record("a cat sat", (1, 0), 4.0),
        _record("a cat", (1, 0), 2.0),
        _record("x y", (1, 1), 1.0),
    )
    assert made.text == "Attends from “cat” to “a”, from “y” to “y”."
    table = made.table
    assert table is not None
    assert table.previous == (b"a", b"y", None, None)
    assert table.tokens == (b"cat", b"y", b"cat", b"y")
    assert table.activations == (7.5, 2.5, 3.75, 1.25)
    assert sum(table.shares) == pytest.approx(1)
    asked = [_record(text, pair, 0.0).stimulus for text, pair in (
        ("a cat", (1, 0)), ("the cat", (1, 0)), ("a dog", (1, 0)), ("cat a", (1, 0)),
    )]  # fmt: skip
    said = asyncio.run(PairLookupSimulator().simulate(made, asked))
    assert [one.activations.tolist() for one in said] == [
        [7.5] * 2,
        [3.75] * 2,
        [0.0] * 2,
        [0.0] * 2,
    ]


def test_what_cannot_be_looked_up_is_a_failure() -> None:
    with pytest.raises(NeuronFailure, match="no train pair"):
        _explain(_record("a cat", (1, 0), 0.0))
    with pytest.raises(NeuronFailure, match="not those of an attention head"):
        _explain(replace(_record("a cat", (1, 0), 1.0), pair=None))
    made = _explain(_record("a cat", (1, 0), 1.0))
    plain = replace(_record("a cat", (1, 0), 1.0), pair=None).stimulus
    with pytest.raises(NeuronFailure, match="not one of an attention head"):
        asyncio.run(PairLookupSimulator().simulate(made, [plain]))
    with pytest.raises(NeuronFailure, match="no table"):
        asyncio.run(PairLookupSimulator().simulate(replace(made, table=None), [plain]))
