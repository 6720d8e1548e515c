"""One neuron, with everything that the workspace holds about it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType

from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Effects, Explanation, NeuronId, NeuronRecord, Record
from neuron_explainer.runs import Run, runs_of
from neuron_explainer.simulate.base import NULLS
from neuron_explainer.terminal import neuron_view
from neuron_explainer.tokens import escape
from neuron_explainer.workspace import Workspace

_SCORES = (
    *("correlation_top_and_random", "correlation_random_only"),
    *("balanced_accuracy_top_and_random", "auroc_top_and_random"),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One run's explanation, with the scores of each simulator that scored it."""

    run: str
    explanation: Explanation
    scores: Mapping[str, Mapping[str, float | None]]
    nulls: Set[str]  # those simulators that know nothing of the neuron


@dataclass(frozen=True, slots=True)
class Found:
    """A neuron and what is said of it."""

    neuron: NeuronRecord
    explanations: Sequence[Judged]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which records are shown."""

    top: int = 5
    random: int = 0
    quantile: bool = False


def find(workspace: Workspace, neuron: NeuronId) -> Found:
    """Read one neuron. Raises DataError or SubjectError when it is not there."""
    record = RecordSet(workspace.data, neuron.subject, neuron.site).neuron(neuron.index)
    judged = []
    for run in runs_of(workspace, neuron.subject):
        explanation = run.explanation(neuron)
        if explanation is not None:
            scores = _scores(run, neuron)
            nulls = {name for name in scores if _is_null(run, name)}
            judged.append(Judged(run.name, explanation, scores, nulls))
    return Found(record, judged)


def _is_null(run: Run, simulator: str) -> bool:
    config = run.simulations(simulator).manifest()["config"]
    return simulator in NULLS or bool(config.get("shuffled"))


def _scores(run: Run, neuron: NeuronId) -> dict[str, dict[str, float | None]]:
    found = {}
    for simulator in run.simulators():
        folder = run.simulations(simulator)
        name = f"{neuron.site}/scores"
        if any(neuron.index in shard for shard, _ in folder.shards(name)):
            rows = folder.read_neuron(name, neuron.index).to_pylist()
            if rows:
                found[simulator] = {score: rows[0][score] for score in _SCORES if score in rows[0]}
    return found


def render(found: Found, choice: Choice, plain: bool) -> RenderableType:
    """What a terminal shows."""
    explanations = [(_title(judged), judged.explanation) for judged in found.explanations]
    return neuron_view(found.neuron, explanations, _groups(found.neuron, choice), plain)


def _title(judged: Judged) -> str:
    """The run and what its explanation scored, the nulls aside."""
    figures = [
        f"{simulator} {_scored(scores)}"
        for simulator, scores in judged.scores.items()
        if simulator not in judged.nulls
    ]
    return "  ".join([judged.run, *(f"({figure})" for figure in figures)])


def _scored(scores: Mapping[str, float | None]) -> str:
    first, second, accuracy, area = (_figure(scores.get(name)) for name in _SCORES)
    if "auroc_top_and_random" in scores:
        return f"has AUROC {area}, balanced accuracy {accuracy}; chance 0.50"
    return f"scores {first}, {second} on random"


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _groups(neuron: NeuronRecord, choice: Choice) -> list[tuple[str, Sequence[Record]]]:
    groups: list[tuple[str, Sequence[Record]]] = []
    if choice.top:
        groups.append(("top records", neuron.of_kind("top")[: choice.top]))
    if choice.random:
        groups.append(("random records", neuron.of_kind("random")[: choice.random]))
    if choice.quantile:
        by_band: dict[int, list[Record]] = {}
        for record in neuron.of_kind("quantile"):
            by_band.setdefault(record.band or 0, []).append(record)
        for band in sorted(by_band, reverse=True):
            groups.append((f"quantile records, {_BAND_NAMES[band]}", by_band[band]))
    return groups


_BAND_NAMES = ("lower half", "50 to 90 %", "90 to 99 %", "99 to 99.9 %", "top 0.1 %")


def as_json(found: Found) -> dict[str, Any]:
    """The same for programs. Tokens are text, with bytes that are no UTF-8 escaped as \\x.."""
    neuron = found.neuron
    return {
        "neuron": str(neuron.neuron),
        "statistics": asdict(neuron.statistics) if neuron.statistics else None,
        "promoted": _effects(neuron.promoted),
        "suppressed": _effects(neuron.suppressed),
        "excited_by": _effects(neuron.excited_by),
        "inhibited_by": _effects(neuron.inhibited_by),
        "nearest": None if neuron.nearest is None else list(map(asdict, neuron.nearest)),
        "explanations": [
            {
                "run": judged.run,
                "explainer": judged.explanation.explainer,
                "text": judged.explanation.text,
                "scores": judged.scores,
            }
            for judged in found.explanations
        ],
        "records": [
            {
                "kind": record.kind,
                "split": record.split,
                "band": record.band,
                "sequence": record.sequence,
                "tokens": [escape(token) for token in record.tokens],
                "activations": record.activations,
                "scored": record.scored,
                **({} if record.pair is None else {"pair": record.pair}),  # query, key
            }
            for record in neuron.records
        ],
    }


def _effects(effects: Effects | None) -> list[dict[str, Any]] | None:
    if effects is None:
        return None
    return [{"token": escape(token), "effect": effect} for token, effect in effects]
