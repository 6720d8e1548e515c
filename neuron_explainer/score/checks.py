"""Which metrics notice that an explanation was made worse, on a run's own neurons and records.

Each neuron is described by its token table, once as it is, once without half of what it names and
once with as much again that is wrong, and simulated by looking tokens up. A metric that does not
fall tells little about explanations of such neurons. See `score.degraded`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neuron_explainer import registry
from neuron_explainer.config import ScoreSettings
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import (
    BoolArray,
    Explanation,
    FloatArray,
    NeuronRecord,
    Record,
    TokenTable,
)
from neuron_explainer.runner import Progress, silent
from neuron_explainer.runs import Run
from neuron_explainer.score.base import Scores
from neuron_explainer.score.degraded import added_concepts, has_concepts, missing_concepts
from neuron_explainer.score.panel import score_all
from neuron_explainer.score.population import population_correlation
from neuron_explainer.score.strata import Strata
from neuron_explainer.store import Shard, shards_of

DEGRADED = ("missing", "added")
_KINDS: Mapping[str, frozenset[str]] = {
    "top_and_random": frozenset({"top", "random"}),
    "random_only": frozenset({"random"}),
}
_BLOCK = 128  # neurons that are scored together


@dataclass(frozen=True, slots=True)
class MetricCheck:
    """How often one metric falls, over the neurons for which it is defined before and after."""

    metric: str
    neurons: int
    missing: float | None  # share of them; None: there are none
    added: float | None
    both: float | None


@dataclass(frozen=True, slots=True)
class _Case:
    """One neuron: held-out records and what each table predicts of them."""

    owner: int  # position in the shard
    records: tuple[Record, ...]
    calibration: tuple[Record, ...]
    predicted: Mapping[str, Sequence[FloatArray]]  # of `records`, by table
    predicted_calibration: Mapping[str, Sequence[FloatArray]]


@dataclass
class _Tally:
    """Scores so far, by metric and table."""

    values: dict[str, dict[str, list[np.ndarray[Any, Any]]]] = field(default_factory=dict)

    def add(self, table: str, scores: Mapping[str, Scores]) -> None:
        for metric, found in scores.items():
            self.values.setdefault(metric, {}).setdefault(table, []).append(found.values)

    def checks(self) -> list[MetricCheck]:
        return [
            _check(metric, {name: np.concatenate(parts) for name, parts in tables.items()})
            for metric, tables in self.values.items()
        ]


async def check_metrics(
    run: Run, settings: ScoreSettings, progress: Progress = silent
) -> list[MetricCheck]:
    """Every metric on the run's neurons; those without a token table or two concepts are left out.

    Raises DataError when a record set is not there.
    """
    run.require()
    tally = _Tally()
    lookup = tuple(registry.make(kind, "token-lookup", {}) for kind in ("explainers", "simulators"))
    sites = {site: RecordSet(run.workspace.data, run.subject, site) for site in run.sites()}
    explained = {
        site: set(run.folder.read_all(f"{site}/explanations", ["neuron"])["neuron"].to_pylist())
        for site in sites
    }
    todo = [
        (site, shard)
        for site, records in sites.items()
        for shard in shards_of(records.width, _BLOCK)
    ]
    with progress("check metrics", len(todo), "shards") as advance:
        for site, shard in todo:
            cases = [
                case
                for neuron in sites[site].shard(shard)
                if neuron.neuron.index in explained[site]
                and (case := await _case(lookup, neuron, sites[site], shard, settings))
            ]
            if cases:
                _score(cases, Strata.read(sites[site], shard), tally)
            advance(1)
    return tally.checks()


async def _case(
    lookup: tuple[Any, Any],
    neuron: NeuronRecord,
    record_set: RecordSet,
    shard: Shard,
    settings: ScoreSettings,
) -> _Case | None:
    """What is to be scored of one neuron; None when it cannot be degraded.

    `lookup` is the explainer and the simulator by token tables.
    """
    explainer, simulator = lookup
    try:
        explanation: Explanation = await explainer.explain(neuron)
    except NeuronFailure:
        return None
    if explanation.table is None or not has_concepts(explanation.table):
        return None
    held_out = neuron.split(settings.split)
    known = {record.sequence for record in neuron.records if record.kind != "quantile"}
    records = (*held_out, *(r for r in neuron.of_kind("quantile") if r.sequence not in known))
    calibration = neuron.split("calibration")
    predicted: dict[str, list[FloatArray]] = {}
    for name, table in _tables(explanation.table, record_set, neuron, settings.seed).items():
        stimuli = [record.stimulus for record in (*records, *calibration)]
        made = await simulator.simulate(replace(explanation, table=table), stimuli)
        predicted[name] = [simulation.activations for simulation in made]
    return _Case(
        neuron.neuron.index - shard.start,
        records,
        calibration,
        {name: made[: len(records)] for name, made in predicted.items()},
        {name: made[len(records) :] for name, made in predicted.items()},
    )


def _tables(
    table: TokenTable, record_set: RecordSet, neuron: NeuronRecord, seed: int
) -> dict[str, TokenTable]:
    rng = np.random.default_rng([seed, neuron.neuron.index])
    vocabulary, _ = record_set.corpus.vocabulary
    counts = record_set.corpus.counts
    return {
        "whole": table,
        "missing": missing_concepts(table, rng),
        "added": added_concepts(table, vocabulary, counts, rng),
    }


def _score(cases: Sequence[_Case], strata: Strata, tally: _Tally) -> None:
    calibration = [case.calibration for case in cases]
    calibration_truth, calibration_mask = _truth(calibration)
    for name in ("whole", *DEGRADED):
        calibration_predicted = _padded([case.predicted_calibration[name] for case in cases])
        for choice, kinds in _KINDS.items():
            chosen = [[record.kind in kinds for record in case.records] for case in cases]
            picked = [_pick(case.records, keep) for case, keep in zip(cases, chosen, strict=True)]
            truth, mask = _truth(picked)
            predicted = _padded(
                [
                    _pick(case.predicted[name], keep)
                    for case, keep in zip(cases, chosen, strict=True)
                ]
            )
            scores = score_all(
                truth,
                predicted,
                mask,
                calibration_truth=calibration_truth,
                calibration_predicted=calibration_predicted,
                calibration_mask=calibration_mask,
            )
            tally.add(name, {f"{metric}_{choice}": found for metric, found in scores.items()})
        tally.add(name, {"correlation_population": _population(cases, name, strata)})


def _population(cases: Sequence[_Case], name: str, strata: Strata) -> Scores:
    rows = [
        (place, case.owner, record, predicted)
        for place, case in enumerate(cases)
        for record, predicted in zip(case.records, case.predicted[name], strict=True)
    ]
    owner = np.array([owner for _, owner, _, _ in rows], np.int64)
    found = strata.of(
        owner,
        np.array([record.sequence for _, _, record, _ in rows], np.int64),
        np.array([record.maximum for _, _, record, _ in rows], np.float64),
        np.array([-1 if r.band is None else r.band for _, _, r, _ in rows], np.int64),
    )
    kept = [row for row, stratum in zip(rows, found.tolist(), strict=True) if stratum >= 0]
    lengths = [len(record.tokens) for _, _, record, _ in kept]
    estimate = population_correlation(
        np.concatenate([record.activations for _, _, record, _ in kept]),
        np.concatenate([predicted for _, _, _, predicted in kept]),
        np.concatenate([record.scored for _, _, record, _ in kept]),
        np.repeat(np.arange(len(kept)), lengths),
        np.array([place for place, _, _, _ in kept], np.int64),
        found[found >= 0],
        strata.sizes[[case.owner for case in cases]],
    )
    reasons = strata.reasons
    return estimate.scores.unless([reasons[case.owner] for case in cases])


def _pick(items: Sequence[Any], keep: Sequence[bool]) -> list[Any]:
    return [item for item, kept in zip(items, keep, strict=True) if kept]


def _truth(records: Sequence[Sequence[Record]]) -> tuple[FloatArray, BoolArray]:
    truth = _padded([[record.activations for record in of_neuron] for of_neuron in records])
    scored = [[record.scored.astype(np.float64) for record in of_neuron] for of_neuron in records]
    return truth, _padded(scored) > 0


def _padded(rows: Sequence[Sequence[FloatArray]]) -> FloatArray:
    """Each neuron's sequences one after the other, (neurons, tokens)."""
    joined = [np.concatenate([np.array([], np.float64), *row]) for row in rows]
    matrix = np.zeros((len(joined), max(map(len, joined), default=0)))
    for row, values in zip(matrix, joined, strict=True):
        row[: len(values)] = values
    return matrix


def _check(metric: str, scores: Mapping[str, np.ndarray[Any, Any]]) -> MetricCheck:
    defined = np.all([np.isfinite(values) for values in scores.values()], axis=0)
    falls = [scores[name][defined] < scores["whole"][defined] for name in DEGRADED]
    if not defined.any():
        return MetricCheck(metric, 0, None, None, None)
    both = falls[0] & falls[1]
    shares = (float(np.mean(fall)) for fall in (*falls, both))
    return MetricCheck(metric, int(defined.sum()), *shares)
