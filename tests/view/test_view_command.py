"""`neuron-explainer view` from its first line to Ctrl-C, as a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import orjson
import pytest
from commands import Command, in_process
from made_workspace import MadeWorkspace

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_process(monkeypatch, capsys)


def test_view_prints_its_url_answers_and_stops_in_one_line(made: MadeWorkspace) -> None:
    command = [sys.executable, "-m", "neuron_explainer", "view", "--no-open", "--json"]
    command += [
        "--workspace",
        str(made.root),
        "--host",
        "127.0.0.1",
        "--token",
        "a-token-of-length",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = httpx2.URL(orjson.loads(process.stdout.readline())["url"])
        assert url.host == "127.0.0.1"
        assert httpx2.get(url.join("/api/workspace.json")).status_code == 401
        with httpx2.Client() as client:
            assert client.get(url).status_code == 200
            listed = client.get(url.join("/api/workspace.json"))
            page = client.get(url.join("/"))
        assert listed.json()["mode"] == "served"
        assert "server" not in page.headers
        assert b"js/app.js" in page.content
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest == b""
    assert said == b"\nstopped\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--token", "short"), "--token takes at least 16"),
        (("--host", "203.0.113.7"), "cannot listen at --host 203.0.113.7"),
        (("--port", "99999"), "'--port'"),
    ],
)
def test_view_says_in_one_line_what_it_cannot_do(
    made: MadeWorkspace, run: Command, arguments: tuple[str, ...], said: str
) -> None:
    done = run("view", "--no-open", "--workspace", made.root, *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_view_wants_a_workspace(tmp_path: Path, run: Command) -> None:
    done = run("view", "--no-open", "--workspace", tmp_path)
    assert done.code == 2
    assert "is no workspace" in done.err
