"""Sites of the viewer's contract (docs/view.md) with rows as a test wants them, as files."""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import neuron_explainer

PAGE = Path(neuron_explainer.__file__).parent / "view" / "page"
LEADING = "correlation_top_and_random"
RANDOM = "correlation_random_only"
BUCKETS = 8
Json = dict[str, Any]
Values = Sequence[float | None]


@dataclass(frozen=True)
class MadeSite:
    """A site whose neurons are its rows, scored by the simulator `token-lookup` of each run.

    `statistics` are values by column and `scores` by run and metric, one a row. `row` makes what a
    row of `rows/` holds beside its neuron.
    """

    key: str
    statistics: Mapping[str, Values]
    scores: Mapping[str, Mapping[str, Values]]
    row: Callable[[int], Json]
    subject: str = "made"
    name: str = "blocks.0.mlp.hook_post"
    layer: int = 0
    unit: str = "neuron"
    complete: bool = True
    block: int = 16
    index: bool = True
    neurons: Mapping[int, Json] = field(default_factory=dict)
    unscored: Sequence[str] = ()

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.statistics.values())))

    @property
    def runs(self) -> list[str]:
        """Keys of the runs, those without scores last."""
        return [*self.scores, *self.unscored]


def write_site(folder: Path, sites: Sequence[MadeSite], **changes: Any) -> Path:
    """The pages and their resources in `folder`; `changes` are made to workspace.json."""
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    runs = list(dict.fromkeys(run for site in sites for run in site.runs))
    workspace: Json = {
        "format": 1, "mode": "static", "package_version": "0", "problems": [],
        "live": {"try": False, "judge": False},
        "subjects": [{"key": key, "name": key, "sites": [s.key for s in sites if s.subject == key]}
                     for key in dict.fromkeys(site.subject for site in sites)],
        "sites": {site.key: _entry(site) for site in sites},
        "runs": {run: _run(run, sites) for run in runs},
    }  # fmt: skip
    _write(folder / "api" / "workspace.json", workspace | changes)
    for site in sites:
        _write_resources(folder / "api" / site.key, site)
    return folder


def _entry(site: MadeSite) -> Json:
    return {
        "key": site.key, "subject": site.subject, "name": site.name, "layer": site.layer,
        "unit": site.unit, "width": site.rows + (0 if site.complete else 10),
        "neurons": site.rows, "excerpts": 40, "complete": site.complete, "runs": site.runs,
    }  # fmt: skip


def _run(run: str, sites: Sequence[MadeSite]) -> Json:
    having = [site for site in sites if run in site.runs]
    scored = any(run in site.scores for site in having)
    simulator = {"name": "token-lookup", "null": False, "predicts": "tokens"}
    metrics = list(having[0].scores.get(run, ()))
    return {
        "key": run, "name": run, "subject": having[0].subject, "explainer": "token-lookup",
        "model": None, "sites": [site.key for site in having], "complete": scored,
        "simulators": [simulator | {"metrics": metrics}] if scored else [],
        "main": {"simulator": "token-lookup", "metric": LEADING} if scored else None,
    }  # fmt: skip


def made_neuron(site: MadeSite, index: int, tokens: Sequence[str], texts: int = 2) -> Json:
    """A neuron whose held-out texts of `tokens` every run of the site has simulated."""
    true = [float(place % 3) for place in range(len(tokens))]
    row = site.row(index)
    predicted = [
        {"run": run, "simulator": "token-lookup", "activations": true, "correlation": 0.5}
        for run in site.scores
    ]
    record = {"kind": "top", "band": None, "share": None, "split": "valid", "tokens": list(tokens),
              "unscored": [0], "activations": true, "maximum": 2.0, "pair": None,
              "simulations": predicted}  # fmt: skip
    made: Json = {
        "id": f"{site.subject}/{site.name}/{index}", "site": site.key, "subject": site.subject,
        "name": site.name, "neuron": index, "unit": site.unit, "statistics": None,
        "histogram": None, "promoted": None, "suppressed": None, "excites": None,
        "inhibits": None, "token_table": None, "nearest": None, "neuronpedia": None,
        "previous": None, "next": None,
        "explanations": [_explanation(run, row, metrics) for run, metrics in _at(site, index)],
        "records": [record | {"sequence": number} for number in range(texts)],
    }  # fmt: skip
    return made


def _at(site: MadeSite, index: int) -> list[tuple[str, dict[str, float | None]]]:
    return [
        (run, {metric: values[index] for metric, values in metrics.items()})
        for run, metrics in site.scores.items()
    ]


def _explanation(run: str, row: Json, metrics: Mapping[str, float | None]) -> Json:
    values = {
        metric: {"value": value, "interval": None, "undefined": value is None and "constant"}
        for metric, value in metrics.items()
    }
    score = {"simulator": "token-lookup", "null": False, "predicts": "tokens", "failure": None}
    cause = row["failures"].get(run)
    return {
        "run": run, "explainer": "token-lookup", "model": None, "table": None, "table_rows": 0,
        "otherwise": None, "text": row["explanations"].get(run),
        "failure": cause and {"stage": "explain", "cause": cause, "message": cause},
        "scores": [score | {"values": values}],
    }  # fmt: skip


def column_key(run: str, metric: str) -> str:
    """The key of a score's column."""
    return f"{run}--token-lookup--{metric}"


def _write_resources(folder: Path, site: MadeSite) -> None:
    none: Json = {"run": None, "simulator": None, "metric": None}
    columns: list[Json] = [
        {"key": key, "label": key, "kind": "statistic"} | none for key in site.statistics
    ]
    for key, values in site.statistics.items():
        _write(folder / "columns" / f"{key}.json", {"values": values})
    for run, metrics in site.scores.items():
        for metric, values in metrics.items():
            key = column_key(run, metric)
            scored = {"run": run, "simulator": "token-lookup", "metric": metric}
            columns.append({"key": key, "label": metric, "kind": "score"} | scored)
            _write(folder / "columns" / f"{key}.json", {"values": values})
    told = {"rows": site.rows, "neurons": None, "block": site.block, "blocks_per_folder": 1000}
    search = {"buckets": BUCKETS}
    _write(folder / "columns.json", told | {"columns": columns, "search": search})
    lines = [_summary(run, metrics[LEADING]) for run, metrics in site.scores.items()]
    _write(folder / "summary.json", {"scores": lines, "failures": []})
    rows = [{"neuron": index} | site.row(index) for index in range(site.rows)]
    for block in range(0, site.rows, site.block):
        path = folder / "rows" / "0" / f"{block // site.block}.json"
        _write(path, {"rows": rows[block : block + site.block]})
    _write_index(folder / "search", rows if site.index else [])
    for index, neuron in site.neurons.items():
        _write(folder / "neurons" / str(index // 1000) / f"{index}.json", neuron)


def _summary(run: str, values: Values) -> Json:
    known = np.array([value for value in values if value is not None])
    counts, edges = np.histogram(known, bins=20, range=(-1, 1))
    mean = float(known.mean()) if known.size else None
    return {
        "run": run, "simulator": "token-lookup", "null": False, "metric": LEADING,
        "n": known.size, "mean": mean,
        "interval": None if mean is None else [mean - 0.01, mean + 0.01],
        "undefined": 1 - known.size / len(values), "reasons": {"truth is constant": 1},
        "random_only": None, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }  # fmt: skip


def _write_index(folder: Path, rows: Sequence[Json]) -> None:
    buckets: list[dict[str, list[int]]] = [{} for _ in range(BUCKETS)]
    for place, row in enumerate(rows):
        for word in words(" ".join([*row["explanations"].values(), *row["tokens"]])):
            found = buckets[_fnv1a(word[:2].encode("utf-8")) % BUCKETS].setdefault(word, [])
            found.append(place)
    for number, bucket in enumerate(buckets):
        _write(folder / f"{number}.json", {"words": bucket})


def words(text: str) -> set[str]:
    """The words of the contract for text in ASCII and other scripts alike."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    kinds = "".join(_KIND.get(unicodedata.category(letter)[0], "s") for letter in lowered)
    return {lowered[match.start() : match.end()] for match in re.finditer("w+|s+", kinds)}


_KIND = {"L": "w", "N": "w", "M": "w", "Z": " ", "C": " "}


def _fnv1a(data: bytes) -> int:
    made = 0x811C9DC5
    for byte in data:
        made = (made ^ byte) * 0x01000193 & 0xFFFFFFFF
    return made


def _write(path: Path, value: Json) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")
