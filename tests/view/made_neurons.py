"""Resources of the viewer's contract (docs/view.md) as a test wants them, as files of a site."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import neuron_explainer

PAGE = Path(neuron_explainer.__file__).parent / "view" / "page"
SITE, HEADS = "blocks.0.mlp.hook_post", "blocks.0.attn.hook_pattern"
Json = dict[str, Any]

FIRST, MIDDLE, LAST = 0, 1, 5
UNEXPLAINED, UNSIMULATED, FAILED, LONG = 10, 11, 12, 13
LONG_TEXT = "many words " * 10_000

TOKENS = ["<|endoftext|>", "The", " cat", " sat", ".", "\n", " It", " slept", " well", "."]
TRUE = [9.0, 0.0, 4.0, 1.0, -2.0, 0.0, 0.2, 2.0, 0.0, 0.5]
PREDICTED = [None, 0.0, 10.0, None, 0.0, 0.0, 1.0, 4.0, 0.0, 0.0]


def record(tokens: Sequence[str] = TOKENS, **changes: Any) -> Json:
    """A top record of `TOKENS`, its first token unscored, without predictions."""
    activations = changes.get("activations", (TRUE * len(tokens))[: len(tokens)])
    made: Json = {
        "kind": "top", "band": None, "share": None, "split": "valid", "sequence": 7,
        "tokens": list(tokens), "unscored": [0], "activations": activations, "maximum": 4.0,
        "pair": None, "simulations": [],
    }  # fmt: skip
    return made | changes


def simulated(run: str = "first", simulator: str = "token-lookup", **changes: Any) -> Json:
    """The predictions of one simulator for one record."""
    made: Json = {"run": run, "simulator": simulator, "activations": PREDICTED, "correlation": 0.83}
    return made | changes


def figure(
    value: float | None, interval: Sequence[float] | None = None, reason: str | None = None
) -> Json:
    """One score."""
    return {"value": value, "interval": interval, "undefined": reason}


def scored(simulator: str = "token-lookup", **changes: Any) -> Json:
    """The scores of one simulator."""
    values = {
        "correlation_top_and_random": figure(0.8, [0.6, 0.9]),
        "correlation_random_only": figure(0.5),
        "explained_variance_linear_top_and_random": figure(0.4),
    }
    made: Json = {"simulator": simulator, "null": False, "predicts": "tokens", "failure": None}
    return made | {"values": values} | changes


def explanation(run: str = "first", **changes: Any) -> Json:
    """What one run says."""
    made: Json = {
        "run": run, "explainer": "token-lookup", "model": None, "text": f"cats, says {run}",
        "failure": None, "table": None, "table_rows": None, "otherwise": None, "scores": [scored()],
    }  # fmt: skip
    return made | changes


def neuron(index: int = 0, **changes: Any) -> Json:
    """A neuron with records of every kind and one explanation."""
    made: Json = {
        "id": f"made/{SITE}/{index}", "site": SITE, "subject": "made", "name": SITE,
        "neuron": index, "unit": "neuron",
        "statistics": {"tokens": 10000, "density": 0.25, "maximum": 4.0, "mean": 0.5,
                       "variance": 1.0, "skewness": 2.0, "kurtosis": 9.0,
                       "quantile_boundaries": [0.5, 1.0, 2.0, 3.0]},
        "histogram": {"edges": [0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0],
                      "counts": [7500, 900, 700, 500, 300, 80, 15, 5]},
        "explanations": [explanation()],
        "records": [
            record(simulations=[simulated()]),
            record(kind="random", sequence=8, maximum=1.0, simulations=[simulated()]),
            record(kind="quantile", band=0, share=0.5, split=None, sequence=9, maximum=0.2),
            record(kind="quantile", band=1, share=0.5, split=None, sequence=10, maximum=2.0),
        ],
        "promoted": [{"token": " dog", "effect": 0.9}],
        "suppressed": [{"token": " fish", "effect": -0.4}],
        "excites": None, "inhibits": None,
        "token_table": [{"previous": None, "token": " cat", "activation": 3.0, "count": 12},
                        {"previous": None, "token": None, "activation": 0.1, "count": 900}],
        "nearest": [{"neuron": 1, "cosine": 0.71, "explanation": "dogs"}],
        "neuronpedia": None, "previous": None, "next": None,
    }  # fmt: skip
    return made | changes


def head(**changes: Any) -> Json:
    """An attention head with one pair, judged by a simulator of sequences."""
    place = 7
    activations = [3.0 if at == place else 0.0 for at in range(len(TOKENS))]
    pair: Json = {"pair": [place, 2], "maximum": 3.0, "activations": activations}
    verdict = simulated(simulator="pair-lookup", activations=[7.5] * 10, correlation=None)
    scores = scored("pair-lookup", predicts="sequences", values={
        "auroc_top_and_random": figure(0.9, [0.7, 1.0]),
        "balanced_accuracy_top_and_random": figure(0.75),
    })  # fmt: skip
    made = neuron(
        0,
        site=HEADS, name=HEADS, id=f"made/{HEADS}/0", unit="head", token_table=None, nearest=None,
        explanations=[explanation(scores=[scores])],
        records=[record(simulations=[verdict], **pair), record(kind="random", **pair)],
    )  # fmt: skip
    return made | changes


def every_condition() -> dict[tuple[str, int], Json]:
    """Neurons with neighbours, nulls and failures, and without this or that; a head."""
    nulls = [
        scored("shuffled", null=True),
        scored("constant", null=True, values={
            "correlation_top_and_random": figure(None, reason="constant prediction")
        }),
        scored("all-at-once", values={}, failure={"cause": "timeout", "message": "no reply"}),
    ]  # fmt: skip
    failure = {"stage": "explain", "cause": "never-active", "message": "no activation above 0"}
    row = {"previous": None, "activation": 9.0, "share": 0.1}
    rows = [row | {"token": f" t{at}"} for at in range(4)]
    table = explanation(scores=[scored(), *nulls], table=rows, otherwise=0.25)
    both = [simulated(), simulated(simulator="shuffled", correlation=None, activations=[5.0] * 10)]
    middle = neuron(MIDDLE, previous=FIRST, next=LAST, explanations=[table, explanation("second")])
    middle["records"][0]["simulations"] = both
    made = [
        neuron(FIRST, next=MIDDLE),
        middle,
        neuron(LAST, previous=MIDDLE),
        neuron(UNEXPLAINED, explanations=[], records=[record()], histogram=None, statistics=None,
               promoted=None, suppressed=None, token_table=None, nearest=None),
        neuron(UNSIMULATED, explanations=[explanation(scores=[])], records=[record()]),
        neuron(FAILED, explanations=[explanation(text=None, scores=[], failure=failure)]),
        neuron(LONG, explanations=[explanation(text=LONG_TEXT)]),
    ]  # fmt: skip
    return {(SITE, one["neuron"]): one for one in made} | {(HEADS, 0): head()}


def site(folder: Path, neurons: Mapping[tuple[str, int], Json]) -> Path:
    """The pages with these neurons, which are given by site and index."""
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    _write(folder / "api" / "workspace.json", _workspace())
    for (key, index), made in neurons.items():
        _write(folder / "api" / key / "neurons" / str(index // 1000) / f"{index}.json", made)
    return folder


def _workspace() -> Json:
    kinds = {SITE: "neuron", HEADS: "head"}
    return {
        "format": 1, "mode": "static", "package_version": "0",
        "live": {"try": False, "judge": False}, "problems": [],
        "subjects": [{"key": "made", "name": "made", "sites": [*kinds]}],
        "sites": {
            key: {"key": key, "subject": "made", "name": key, "layer": 0, "unit": unit,
                  "width": 64, "neurons": 40, "excerpts": 100, "complete": True,
                  "runs": ["first", "second"]}
            for key, unit in kinds.items()
        },
        "runs": {name: _run(name, [*kinds]) for name in ("first", "second")},
    }  # fmt: skip


def _run(name: str, sites: list[str]) -> Json:
    metric = "correlation_top_and_random"
    simulator = {"name": "token-lookup", "null": False, "predicts": "tokens", "metrics": [metric]}
    return {
        "key": name, "name": name, "subject": "made", "explainer": "token-lookup", "model": None,
        "sites": sites, "complete": name == "first", "simulators": [simulator],
        "main": {"simulator": "token-lookup", "metric": metric},
    }  # fmt: skip


def _write(path: Path, value: Json) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")  # lone surrogates as \\u
