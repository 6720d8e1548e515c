"""What is missing, damaged or unfinished is said, with the command that mends it; never a 500."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from made_workspace import RUNS, SITE, SUBJECT, MadeWorkspace

from neuron_explainer import schemas, workspace
from neuron_explainer.store import Folder
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.server import app
from neuron_explainer.workspace import Workspace

KEY = key_of(SUBJECT, SITE)
PATHS = ("summary", "columns", "columns/density", "rows/0/0", "search/0", "neurons/0/3")


@pytest.fixture
def copied(made: MadeWorkspace, tmp_path: Path) -> Workspace:
    """A copy that may be broken."""
    shutil.copytree(made.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def asked(here: Workspace) -> Callable[[str], tuple[int, Any]]:
    """What the server says of a resource; a fault of its own fails the test."""
    client = TestClient(app(Resources(here)), base_url="http://127.0.0.1")

    def get(path: str) -> tuple[int, Any]:
        reply = client.get(f"/api/{path}.json")
        return reply.status_code, reply.json()

    return get


def test_an_empty_workspace_lists_nothing_and_asks_for_collecting(tmp_path: Path) -> None:
    get = asked(workspace.init(tmp_path / "empty"))
    status, listed = get("workspace")
    assert status == 200
    assert (listed["subjects"], listed["sites"], listed["runs"]) == ([], {}, {})
    status, said = get(f"{KEY}/summary")
    assert status == 404
    assert said["run"] == "neuron-explainer collect"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"shards": 3}', b"\xff\xfe", b"null"])
@pytest.mark.parametrize("folder", ["data/made/" + SITE, f"explanations/{RUNS[0]}"])
def test_a_damaged_manifest_is_a_problem_that_is_listed(
    copied: Workspace, folder: str, content: bytes
) -> None:
    (copied.root / folder / "manifest.json").write_bytes(content)
    get = asked(copied)
    status, listed = get("workspace")
    assert status == 200
    assert any(folder in problem["what"] and problem["run"] for problem in listed["problems"])
    assert all(get(f"{KEY}/{path}")[0] in {200, 404} for path in PATHS)


@pytest.mark.parametrize(
    ("file", "broken"),
    [
        (f"data/made/{SITE}/records-00000-00511.parquet", {"rows/0/0", "search/0", "neurons/0/3"}),
        (
            f"data/made/{SITE}/neurons-00000-00511.parquet",
            {"columns/density", "neurons/0/3"},
        ),
        ("data/made/corpus/sequences.arrow", {"rows/0/0", "search/0", "neurons/0/3"}),
        ("data/made/corpus/vocabulary.parquet", {"rows/0/0", "search/0", "neurons/0/3"}),
        (
            f"explanations/{RUNS[0]}/{SITE}/explanations-00000-00511.parquet",
            {"rows/0/0", "search/0", "neurons/0/3"},
        ),
        (f"scoring/{RUNS[0]}/simulated/{SITE}/simulations-00000-00511.parquet", {"neurons/0/3"}),
        (
            f"scoring/{RUNS[0]}/simulated/{SITE}/scores-00000-00511.parquet",
            {"summary", "neurons/0/3"},
        ),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_file_makes_what_needs_it_unavailable_and_nothing_else(
    copied: Workspace, file: str, broken: set[str], damage: str
) -> None:
    path = copied.root / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        half = len(content) // 2
        other = bytes([content[half] ^ 0xFF])
        path.write_bytes(content[:half] + (b"" if damage == "cut" else other + content[half + 1 :]))
    get = asked(copied)
    assert get("workspace")[0] == 200
    for resource in PATHS:
        status, said = get(f"{KEY}/{resource}")
        assert status == (409 if resource in broken else 200), resource
        if status == 409:
            assert said["run"].startswith("neuron-explainer ")
            assert "damaged" in said["error"]


def test_what_mends_a_column_of_scores_is_simulating(copied: Workspace) -> None:
    column = key_of(RUNS[0], "simulated", "correlation_top_and_random")
    scores = copied.scoring / RUNS[0] / "simulated" / SITE / "scores-00000-00511.parquet"
    scores.unlink()
    status, said = asked(copied)(f"{KEY}/columns/{column}")
    assert status == 409
    assert said["run"] == f"neuron-explainer simulate {RUNS[0]} --simulator simulated"


def test_a_run_that_is_being_written_shows_what_it_has_and_then_the_rest(
    copied: Workspace,
) -> None:
    folder = Folder(copied.explanations / RUNS[0])
    manifest = folder.manifest()
    last = {f"{SITE}/{table}-01024-01199.parquet" for table in ("explanations", "failures")}
    held = {file: about for file, about in manifest["shards"].items() if file not in last}
    folder.update({"shards": held, "complete": False})
    get = asked(copied)
    listed = get("workspace")[1]
    assert not listed["runs"][RUNS[0]]["complete"]
    (problem,) = listed["problems"]
    assert "is not complete" in problem["what"]
    assert problem["run"] == f"neuron-explainer explain --run {RUNS[0]}"
    assert set(get(f"{KEY}/neurons/1/1100")[1]["explanations"][0]) >= {"text", "failure"}
    assert get(f"{KEY}/neurons/1/1100")[1]["explanations"][0]["text"] is None
    assert RUNS[0] not in get(f"{KEY}/rows/0/70")[1]["rows"][0]["explanations"]
    folder.update({"shards": manifest["shards"], "complete": True})
    assert get(f"{KEY}/neurons/1/1100")[1]["explanations"][0]["text"].startswith("mentions of")
    assert RUNS[0] in get(f"{KEY}/rows/0/70")[1]["rows"][0]["explanations"]


def test_without_simulations_there_are_explanations_and_no_scores(copied: Workspace) -> None:
    shutil.rmtree(copied.scoring / RUNS[0])
    shutil.rmtree(copied.scoring / RUNS[1])
    get = asked(copied)
    assert get("workspace")[1]["runs"][RUNS[0]]["main"] is None
    page = get(f"{KEY}/neurons/0/3")[1]
    assert [each["scores"] for each in page["explanations"]] == [[], []]
    assert all(not record["simulations"] for record in page["records"])
    assert {column["kind"] for column in get(f"{KEY}/columns")[1]["columns"]} == {"statistic"}
    assert get(f"{KEY}/summary")[1] == {"scores": [], "failures": []}


def test_a_failure_says_why_there_is_no_explanation(copied: Workspace) -> None:
    folder = Folder(copied.explanations / RUNS[0])
    name = f"{SITE}/explanations-00000-00511.parquet"
    table = folder.read(name)
    failed = pa.table(
        [[3], ["explain"], ["never-active"], ["<b>it never fires</b>"]], schema=schemas.FAILURES
    )
    without = table.filter(pa.compute.not_equal(table["neuron"], 3))
    folder.write({name: without, f"{SITE}/failures-00000-00511.parquet": failed})
    get = asked(copied)
    (told, _) = get(f"{KEY}/neurons/0/3")[1]["explanations"]
    assert told["text"] is None
    assert told["failure"] == {
        "stage": "explain",
        "cause": "never-active",
        "message": "<b>it never fires</b>",
    }
    row = get(f"{KEY}/rows/0/0")[1]["rows"][3]
    assert row["failures"] == {RUNS[0]: "never-active"}
    assert RUNS[0] not in row["explanations"]
    (failure,) = get(f"{KEY}/summary")[1]["failures"]
    assert failure == {
        **{"run": RUNS[0], "stage": "explain", "cause": "never-active", "neurons": 1}
    }


def test_a_run_whose_records_are_gone_is_a_problem(copied: Workspace) -> None:
    shutil.rmtree(copied.data / SUBJECT)
    listed = asked(copied)("workspace")[1]
    assert listed["sites"] == {}
    assert "of which there are no records" in listed["problems"][0]["what"]
    assert listed["problems"][0]["run"] == f"neuron-explainer collect --site {SITE}"


@pytest.mark.parametrize(
    "path",
    [
        *("nope/summary", f"{KEY}/columns/nope", f"{KEY}/rows/0/75", f"{KEY}/rows/1/0"),
        *(f"{KEY}/rows/0/-1", f"{KEY}/rows/0/x", f"{KEY}/search/64", f"{KEY}/search/-1"),
        *(f"{KEY}/neurons/0/1200", f"{KEY}/neurons/1/3", f"{KEY}/neurons/0/99999999999999999999"),
        *(f"{KEY}/neurons/0/٣", f"{KEY}/neurons/0/3.5", "workspace.json", "nope"),
    ],
)
def test_what_is_not_there_is_404(made: MadeWorkspace, path: str) -> None:
    status, said = asked(Workspace(made.root))(path)
    assert status == 404
    assert set(said) == {"error", "run"}


def test_a_neuron_that_was_not_collected_says_how_to(made: MadeWorkspace) -> None:
    said = asked(Workspace(made.root))(f"{KEY}/neurons/1/1200")[1]
    assert said["error"] == "neuron 1200 was not collected here"
    assert said["run"] == "neuron-explainer collect --subject made --layer 0"


def test_what_was_collected_anew_is_shown_anew(copied: Workspace) -> None:
    """Nothing is remembered of files whose manifest was written since."""
    resources = Resources(copied)
    before = orjson.loads(resources.column(KEY, "density"))["values"]
    shutil.rmtree(copied.data / SUBJECT)
    MadeWorkspace(copied.root, 700, seed=5, runs=()).write()
    after = orjson.loads(resources.column(KEY, "density"))["values"]
    assert (len(before), len(after)) == (1200, 700)
    assert before[:700] != after
    assert orjson.loads(resources.neuron(KEY, 0, 699))["next"] is None
