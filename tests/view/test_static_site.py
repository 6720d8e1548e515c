"""A site of files: the same bytes as the server's, in folders that file servers bear."""

from collections import Counter
from pathlib import Path

import orjson
import pytest
from commands import Command, in_process
from fastapi.testclient import TestClient
from made_workspace import RUNS, SITE, SUBJECT, MadeWorkspace

from neuron_explainer import workspace
from neuron_explainer.errors import DataError, RunMismatch
from neuron_explainer.view import static
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.server import PAGE, app
from neuron_explainer.view.static import write_site
from neuron_explainer.workspace import Workspace

KEY = key_of(SUBJECT, SITE)
SOME = range(0, 1200, 97)


@pytest.fixture(scope="module")
def site(made: MadeWorkspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static") / "site"
    write_site(Resources(Workspace(made.root), neurons=SOME), folder)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_process(monkeypatch, capsys)


def test_every_file_is_what_the_server_gives(made: MadeWorkspace, site: Path) -> None:
    source = Resources(Workspace(made.root), neurons=SOME)
    client = TestClient(app(source), base_url="http://127.0.0.1")
    files = sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())
    wanted = {f"api/{path}" for path, _ in source.paths(KEY)}
    assert wanted <= set(files)
    for file in files:
        content = (site / file).read_bytes()
        if file in {".nojekyll", "site.json"}:
            continue
        reply = client.get(f"/{file}")
        assert reply.status_code == 200, file
        if file == "api/workspace.json":
            assert orjson.loads(content) == reply.json() | {"mode": "static"}
        else:
            assert reply.content == content, file
    pages = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}
    assert set(files) == wanted | pages | {".nojekyll", "site.json", "api/workspace.json"}


def test_the_same_workspace_gives_the_same_site(
    made: MadeWorkspace, site: Path, tmp_path: Path
) -> None:
    write_site(Resources(Workspace(made.root), neurons=SOME), tmp_path / "again")
    first = {path.relative_to(site): path for path in site.rglob("*") if path.is_file()}
    for name, path in first.items():
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes()


def test_the_index_is_small_and_no_folder_is_full(made: MadeWorkspace) -> None:
    source = Resources(Workspace(made.root))
    folders: Counter[str] = Counter()
    size = 0
    for path, make in source.paths(KEY):
        folders[path.rpartition("/")[0]] += 1
        if "/neurons/" not in path:
            size += len(make())
    assert size <= 3_000 * made.neurons
    assert max(folders.values()) <= 10_000
    assert folders[f"{KEY}/neurons/0"] == 1000
    assert folders[f"{KEY}/neurons/1"] == 200


def test_a_site_replaces_a_site_and_nothing_else(made: MadeWorkspace, tmp_path: Path) -> None:
    source = Resources(Workspace(made.root), neurons=range(3))
    place = tmp_path / "site"
    place.mkdir()
    write_site(source, place)  # an empty folder
    write_site(Resources(Workspace(made.root), neurons=range(2)), place)
    assert not (place / "api" / KEY / "neurons" / "0" / "2.json").exists()
    (place / "CNAME").write_text("example.org")
    with pytest.raises(RunMismatch, match="CNAME"):
        write_site(source, place)
    assert (place / "CNAME").read_text() == "example.org"
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "index.html").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for other in (foreign, tmp_path / "file"):
        with pytest.raises(RunMismatch, match="is not from publish --site"):
            write_site(source, other)
    assert (foreign / "index.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine", "site"]


def test_a_site_is_there_whole_or_not_at_all(
    made: MadeWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Resources(Workspace(made.root), neurons=range(3))
    write_site(source, tmp_path / "site")
    before = (tmp_path / "site" / "site.json").read_bytes()

    def killed(staging: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(static, "_move", killed)
    for place in ("site", "new"):
        with pytest.raises(KeyboardInterrupt):
            write_site(Resources(Workspace(made.root), neurons=range(5)), tmp_path / place)
    assert (tmp_path / "site" / "site.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_what_cannot_be_read_stops_a_site_with_what_mends_it(tmp_path: Path) -> None:
    here = MadeWorkspace(tmp_path / "here", 20, runs=RUNS[:1], simulated=False).write()
    (here.data / SUBJECT / SITE / "records-00000-00019.parquet").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"cannot make api/.*neuron-explainer collect"):
        write_site(Resources(here), tmp_path / "site")
    assert not (tmp_path / "site").exists()
    with pytest.raises(DataError, match="nothing to show"):
        write_site(Resources(workspace.init(tmp_path / "empty")), tmp_path / "site")


def test_publish_writes_the_pages_of_a_run_or_of_all(
    made: MadeWorkspace, tmp_path: Path, run: Command
) -> None:
    here = ("--workspace", made.root)
    planned = run(
        "publish", "--site", tmp_path / "all", "--neurons", "0-4", "--dry-run", *here, "--json"
    )
    report = run("publish", "--site", tmp_path / "all", "--neurons", "0-4", *here, "--json").json()
    assert report["files"] == planned.json()["files"] + 1  # type: ignore[operator]
    listed = orjson.loads((tmp_path / "all" / "api" / "workspace.json").read_bytes())
    assert sorted(listed["runs"]) == list(RUNS)
    assert listed["sites"][KEY]["neurons"] == 5
    done = run("publish", RUNS[0], "--site", tmp_path / "one", "--neurons", "0-4", *here)
    assert done.code == 0
    assert "http.server" in done.out
    listed = orjson.loads((tmp_path / "one" / "api" / "workspace.json").read_bytes())
    assert list(listed["runs"]) == [RUNS[0]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("publish",), "publish which run?"),
        (("publish", RUNS[0], "--neurons", "3"), "--neurons is for --site DIR"),
        (("publish", RUNS[0], "--site", "x", "--hub", "me/it"), "--hub is of a dataset"),
        (("publish", "nobody", "--site", "x"), "there is no run 'nobody'"),
        (("publish", "--site", "x", "--neurons", "9999"), "there is no neuron 9999"),
    ],
)
def test_publish_says_what_does_not_go_together(
    made: MadeWorkspace, run: Command, arguments: tuple[str, ...], said: str
) -> None:
    done = run(*arguments, "--workspace", made.root)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert said in done.err
    assert not Path("x").exists()
