"""What a site's scores come to, run by run, and which neurons failed why."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer.score.statistics import mean_interval
from neuron_explainer.store import Folder
from neuron_explainer.view.contract import Resource, number, reading, shown
from neuron_explainer.view.entries import RunEntry, SimulatorEntry, SiteEntry

_RANDOM_ONLY = "correlation_random_only"
_EDGES = {"tokens": np.linspace(-1, 1, 41), "sequences": np.linspace(0, 1, 41)}
_SEED = 0  # that of `score`, so that its intervals are these


def summary_resource(site: SiteEntry) -> Resource:
    """summary.json."""
    scores, failures = [], []
    for run in site.runs:
        with reading(run.folder.rebuild):
            failures += _failures(run, site, run.folder, "")
        for simulator in run.simulators:
            with reading(simulator.folder.rebuild):
                failures += _failures(run, site, simulator.folder, f" {shown(simulator.name)}")
                if simulator.leading and site.name in simulator.scored_sites:
                    scores.append(_line(run, simulator, simulator.leading, site))
    return {"scores": scores, "failures": failures}


def _line(run: RunEntry, simulator: SimulatorEntry, metric: str, site: SiteEntry) -> dict[str, Any]:
    of_tokens = metric.startswith("correlation")
    columns = [metric, f"{metric}_undefined", *([_RANDOM_ONLY] if of_tokens else [])]
    table = simulator.folder.read_all(f"{site.name}/scores", columns)
    values = _values(table, metric)
    reasons = Counter(filter(None, table[f"{metric}_undefined"].to_pylist()))
    random = _values(table, _RANDOM_ONLY) if of_tokens else None
    edges = _EDGES[simulator.predicts]
    return {
        "run": run.key,
        "simulator": shown(simulator.name),
        "null": simulator.null,
        "metric": metric,
        "n": len(values),
        **_mean(values),
        "undefined": number(float(np.isnan(values).mean())) if len(values) else None,
        "reasons": dict(reasons.most_common()),
        "random_only": None if random is None else _mean(random),
        "histogram": {
            "edges": np.round(edges, 6),
            "counts": np.histogram(values[~np.isnan(values)], edges)[0],
        },
    }


def _values(table: pa.Table, metric: str) -> NDArray[np.float64]:
    found: NDArray[np.float64] = table[metric].cast(pa.float64()).fill_null(np.nan).to_numpy()
    return found


def _mean(values: NDArray[np.float64]) -> dict[str, Any]:
    defined = values[~np.isnan(values)]
    found = mean_interval(defined, _SEED) if len(defined) else None
    return {
        "mean": number(float(defined.mean())) if len(defined) else None,
        "interval": found and [number(found.low), number(found.high)],
    }


def _failures(run: RunEntry, site: SiteEntry, folder: Folder, of: str) -> list[dict[str, Any]]:
    """How many neurons failed at each stage by each cause; `of` ends the stage's name."""
    counted: Counter[tuple[str, str]] = Counter()
    for _, file in folder.shards(f"{site.name}/failures"):
        table = folder.read(file, ["stage", "cause"])
        pairs = zip(table["stage"].to_pylist(), table["cause"].to_pylist(), strict=True)
        counted.update((f"{stage}{of}", cause) for stage, cause in pairs)
    return [
        {"run": run.key, "stage": stage, "cause": cause, "neurons": neurons}
        for (stage, cause), neurons in counted.most_common()
    ]
