"""Which metrics notice worse explanations, told on neurons that were planted."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_subject import SITE, FakeSubject, collect_from, table_lookup, write_documents
from numpy.typing import NDArray

from neuron_explainer.config import ExplainSettings, ModelSettings, ScoreSettings, SimulateSettings
from neuron_explainer.errors import ConfigError
from neuron_explainer.explain.stage import explain
from neuron_explainer.record_set import RecordSet
from neuron_explainer.runs import Run
from neuron_explainer.score.checks import MetricCheck, check_metrics
from neuron_explainer.score.population import PopulationCorrelation, population_correlation
from neuron_explainer.score.stage import POPULATION, score
from neuron_explainer.score.strata import Strata
from neuron_explainer.simulate.stage import simulate
from neuron_explainer.store import Shard
from neuron_explainer.workspace import init

NEURONS, VOCABULARY, CONCEPTS = 60, 300, 10
TEXT = 1500, 40  # documents, tokens
SHARES = 1.0 / np.arange(3, VOCABULARY + 1)  # tokens are as unequal as words are


@dataclass(frozen=True)
class Planted:
    """Neurons that fire on ten tokens each, as strongly as `levels` (vocabulary, neurons) says."""

    run: Run
    records: RecordSet
    levels: NDArray[np.float32]
    text: NDArray[np.int64]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    rng = np.random.default_rng(0)
    here = init(tmp_path_factory.mktemp("planted"))
    text = rng.choice(np.arange(2, VOCABULARY), TEXT, p=SHARES / SHARES.sum())
    levels = np.zeros((VOCABULARY, NEURONS), np.float32)
    for neuron in range(NEURONS):
        chosen = rng.choice(np.arange(12, VOCABULARY), CONCEPTS, replace=False)
        levels[chosen, neuron] = rng.uniform(1, 5, CONCEPTS)
    subject = FakeSubject({SITE: table_lookup(levels)}, VOCABULARY)
    corpus = write_documents(here.root / "corpus.jsonl", text.tolist())
    collected, records = collect_from(
        here.data, corpus, subject, excerpt_tokens=40, per_band=8, whole_table=True
    )
    assert not collected.notices
    made = asyncio.run(explain(here, "fake", [SITE], ExplainSettings()))
    return Planted(made.run, records, levels, text)


@pytest.fixture(scope="module")
def checks(planted: Planted) -> dict[str, MetricCheck]:
    found = asyncio.run(check_metrics(planted.run, ScoreSettings()))
    return {check.metric: check for check in found}


def test_the_correlation_over_the_corpus_passes_both_checks(checks: dict[str, MetricCheck]) -> None:
    check = checks["correlation_population"]
    assert check.neurons >= 0.95 * NEURONS  # some degraded ones predict no held-out token
    assert check.both is not None
    assert check.both >= 0.9


def test_every_metric_is_checked_and_its_shares_agree(checks: dict[str, MetricCheck]) -> None:
    assert len(checks) == 2 * 7 + 1
    for check in checks.values():
        assert check.missing is not None
        assert check.added is not None
        assert check.both is not None
        assert check.both <= min(check.missing, check.added)
        assert check.both >= check.missing + check.added - 1 - 1e-9


def _estimated(planted: Planted, levels: NDArray[np.float32]) -> PopulationCorrelation:
    """What the held-out records say of a description that predicts `levels` for each token."""
    strata = Strata.read(planted.records, Shard(0, NEURONS))
    rows = [
        (neuron.neuron.index, record)
        for neuron in planted.records.shard(Shard(0, NEURONS))
        for record in (*neuron.split("valid"), *neuron.of_kind("quantile"))
    ]
    place = {token: row for row, token in enumerate(planted.records.corpus.vocabulary[0])}
    owner = np.array([neuron for neuron, _ in rows], np.int64)
    stratum = strata.of(
        owner,
        np.array([record.sequence for _, record in rows], np.int64),
        np.array([record.maximum for _, record in rows], np.float64),
        np.array([-1 if r.band is None else r.band for _, r in rows], np.int64),
    )
    kept = [row for row, found in zip(rows, stratum.tolist(), strict=True) if found >= 0]
    predicted = [
        levels[[place[token] for token in record.tokens], neuron] for neuron, record in kept
    ]
    return population_correlation(
        np.concatenate([record.activations for _, record in kept]),
        np.concatenate(predicted),
        np.concatenate([record.scored for _, record in kept]),
        np.repeat(np.arange(len(kept)), [len(record.tokens) for _, record in kept]),
        owner[stratum >= 0],
        stratum[stratum >= 0],
        strata.sizes,
    )


def test_the_estimate_from_records_agrees_with_the_whole_corpus(planted: Planted) -> None:
    rng = np.random.default_rng(1)
    described = np.where(rng.random(planted.levels.shape) < 0.7, planted.levels, 0.0)
    described[rng.integers(12, VOCABULARY, (6, NEURONS)), np.arange(NEURONS)] += 2.0
    found = _estimated(planted, described)
    inside = []
    for neuron in range(NEURONS):
        truth = planted.levels[planted.text, neuron].ravel()
        whole = np.corrcoef(truth, described[planted.text, neuron].ravel())[0, 1]
        inside.append(found.low[neuron] <= whole <= found.high[neuron])
    assert np.mean(inside) >= 0.9  # of 60; coverage itself is tested on many more


def test_an_over_broad_label_ranks_below_the_true_one(planted: Planted) -> None:
    rng = np.random.default_rng(2)
    broad = planted.levels.copy()
    for neuron in range(NEURONS):
        silent = np.flatnonzero(planted.levels[12:, neuron] == 0) + 12
        broad[rng.choice(silent, 40, replace=False), neuron] = 3.0
    true, over = _estimated(planted, planted.levels), _estimated(planted, broad)
    np.testing.assert_allclose(true.scores.values, 1.0, rtol=1e-4)
    assert np.mean(true.scores.values > over.scores.values) >= 0.95


def test_quantile_records_are_simulated_on_request_and_scored_over_the_corpus(
    planted: Planted,
) -> None:
    settings = SimulateSettings(quantile=True)
    asyncio.run(simulate(planted.run, "token-lookup", settings))
    asyncio.run(simulate(planted.run, "token-lookup", SimulateSettings(), label="plain"))
    with_quantile, plain = (
        score(planted.run, label, ScoreSettings())[0].scores for label in ("token-lookup", "plain")
    )
    for name in plain:  # quantile records change nothing but the score that is for them
        if name != POPULATION:
            np.testing.assert_array_equal(with_quantile[name].values, plain[name].values)
    made = _rows(planted.run, "token-lookup")
    held = {(row["neuron"], row["sequence"]) for row in made if row["kind"] != "quantile"}
    quantile = [(row["neuron"], row["sequence"]) for row in made if row["kind"] == "quantile"]
    assert len(quantile) == len(set(quantile)) > 10 * NEURONS
    assert not held & set(quantile)
    assert all((row["split"] is None) == (row["kind"] == "quantile") for row in made)
    assert np.nanmedian(with_quantile[POPULATION].values) > 0.9  # the table is what fires it


def _rows(run: Run, simulator: str) -> list[dict[str, Any]]:
    folder = run.simulations(simulator)
    columns = ["neuron", "kind", "split", "sequence"]
    rows: list[dict[str, Any]] = folder.read_all(f"{SITE}/simulations", columns).to_pylist()
    return rows


def test_a_run_whose_explainer_saw_quantile_records_cannot_be_scored_on_them(
    planted: Planted, tmp_path: Path
) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"pattern": ".*", "reply": "certain words"}')
    model = ModelSettings(llm=f"scripted/{script}")
    settings = ExplainSettings("highlight", "saw", "0-1", {"quantile": 2}, model)
    run = asyncio.run(explain(planted.run.workspace, "fake", [SITE], settings)).run
    with pytest.raises(ConfigError, match="'saw' was explained from quantile records"):
        asyncio.run(simulate(run, "token-lookup", SimulateSettings(quantile=True)))


def test_the_strata_of_every_neuron_cover_the_corpus(planted: Planted) -> None:
    strata = Strata.read(planted.records, Shard(0, 5))
    assert strata.reasons == (None,) * 5
    np.testing.assert_allclose(strata.sizes.sum(axis=1), TEXT[0])
    np.testing.assert_array_equal(strata.sizes[:, -1], 20)  # the top records
