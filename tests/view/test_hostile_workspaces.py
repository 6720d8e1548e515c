"""Names and texts made to do harm come back as data; no link leads out of the workspace."""

import os
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from made_workspace import RUNS, SITE, SUBJECT, MadeWorkspace

from neuron_explainer.store import Folder
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.server import app
from neuron_explainer.view.static import write_site
from neuron_explainer.workspace import Workspace

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "'; DROP TABLE runs; --",
    "javascript:alert(1)",
    "..%2f..%2fetc%2fpasswd",
    "$(touch pwned)",
    "\x1b]0;owned\x07\x1b[31m",
    "\u202egnp.exe",
    "%00",
    "a?b#c&d=e",
    "..%5c",
    "-rf",
    "%s%n{0}",
    "__proto__",
    ".hidden",
    os.fsdecode(b"not-utf8-\xff"),
)


HARMLESS = set(string.ascii_letters + string.digits + "._-")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made workspace of 40 neurons."""
    root = tmp_path_factory.mktemp("hostile") / "workspace"
    MadeWorkspace(root, 40, runs=RUNS[:1]).write()
    return root


def asked(here: Workspace) -> Callable[[str], Any]:
    """A resource as the server gives it; anything but 200 fails the test."""
    client = TestClient(app(Resources(here)), base_url="http://127.0.0.1")

    def get(path: str) -> Any:
        reply = client.get(f"/api/{path}.json")
        assert reply.status_code == 200, (path, reply.text)
        return reply.json()

    return get


def test_hostile_names_of_runs_and_simulators_are_data(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "here")
    here = Workspace(tmp_path / "here")
    for name in HOSTILE:
        shutil.copytree(here.explanations / RUNS[0], here.explanations / name)
        shutil.copytree(here.scoring / RUNS[0] / "simulated", here.scoring / name / name)
    get = asked(here)
    listed = get("workspace")
    assert listed["problems"] == []
    assert {run["name"] for run in listed["runs"].values()} == {RUNS[0], *map(_shown, HOSTILE)}
    assert all(set(key) <= HARMLESS for key in listed["runs"])
    site = key_of(SUBJECT, SITE)
    told = get(f"{site}/neurons/0/3")["explanations"]
    for each in told:
        name = listed["runs"][each["run"]]["name"]
        assert each["text"].startswith("mentions of")
        scored = {score["simulator"] for score in each["scores"]}
        assert scored == ({"simulated", "shuffled"} if name == RUNS[0] else {name})
    assert len(told) == 1 + len(HOSTILE)
    assert set(get(f"{site}/rows/0/0")["rows"][0]["explanations"]) == set(listed["runs"])
    for column in get(f"{site}/columns")["columns"][-3:]:
        assert set(column["key"]) <= HARMLESS
        assert len(get(f"{site}/columns/{column['key']}")["values"]) == 40
    assert len(get(f"{site}/summary")["scores"]) == 2 + len(HOSTILE)
    assert not (tmp_path / "pwned").exists()


def test_hostile_names_of_subjects_and_autoencoders_are_data(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "here")
    here = Workspace(tmp_path / "here")
    for name in HOSTILE[:-1]:
        shutil.copytree(here.data / SUBJECT, here.data / name)
        shutil.copytree(here.data / SUBJECT / SITE, here.data / name / f"{SITE}/{name}")
    get = asked(here)
    listed = get("workspace")
    assert {each["name"] for each in listed["subjects"]} == {SUBJECT, *HOSTILE[:-1]}
    for key, site in listed["sites"].items():
        assert set(key) <= HARMLESS
        page = get(f"{key}/neurons/0/3")
        names = {subject["key"]: subject["name"] for subject in listed["subjects"]}
        assert page["id"] == f"{names[site['subject']]}/{site['name']}/3"
        assert page["unit"] == ("neuron" if site["name"] == SITE else "latent")


def test_a_subject_whose_name_is_no_text_is_listed(small: Path, tmp_path: Path) -> None:
    """pyarrow maps no corpus whose path is not UTF-8; that is said, and no fault of the server."""
    shutil.copytree(small, tmp_path / "here")
    here = Workspace(tmp_path / "here")
    (here.data / SUBJECT).rename(here.data / HOSTILE[-1])
    client = TestClient(app(Resources(here)), base_url="http://127.0.0.1")
    listed = client.get("/api/workspace.json").json()
    assert listed["subjects"][0]["name"] == "not-utf8-\\xff"
    (site,) = listed["sites"]
    assert client.get(f"/api/{site}/neurons/0/3.json").status_code in {200, 409}


def test_hostile_explanations_are_text(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "here")
    folder = Folder(tmp_path / "here" / "explanations" / RUNS[0])
    file = f"{SITE}/explanations-00000-00039.parquet"
    table = folder.read(file)
    texts = [*HOSTILE[:-1], *["plain"] * 40][:40]
    column = table.column_names.index("text")
    folder.write({file: table.set_column(column, table.schema.field("text"), [texts])})
    get = asked(Workspace(tmp_path / "here"))
    site = key_of(SUBJECT, SITE)
    for neuron in range(len(HOSTILE) - 1):
        (told,) = get(f"{site}/neurons/0/{neuron}")["explanations"]
        assert told["text"] == texts[neuron]
    rows = get(f"{site}/rows/0/0")["rows"]
    assert [row["explanations"][RUNS[0]] for row in rows] == texts[:16]


@pytest.mark.parametrize("site", ["../../../other", "blocks.x.y", "/etc", "blocks.0.a/../../../b"])
def test_a_manifest_that_names_shards_elsewhere_leads_nowhere(
    small: Path, tmp_path: Path, site: str
) -> None:
    shutil.copytree(small, tmp_path / "here")
    here = Workspace(tmp_path / "here")
    for folder in (here.explanations / RUNS[0], here.scoring / RUNS[0] / "simulated"):
        manifest = folder / "manifest.json"
        manifest.write_bytes(manifest.read_bytes().replace(SITE.encode(), site.encode()))
    get = asked(here)
    listed = get("workspace")
    assert all(not each["runs"] for each in listed["sites"].values())
    assert any("no records" in each["what"] for each in listed["problems"])
    assert get(f"{key_of(SUBJECT, SITE)}/neurons/0/3")["explanations"] == []


LINKED = (
    f"data/{SUBJECT}/{SITE}",
    f"data/{SUBJECT}",
    f"explanations/{RUNS[0]}",
    f"scoring/{RUNS[0]}/simulated",
    f"explanations/{RUNS[0]}/manifest.json",
    f"data/{SUBJECT}/{SITE}/records-00000-00039.parquet",
    f"data/{SUBJECT}/corpus/sequences.arrow",
    f"data/{SUBJECT}/corpus",
    f"explanations/{RUNS[0]}/{SITE}",
    f"explanations/{RUNS[0]}/{SITE}/explanations-00000-00039.parquet",
)


@pytest.mark.parametrize("place", LINKED)
def test_a_link_that_leads_out_of_the_workspace_is_not_followed(
    small: Path, tmp_path: Path, place: str
) -> None:
    shutil.copytree(small, tmp_path / "here")
    inside, outside = tmp_path / "here" / place, tmp_path / "outside"
    shutil.move(inside, outside)
    inside.symlink_to(outside)
    client = TestClient(app(Resources(Workspace(tmp_path / "here"))), base_url="http://127.0.0.1")
    listed = client.get("/api/workspace.json").json()
    site = key_of(SUBJECT, SITE)
    page = client.get(f"/api/{site}/neurons/0/3.json")
    if page.status_code == 200:  # the page without what is behind the link
        assert any("leads out of" in problem["what"] for problem in listed["problems"])
        told = page.json()["explanations"]
        assert not told or not any(score["simulator"] == "simulated" for score in told[0]["scores"])
    elif page.status_code == 409:
        assert "leads out of the workspace" in page.json()["error"]
    else:
        assert page.status_code == 404
        assert any("leads out of" in problem["what"] for problem in listed["problems"])


def test_a_workspace_behind_a_link_is_read(small: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(small)
    get = asked(Workspace(link))
    assert get("workspace")["problems"] == []
    assert get(f"{key_of(SUBJECT, SITE)}/neurons/0/3")["explanations"]


def test_hostile_names_make_no_files_elsewhere(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "here")
    here = Workspace(tmp_path / "here")
    (here.explanations / RUNS[0]).rename(here.explanations / HOSTILE[3])
    (here.scoring / RUNS[0]).rename(here.scoring / HOSTILE[3])
    before = set(tmp_path.rglob("*"))
    write_site(Resources(here, neurons=range(3)), tmp_path / "site")
    made = set(tmp_path.rglob("*")) - before
    allowed = (tmp_path / "site", here.root / ".cache")  # the index of words is kept there
    assert made
    assert all(any(path.is_relative_to(place) for place in allowed) for path in made)


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
