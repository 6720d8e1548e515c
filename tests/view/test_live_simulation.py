"""Typed explanations: the same numbers as the stages, and what they cost beforehand."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from live_asking import app_of, ask
from starlette.testclient import TestClient

from neuron_explainer.config import ExplainSettings, ModelSettings, ScoreSettings, SimulateSettings
from neuron_explainer.explain.stage import explain
from neuron_explainer.records import NeuronId
from neuron_explainer.runs import Run
from neuron_explainer.score.stage import POPULATION, read_scores, score
from neuron_explainer.simulate.stage import plan, simulate
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.live import LiveSettings
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
KEY = key_of("tiny", SITE)
RUN = "tiny-token-lookup"
SIMULATE, FORECAST, START = "/api/live/simulate", "/api/live/forecast", "/api/live/explanation"


def _said(text: str, simulator: str = "token-lookup", neuron: int = 3) -> dict[str, object]:
    return {"site": KEY, "neuron": neuron, "explanation": text, "simulator": simulator}


def _scores(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert lines[-1] == {"done": True}, lines[-1]
    found: dict[str, dict[str, Any]] = lines[-2]["scores"]
    return found


def _same_as_stored(found: dict[str, dict[str, Any]], run: Run, label: str, neuron: int) -> int:
    """Checks every score against the stored ones; how many of them there are."""
    stored = read_scores(run.simulations(label), SITE, ScoreSettings())
    row = stored.neurons.tolist().index(neuron)
    known = {name: each.at(row) for name, each in stored.scores.items() if name != POPULATION}
    assert found.keys() == known.keys()
    for name, each in known.items():
        assert found[name]["undefined"] == each.undefined
        if each.value is not None:
            assert found[name]["value"] == pytest.approx(each.value, rel=1e-5, abs=1e-6), name
    return len(known)


@pytest.fixture(scope="module")
def app(small_workspace: Workspace) -> Iterator[FastAPI]:
    """The small workspace, without a language model."""
    made, live = app_of(small_workspace, LiveSettings())
    yield made
    live.close()


@pytest.mark.parametrize("neuron", [0, 3, 17, 63])
def test_the_runs_own_table_scores_as_the_run_does(
    app: FastAPI, small_workspace: Workspace, neuron: int
) -> None:
    [start] = ask(app, START, {"site": KEY, "neuron": neuron, "run": RUN})[1]
    lines = ask(app, SIMULATE, _said(start["table"], neuron=neuron))[1]
    run = Run(small_workspace, RUN)
    assert start["left_out"] == 0
    assert _same_as_stored(_scores(lines), run, "token-lookup", neuron) == 14
    table = run.simulations("token-lookup").read_neuron(f"{SITE}/simulations", neuron)
    valid = [row for row in table.to_pylist() if row["split"] == "valid"]
    shown = [line for line in lines if "sequence" in line]
    assert [(line["kind"], line["sequence"], line["rank"]) for line in shown] == [
        (row["kind"], row["sequence"], row["rank"]) for row in valid
    ]
    for line, row in zip(shown, valid, strict=True):
        assert line["activations"] == pytest.approx(row["activations"], rel=1e-3)
        assert line["correlation"] is None or -1 <= line["correlation"] <= 1


def test_the_interval_is_the_one_that_the_neuron_page_shows(app: FastAPI) -> None:
    [start] = ask(app, START, {"site": KEY, "neuron": 3, "run": RUN})[1]
    found = _scores(ask(app, SIMULATE, _said(start["table"]))[1])["correlation_top_and_random"]
    with TestClient(app, base_url="http://127.0.0.1:7861") as client:
        about = client.get(f"/api/{KEY}/neurons/0/3.json").json()
    [own] = [each for each in about["explanations"] if each["run"] == RUN]
    [mine] = [each for each in own["scores"] if each["simulator"] == "token-lookup"]
    shown = mine["values"]["correlation_top_and_random"]
    assert found["value"] == pytest.approx(shown["value"], rel=1e-5)
    assert found["interval"] == pytest.approx(shown["interval"], abs=1e-5)


def test_a_prediction_that_never_changes_has_no_correlation(app: FastAPI) -> None:
    found = _scores(ask(app, SIMULATE, _said('"never there" 3\notherwise 1'))[1])
    assert found["correlation_top_and_random"] == {
        "value": None,
        "interval": None,
        "undefined": "prediction is constant",
    }


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (_said("fires on sums"), 'line 1 of the table: write "token" number'),
        (_said('"a" 1', "numbers"), "numbers needs a language model: neuron-explainer view --llm"),
        (_said('"a" 1', "pair-lookup"), "pair-lookup simulates attention heads"),
        (_said('"a" 1', "shuffled"), "there is no such simulator here"),
        (_said('"a" 1', neuron=512), f"tiny/{SITE} has neurons 0 to 511, no 512"),
        (_said("x" * 60_001), "explanation has more than 60,000 characters"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(
    app: FastAPI, body: dict[str, object], said: str
) -> None:
    lines = ask(app, SIMULATE, body)[1]
    assert lines[-1]["error"].startswith(said)
    assert "scores" not in [key for line in lines for key in line]


def test_what_is_free_has_a_forecast_of_nothing(app: FastAPI) -> None:
    free = {"requests": 0, "tokens": 0, "cost": 0.0, "llm": None}
    assert ask(app, FORECAST, _said('"a" 1'))[1] == [free]


def test_about_says_what_can_be_chosen(app: FastAPI) -> None:
    with TestClient(app, base_url="http://127.0.0.1:7861") as client:
        about = client.get("/api/live.json").json()
        assert client.get("/api/workspace.json").json()["live"] == {"try": True, "judge": True}
    assert set(about["sites"].values()) == {None}
    simulators = {each.pop("name"): each for each in about["simulators"]}
    assert simulators["token-lookup"] == {"needs_llm": False, "predicts": "tokens", "heads": False}
    assert simulators["detection"] == {"needs_llm": True, "predicts": "sequences", "heads": False}
    assert simulators["pair-lookup"]["heads"]
    assert not {"constant", "shuffled"} & simulators.keys()


# ── with a language model ─────────────────────────────────────────────────────────────────────


def _script(path: Path) -> Path:
    """Numbers at the first tokens, and yes and no in turns."""
    numbers = json.dumps({"activations": [{"index": at, "activation": at + 1} for at in range(5)]})
    verdicts = [
        {
            "pattern": rf"{last}\t[^\n]*\n<end>$",
            "reply": json.dumps(
                {"verdicts": [{"index": at, "fires": at % 2 == 0} for at in range(last + 1)]}
            ),
        }
        for last in range(5)
    ]
    path.write_text(json.dumps([*verdicts, {"pattern": ".", "reply": numbers}]))
    return path


@pytest.fixture(scope="module")
def asked(
    small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workspace, ModelSettings, FastAPI]]:
    """A copy with a run of two neurons, simulated and scored by a scripted model."""
    folder = tmp_path_factory.mktemp("asked")
    here = Workspace(shutil.copytree(small_workspace.root, folder / "copy"))
    llm = f"scripted/{_script(folder / 'script.json')}"
    (here.root / "prices.toml").write_text("")
    model = ModelSettings(llm)
    asyncio.run(explain(here, "tiny", [SITE], ExplainSettings(run="two", neurons="3-4")))
    for name in ("numbers", "detection"):
        run = Run(here, "two")
        asyncio.run(simulate(run, name, SimulateSettings(model=model)))
        score(run, name, ScoreSettings())
    made, live = app_of(here, LiveSettings(model=model))
    yield here, model, made
    live.close()


@pytest.mark.parametrize("simulator", ["numbers", "detection"])
def test_a_model_is_asked_as_the_stage_asks_it(
    asked: tuple[Workspace, ModelSettings, FastAPI], simulator: str
) -> None:
    here, _, app = asked
    own = Run(here, "two").explanation(NeuronId("tiny", SITE, 3))
    assert own is not None
    lines = ask(app, SIMULATE, _said(own.text, simulator))[1]
    assert _same_as_stored(_scores(lines), Run(here, "two"), simulator, 3) in (14, 2)
    shown = [line["sequence"] for line in lines if "sequence" in line]
    assert len(shown) == len(set(shown)) > 0
    if simulator == "detection":
        ends = _scores(lines)["auroc_top_and_random"]["interval"]
        assert ends is None or ends[0] <= ends[1]


@pytest.mark.parametrize("simulator", ["numbers", "detection"])
def test_the_forecast_is_that_of_a_dry_run(
    asked: tuple[Workspace, ModelSettings, FastAPI], simulator: str
) -> None:
    here, model, app = asked
    one = Run(here, "one")
    if not one.folder.exists:
        asyncio.run(explain(here, "tiny", [SITE], ExplainSettings(run="one", neurons="3")))
    own = one.explanation(NeuronId("tiny", SITE, 3))
    assert own is not None
    planned: Any = asyncio.run(plan(one, simulator, SimulateSettings(model=model)))["forecast"]
    [found] = ask(app, FORECAST, _said(own.text, simulator))[1]
    assert found["requests"] == planned.requests > 0
    assert found["tokens"] == planned.prompt_tokens + planned.completion_tokens
    assert found["cost"] == planned.cost
    assert found["llm"].startswith("scripted/")


def test_a_model_that_fails_is_a_line_with_its_cause(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    here = Workspace(shutil.copytree(small_workspace.root, tmp_path / "copy"))
    script = tmp_path / "fails.json"
    script.write_text(json.dumps([{"pattern": ".", "failure": "refused"}]))
    made, live = app_of(here, LiveSettings(model=ModelSettings(f"scripted/{script}")))
    lines = ask(made, SIMULATE, _said("fires on sums", "numbers"))[1]
    live.close()
    assert lines == [{"error": f"{script} says so", "run": None}]


def test_nothing_more_is_asked_once_the_budget_is_spent(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    here = Workspace(shutil.copytree(small_workspace.root, tmp_path / "copy"))
    model = ModelSettings(f"scripted/{_script(tmp_path / 's.json')}", max_tokens=1, concurrency=1)
    made, live = app_of(here, LiveSettings(model=model))
    lines = ask(made, SIMULATE, _said("fires on sums", "numbers"))[1]
    again = ask(made, SIMULATE, _said("fires on others", "numbers"))[1]
    live.close()
    for found in (lines, again):
        assert "--max-tokens" in found[-1]["error"] or "budget" in found[-1]["error"]
        assert not [line for line in found if "scores" in line]
