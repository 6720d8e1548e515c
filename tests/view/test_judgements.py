"""Judgements: kept at once, read by compare, and held against the scores."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import files, in_process
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as some
from live_asking import app_of
from scipy import stats
from starlette.testclient import TestClient

from neuron_explainer.config import ScoreSettings
from neuron_explainer.runs import Run
from neuron_explainer.score.stage import read_scores
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.judgement_summary import wilson
from neuron_explainer.view.live import LiveSettings
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
KEY = key_of("tiny", SITE)
A, B = "tiny-token-lookup", "tiny-token-lookup-all"
FILE = f"{A}~{B}.csv"
METRIC = "correlation_top_and_random"


@pytest.fixture
def here(small_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the small workspace, to write to."""
    return Workspace(shutil.copytree(small_workspace.root, tmp_path / "copy"))


@pytest.fixture
def client(here: Workspace) -> Iterator[TestClient]:
    """Asks the server of the copy."""
    made: FastAPI = app_of(here, LiveSettings())[0]
    with TestClient(made, base_url="http://127.0.0.1:7861") as asking:
        yield asking


def _judge(client: TestClient, neuron: int, preferred: str | None, **more: str) -> Any:
    body = {"site": KEY, "neuron": neuron, "first": A, "second": B, "preferred": preferred}
    return client.post("/api/judgements", json=body | more)


def _kept(client: TestClient) -> dict[int, str]:
    found = client.get("/api/judgements.json").json()["judgements"]
    return {each["neuron"]: each["preferred"] for each in found if not each["stale"]}


def test_a_judgement_is_kept_replaced_and_taken_back(here: Workspace, client: TestClient) -> None:
    before = files(here.root)
    assert _kept(client) == {}
    for neuron, preferred in enumerate(("first", "second", "tie", "neither")):
        said = _judge(client, neuron, preferred).json()
        assert said == {"saved": neuron + 1, "file": f"scoring/judgements/{FILE}"}
    assert _kept(client) == {0: "first", 1: "second", 2: "tie", 3: "neither"}
    assert _judge(client, 0, "second").json()["saved"] == 4
    assert _judge(client, 3, None).json()["saved"] == 3
    assert _kept(client) == {0: "second", 1: "second", 2: "tie"}
    written = files(here.root).keys() - before.keys()
    assert written == {f"scoring/judgements/{FILE}", "scoring/judgements/.lock"}
    assert {name: content for name, content in files(here.root).items() if name in before} == before


def test_whichever_run_comes_first_it_is_one_table(here: Workspace, client: TestClient) -> None:
    _judge(client, 5, "first", first=B, second=A)
    assert _kept(client) == {5: "second"}
    with (here.scoring / "judgements" / FILE).open() as table:
        rows = list(csv.DictReader(table))
    assert [(row["method"], row["preferred"]) for row in rows] == [(A, "0"), (B, "1")]
    assert {row["site"] for row in rows} == {SITE}
    assert {row["neuron"] for row in rows} == {"5"}


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"first": "../../escape"}, 404),
        ({"second": A}, 422),
        ({"preferred": "both"}, 422),
        ({"site": "/etc"}, 404),
        ({"neuron": 100_000}, 409),
        ({"neuron": 500}, 409),  # which neither run explains
        ({"file": "elsewhere.csv"}, 422),
    ],
)
def test_what_is_no_judgement_writes_nothing(
    here: Workspace, client: TestClient, more: dict[str, Any], status: int
) -> None:
    before = files(here.root)
    body = {"site": KEY, "neuron": 1, "first": A, "second": B, "preferred": "tie"}
    reply = client.post("/api/judgements", json=body | more)
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "run"}
    assert files(here.root) == before


def test_a_damaged_table_is_refused_and_left_as_it_is(here: Workspace, client: TestClient) -> None:
    _judge(client, 1, "first")
    path = here.scoring / "judgements" / FILE
    for damage in ("method,site\nx,y\n", f"{path.read_text()}{A},{SITE},7,abc,1\n", "\0"):
        path.write_text(damage)
        reply = _judge(client, 2, "first")
        assert reply.status_code == 409
        assert "was left as it is; mend it or move it away" in reply.json()["error"]
        assert path.read_text() == damage
        assert client.get("/api/judgements.json").status_code == 409
        [pair] = client.get("/api/judgements-summary.json").json()["pairs"]
        assert "is damaged" in pair["error"]


def test_an_explanation_that_was_written_anew_is_unjudged(
    here: Workspace, client: TestClient
) -> None:
    _judge(client, 1, "first")
    _judge(client, 2, "first")
    path = here.scoring / "judgements" / FILE
    rows = path.read_text().splitlines()
    judged = rows[1].split(",")[3]
    path.write_text("\n".join([rows[0], rows[1].replace(judged, "0" * 16), *rows[2:]]) + "\n")
    assert _kept(client) == {2: "first"}
    [pair] = client.get("/api/judgements-summary.json").json()["pairs"]
    assert (pair["judged"], pair["stale"]) == (1, 1)


def test_the_summary_holds_preferences_against_scores(here: Workspace, client: TestClient) -> None:
    first, second = (
        read_scores(Run(here, name).simulations("token-lookup"), SITE, ScoreSettings())
        for name in (A, B)
    )
    apart = first.scores[METRIC].values - second.scores[METRIC].values
    said = ["second"] * 9 + ["first"] * 3 + ["tie"] * 2 + ["neither"]
    for neuron, preferred in enumerate(said):
        _judge(client, neuron, preferred)
    [pair] = client.get("/api/judgements-summary.json").json()["pairs"]
    assert pair["counts"] == {"first": 3, "second": 9, "tie": 2, "neither": 1}
    assert pair["share"] == 0.25
    exact = stats.binomtest(3, 12).proportion_ci(method="wilson")
    assert pair["interval"] == pytest.approx([exact.low, exact.high], abs=1e-5)
    signs = {"first": 1, "second": -1, "tie": 0, "neither": 0}
    agreeing = sum(signs[each] * apart[neuron] > 0 for neuron, each in enumerate(said))
    scores = pair["scores"]
    assert (scores["metric"], scores["n"], scores["decided"]) == (METRIC, 15, 12)
    assert scores["agreeing"] == agreeing
    expected = stats.spearmanr(apart[:15], [signs[each] for each in said]).statistic
    assert scores["correlation"] == pytest.approx(expected, abs=1e-5)


def test_compare_reads_the_table_and_leaves_the_runs_own_comparison_alone(
    here: Workspace,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for neuron in range(12):
        _judge(
            client, neuron, ("second", "second", "first", "tie", "neither", "second")[neuron % 6]
        )
    monkeypatch.chdir(here.root)
    command = in_process(monkeypatch, capsys)
    assert command("compare", A, B, "--resamples", "100").code == 0
    own = files(here.scoring / "comparisons" / f"{A}-vs-{B}")
    done = command("compare", f"scoring/judgements/{FILE}", "--resamples", "100")
    assert (done.code, done.err) == (0, "")
    assert "metric preferred" in done.out
    assert "+0.333" in done.out  # 6 of 12 against 2 of 12
    assert files(here.scoring / "comparisons" / f"{A}-vs-{B}") == own
    assert (here.scoring / "comparisons" / f"{A}-vs-{B}-by-preferred" / "report.html").is_file()


@given(some.integers(1, 400).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n))))
def test_the_interval_of_a_share_is_wilsons(trial: tuple[int, int]) -> None:
    successes, n = trial
    found = wilson(successes, n)
    exact = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert found == pytest.approx([exact.low, exact.high], abs=1e-9)
    assert wilson(0, 0) is None
