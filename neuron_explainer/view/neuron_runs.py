"""What one run says of one neuron: its explanation, and each simulator's scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuron_explainer.records import Explanation, NeuronRecord, TokenTable
from neuron_explainer.runs import explanation_of
from neuron_explainer.store import Folder
from neuron_explainer.view.contract import Resource, number, reading, shown, token_text
from neuron_explainer.view.entries import RunEntry, SimulatorEntry, SiteEntry
from neuron_explainer.view.neuron_scores import intervals_of
from neuron_explainer.view.rows import cut
from neuron_explainer.view.simulated import Simulated, simulated_of

MOST_TABLE_ROWS = 100


@dataclass(frozen=True, slots=True)
class Told:
    """One run's part of a neuron's page."""

    run: RunEntry
    site: SiteEntry
    explanation: Resource
    simulated: Mapping[str, Simulated]  # by simulator

    def texts_of(self, neurons: Sequence[int]) -> dict[int, str]:
        """Its explanations of other neurons."""
        name = f"{self.site.name}/explanations"
        with reading(self.run.folder.rebuild):
            found = self.run.folder.read_neurons(name, neurons, ["neuron", "text"])
        if found is None:
            return {}
        pairs = zip(found["neuron"].to_pylist(), found["text"].to_pylist(), strict=True)
        return {neuron: cut(text) for neuron, text in pairs}


def told_of(run: RunEntry, site: SiteEntry, record: NeuronRecord) -> Told:
    """Everything that `run` and its simulators say of one neuron. Raises Unavailable."""
    with reading(run.folder.rebuild):
        row = _row(run.folder, f"{site.name}/explanations", record.neuron.index)
        failure = _row(run.folder, f"{site.name}/failures", record.neuron.index)
    explanation = None if row is None else explanation_of(row, record.neuron)
    simulated, scores = {}, []
    for simulator in run.simulators:
        with reading(simulator.folder.rebuild):
            found = simulated_of(simulator, site, record)
            scores.append(_scores(simulator, site, record, found))
        if found is not None:
            simulated[simulator.name] = found
    about = {
        "run": run.key,
        "explainer": explanation.explainer if explanation else run.explainer,
        "model": run.model,
        "text": explanation and explanation.text,
        "failure": failure and {name: failure[name] for name in ("stage", "cause", "message")},
        **_table(explanation),
        "scores": [each for each in scores if each is not None],
    }
    return Told(run, site, about, simulated)


def _row(folder: Folder, name: str, neuron: int) -> dict[str, Any] | None:
    """The first row of one neuron in a table, if it has any there."""
    found = folder.read_neurons(name, [neuron])
    if found is None or not len(found):
        return None
    row: dict[str, Any] = found.slice(0, 1).to_pylist()[0]
    return row


def _table(explanation: Explanation | None) -> Resource:
    """The table of tokens that is the explanation, its highest rows."""
    found: TokenTable | None = explanation.table if explanation else None
    if found is None:
        return {"table": None, "table_rows": None, "otherwise": None}
    highest = np.argsort(-np.asarray(found.activations), kind="stable")[:MOST_TABLE_ROWS]
    rows = [
        {
            "previous": _token(found.previous[place]),
            "token": token_text(found.tokens[place]),
            "activation": number(found.activations[place]),
            "share": number(found.shares[place]),
        }
        for place in highest.tolist()
    ]
    return {
        "table": rows,
        "table_rows": len(found.tokens),
        "otherwise": number(found.otherwise),
    }


def _token(token: bytes | None) -> str | None:
    return None if token is None else token_text(token)


def _scores(
    simulator: SimulatorEntry, site: SiteEntry, record: NeuronRecord, found: Simulated | None
) -> Resource | None:
    """A simulator's figures; None where it has nothing of this neuron."""
    row = _row(simulator.folder, f"{site.name}/scores", record.neuron.index)
    failure = _row(simulator.folder, f"{site.name}/failures", record.neuron.index)
    if row is None and failure is None and found is None:
        return None
    intervals = intervals_of(simulator, record, found) if row and found else {}
    values = {
        metric: {
            "value": number(row[metric]),
            "interval": None if row[metric] is None else intervals.get(metric),
            "undefined": row.get(f"{metric}_undefined"),
        }
        for metric in simulator.metrics
        if row is not None and metric in row
    }
    return {
        "simulator": shown(simulator.name),
        "null": simulator.null,
        "predicts": simulator.predicts,
        "failure": failure and {name: failure[name] for name in ("cause", "message")},
        "values": values if row is not None else {},
    }
