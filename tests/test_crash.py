"""kill -9 at any point of the pipeline, then the same command again: nothing lost, nothing twice.

Run with pytest; the runs themselves are forks of crash_child.py.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from example_corpus import first_documents

from neuron_explainer import cli, workspace
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace

_KILLS = 20
_DOCUMENTS = 24
_RUN = """
[subject]
model = "{tiny}/model"
name = "tiny"

[[subject.sae]]
site = "blocks.2.hook_resid_post"
path = "{tiny}/sae/blocks.2.hook_resid_post.pt"
name = "topk"

[collect]
corpus = "corpus.jsonl"
sites = ["blocks.0.hook_resid_pre"]
top = 8
random = 6
per_band = 1
whole_table = true
context_table = true

[simulate]
simulators = ["token-lookup", "shuffled"]
"""


@dataclass(frozen=True)
class Runs:
    """Runs of the pipeline in processes of their own."""

    orders: IO[str]
    answers: IO[str]
    settings: Path

    def __call__(self, where: Workspace, kill_at: int = 0) -> dict[str, int]:
        order = {"workspace": str(where.root), "settings": str(self.settings), "kill_at": kill_at}
        self.orders.write(json.dumps(order) + "\n")
        self.orders.flush()
        answer: dict[str, int] = json.loads(self.answers.readline())
        return answer


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The process that forks them."""
    folder = tmp_path_factory.mktemp("crash")
    (folder / "corpus.jsonl").write_bytes(first_documents(tiny, _DOCUMENTS))
    settings = folder / "run.toml"
    settings.write_text(_RUN.format(tiny=tiny), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("crash_child.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        yield Runs(child.stdin, child.stdout, settings)
        child.stdin.close()
        assert child.wait() == 0


@dataclass(frozen=True)
class Undisturbed:
    """What a run that nobody kills comes to."""

    where: Workspace
    files: dict[str, bytes]
    events: int

    def copy(self, to: Path) -> Workspace:
        return Workspace(Path(shutil.copytree(self.where.root, to / "copy")))


def _files(root: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def undisturbed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    where = workspace.init(tmp_path_factory.mktemp("undisturbed"))
    answer = runs(where)
    assert answer["code"] == 0
    return Undisturbed(where, _files(where.root), answer["events"])


def _manifests(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in root.rglob("manifest.json"):
        yield path.parent, orjson.loads(path.read_bytes())


def _done(root: Path) -> dict[Path, tuple[int, int]]:
    """Every file that a manifest lists as done, with what tells whether it was written again."""
    found = {}
    for folder, manifest in _manifests(root):
        files = [folder / name for name in manifest["shards"]]
        if folder.name == "corpus":  # done as a whole or not at all
            files = files if manifest["complete"] else []
        for file in files:
            found[file] = (file.stat().st_ino, file.stat().st_mtime_ns)
    return found


def _kill_point(place: int, events: int) -> int:
    """One in each of twenty equal parts of the run, so that no stage is left out."""
    part = events / _KILLS
    return 1 + int((place + np.random.default_rng(place).random()) * part)


@pytest.mark.parametrize("place", range(_KILLS))
def test_a_kill_at_any_point_is_made_good_by_the_same_command(
    runs: Runs, undisturbed: Undisturbed, tmp_path: Path, place: int
) -> None:
    where = workspace.init(tmp_path)
    killed = runs(where, _kill_point(place, undisturbed.events))
    assert killed["signal"] == signal.SIGKILL
    done = _done(where.root)
    for folder, manifest in _manifests(where.root):  # whole shards or none
        for name in manifest["shards"]:
            assert Folder(folder).verified(name).is_file()
    again = runs(where)
    assert again["code"] == 0
    assert again["events"] < undisturbed.events or not done
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in done} == done
    files = _files(where.root)
    assert not [name for name in files if name.endswith(".tmp")]
    assert files.keys() == undisturbed.files.keys()
    assert [name for name in files if files[name] != undisturbed.files[name]] == []


def test_a_run_that_is_killed_again_and_again_comes_to_the_same(
    runs: Runs, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    where = workspace.init(tmp_path)
    for _ in range(6):
        assert runs(where, kill_at=undisturbed.events // 5)["signal"] in {0, signal.SIGKILL}
    assert runs(where)["code"] == 0
    assert _files(where.root) == undisturbed.files


def test_a_finished_run_is_not_written_again(
    runs: Runs, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    where = undisturbed.copy(tmp_path)
    done = _done(where.root)
    assert runs(where)["code"] == 0
    assert _done(where.root) == done
    assert _files(where.root) == undisturbed.files


# holds the folder for writing, and writes to it when it is told to
_HOLDER = """
import sys
from pathlib import Path
import pyarrow as pa
from neuron_explainer.store import Folder, Shard, locked

folder = Folder(Path(sys.argv[1]))
with locked(folder.path):
    folder.open({"made by": "the first"})
    print("held", flush=True)
    sys.stdin.readline()
    table = pa.table({"neuron": pa.array([0, 1], pa.int32())})
    folder.write({Shard(0, 2).file("explanations"): table})
    folder.update({"complete": True})
"""


def _command(stage: str, root: Path, corpus: Path, tiny: Path) -> tuple[Path, list[str]]:
    """The folder that a stage writes to, and its command line."""
    if stage == "collect":
        subject = ["--subject", str(tiny / "model"), "--name", "tiny", "--corpus", str(corpus)]
        return root / "data" / "tiny", ["collect", *subject, "--layer", "1"]
    if stage == "explain":
        options = ["--explainer", "token-lookup", "--run", "shared"]
        return root / "explanations" / "shared", ["explain", *options]
    return root / "scoring" / "tiny-token-lookup" / "constant", [
        "simulate",
        "tiny-token-lookup",
        "--simulator",
        "constant",
    ]


@pytest.mark.parametrize("stage", ["collect", "explain", "simulate"])
def test_the_second_of_two_writers_is_refused_and_the_first_is_unharmed(
    runs: Runs,
    undisturbed: Undisturbed,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    where = undisturbed.copy(tmp_path)
    folder, command = _command(stage, where.root, runs.settings.with_name("corpus.jsonl"), tiny)
    pipe = subprocess.PIPE
    holding = [sys.executable, "-c", _HOLDER, str(folder)]
    with subprocess.Popen(holding, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = _files(where.root)
        monkeypatch.setattr(
            sys, "argv", ["neuron-explainer", *command, "--workspace", str(where.root)]
        )
        with pytest.raises(SystemExit) as raised:
            cli.main()
        assert raised.value.code == 2
        assert f"{folder} is being written by another process" in capsys.readouterr().err
        assert _files(where.root) == before
        holder.stdin.write("go on\n")
        holder.stdin.close()
        assert holder.wait() == 0
    held = Folder(folder)
    assert held.complete
    assert held.read_all("explanations").equals(pa.table({"neuron": pa.array([0, 1], pa.int32())}))
