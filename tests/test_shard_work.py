"""Finished shards made anew: failures asked again, tables replaced together, what follows."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from commands import Command, files, in_process

from neuron_explainer.runs import Run
from neuron_explainer.shard_work import merged, rewrite, settle, to_retry
from neuron_explainer.store import Folder, Shard, replacement_of
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
SHARD = Shard(0, 4)
MADE, FAILED, SCORES = (f"{SITE}/{SHARD.file(name)}" for name in ("made", "failures", "scores"))


def _made(*neurons: int) -> pa.Table:
    texts = pa.array([f"of {neuron}" for neuron in neurons], pa.string())
    return pa.table({"neuron": pa.array(neurons, pa.int32()), "text": texts})


def _failed(**causes: int) -> pa.Table:
    rows = [{"neuron": neuron, "cause": cause} for cause, neuron in causes.items()]
    return pa.Table.from_pylist(rows, pa.schema([("neuron", pa.int32()), ("cause", pa.string())]))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A shard of four neurons of which two failed, and scores made from it."""
    made = Folder(tmp_path / "run")
    made.open({"a": 1})
    made.write({MADE: _made(0, 2), FAILED: _failed(timeout=1, never=3)})
    made.write({SCORES: _made(0)})
    return made


def test_neurons_that_failed_for_a_cause_are_found_among_those_chosen(folder: Folder) -> None:
    (work,) = to_retry(folder, SITE, ["timeout", "budget"])
    assert (work.shard, work.only, work.size) == (SHARD, frozenset([1]), 1)
    assert list(to_retry(folder, SITE, ["budget"])) == []
    assert list(to_retry(folder, SITE, ["timeout"], {0, 3})) == []
    assert list(to_retry(folder, SITE, [])) == []


def test_rows_of_the_others_are_kept_in_their_places() -> None:
    old = _made(0, 1, 1, 3)
    assert merged(old, _made(2), [2]).equals(_made(0, 1, 1, 2, 3))
    assert merged(old, _made(1), [1]).equals(_made(0, 1, 3))
    assert merged(old, _made(), [3]).equals(_made(0, 1, 1))


def test_replaced_tables_are_read_and_what_was_made_from_them_is_gone(folder: Folder) -> None:
    folder.read_neuron(f"{SITE}/made", 0)
    rewrite(folder, {MADE: _made(0, 1, 2), FAILED: _failed(never=3)})
    assert folder.read(MADE).equals(_made(0, 1, 2))
    assert folder.read_neuron(f"{SITE}/made", 1)["text"].to_pylist() == ["of 1"]
    assert not folder.has(SCORES)
    assert sorted(files(folder.path)) == [FAILED, MADE, "manifest.json"]
    assert "moving" not in folder.manifest()


def test_tables_that_have_not_changed_are_left_alone(folder: Folder) -> None:
    before = (folder.path / MADE).stat().st_mtime_ns
    rewrite(folder, {MADE: _made(0, 2), FAILED: _failed(timeout=1, never=3)})
    assert (folder.path / MADE).stat().st_mtime_ns == before
    assert folder.has(SCORES)


# forks before each event that changes a file: `rewrite` with a kill there, in a copy of the folder
_CHILD = """
import os, shutil, signal, sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq
from neuron_explainer.shard_work import rewrite
from neuron_explainer.store import Folder

root, made, failed = Path(sys.argv[1]), *sys.argv[2:]

def child(kill_at):
    folder = Folder(root.with_name(f"killed-{kill_at}"))
    shutil.copytree(root, folder.path)
    tables = {made: pa.table({"neuron": pa.array([0, 1, 2], pa.int32()), "text": ["a", "b", "c"]}),
              failed: pa.table({"neuron": pa.array([3], pa.int32()), "cause": ["never"]})}
    count = 0
    def hook(event, arguments):
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if event in ("os.rename", "os.remove") or writes:
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    rewrite(folder, tables)
    os._exit(0)

kill_at = 0
status = 1
while status:
    kill_at += 1
    process = os.fork()
    if not process:
        child(kill_at)
    status = os.waitpid(process, 0)[1]
print(kill_at)
"""


def test_after_a_kill_anywhere_all_tables_are_the_old_ones_or_the_new(folder: Folder) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHILD, str(folder.path), MADE, FAILED],
        check=True,
        capture_output=True,
        text=True,
    )
    events = int(done.stdout)
    assert events > 8
    states = []
    for kill in range(1, events):
        killed = Folder(folder.path.with_name(f"killed-{kill}"))
        for settled in (False, True):
            new = killed.read(MADE)["neuron"].to_pylist() == [0, 1, 2]
            assert killed.read(FAILED)["neuron"].to_pylist() == ([3] if new else [1, 3])
            assert killed.has(SCORES) != new
            assert killed.verified(MADE).is_file()
            assert len(killed.read_neuron(f"{SITE}/made", 1)) == new
            if not settled:
                states.append(new)
                settle(killed)
        assert "moving" not in killed.manifest()
        assert not replacement_of(killed.path / MADE).exists()
    assert states == sorted(states)  # old until the manifest says otherwise
    assert set(states) == {False, True}


# ── on the command line ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture
def here(small_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace as the current directory, with a scripted model in it."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    monkeypatch.chdir(root)
    rules = [
        {"pattern": "<start>", "reply": '{"activations": [{"index": 0, "activation": 3}]}'},
        {"pattern": "", "reply": "words about the weather"},
    ]
    Path("model.json").write_bytes(orjson.dumps(rules))
    return Workspace(root)


MODEL = ("--llm", "scripted/model.json", "--concurrency", 1)
EXPLAIN = ("explain", "--layer", 0, "--neurons", "0-11", "--explainer", "token-space", *MODEL)
SIMULATE = ("simulate", "capped", "--simulator", "numbers", "--option", "logprobs=false", *MODEL)


def tables(folder: Path) -> dict[str, bytes]:
    """The shards of a run."""
    return {name: content for name, content in files(folder).items() if name.endswith("parquet")}


def test_failed_neurons_are_asked_again_down_to_their_scores(
    command: Command, here: Workspace
) -> None:
    capped = command(*EXPLAIN, "--run", "capped", "--max-tokens", 2000)
    assert capped.code == 1
    assert "cause budget" in capped.err
    assert "ask them again: the same command with --retry-failures" in capped.err
    run = Run(here, "capped")
    (file,) = [file for _, file in run.folder.shards(f"{SITE}/explanations")]
    some = run.explanations(SITE, file)
    assert 0 < len(some) < 12
    assert command(*SIMULATE).code == 0
    assert command("score", "capped").code == 0
    # nothing is asked again unasked, nor for another cause, nor for other neurons
    for nothing in ([], ["--retry-cause", "timeout"]):
        assert "0 neurons explained" in command(*EXPLAIN, "--run", "capped", *nothing).out
    planned: Any = command(*EXPLAIN, "--run", "capped", "--retry-failures", "--dry-run", "--json")
    assert planned.json()["plans"][0][SITE] == 12 - len(some)

    again = command(*EXPLAIN, "--run", "capped", "--retry-failures")
    assert again.code == 0, again.err
    assert f"{12 - len(some)} neurons explained now" in again.out
    assert command(*EXPLAIN, "--run", "steady").code == 0
    assert tables(run.folder.path) == tables(here.explanations / "steady")

    refused = command("score", "capped")
    assert refused.code == 2
    assert "repeat neuron-explainer simulate capped --simulator numbers" in refused.err
    assert "12 neurons simulated now" in command(*SIMULATE).out
    assert "0 neurons simulated now" in command(*SIMULATE).out
    rows: Any = command("score", "capped", "--json").json()["rows"]
    assert rows[0]["scores"]["correlation_random_only"]["n"] <= 12
    assert command(*("simulate", "steady", *SIMULATE[2:])).code == 0
    assert command("score", "steady").code == 0
    assert tables(here.scoring / "capped") == tables(here.scoring / "steady")


def test_a_neuron_takes_the_same_whether_it_is_paid_for_or_in_the_cache(
    command: Command, here: Workspace
) -> None:
    assert command(*EXPLAIN, "--run", "capped").code == 0
    first = Run(here, "capped").folder.manifest()["spending"]
    assert first["neurons"] == 12
    assert first["used"]["requests"] == first["requests"] == 12
    assert first["per_neuron"]["cost"] == 0.0
    assert command(*EXPLAIN, "--run", "cached").code == 0
    again = Run(here, "cached").folder.manifest()["spending"]
    assert (again["requests"], again["cache_hits"]) == (0, 12)
    assert again["per_neuron"] == first["per_neuron"]
    assert command(*SIMULATE).code == 0
    assert command("score", "capped").code == 0
    report: Any = command("score", "capped", "--json").json()
    assert set(report["per_neuron"]) == {"explainer", "numbers"}
    tokens = first["per_neuron"]["tokens"]
    assert f"explainer: {tokens:,.0f} tokens, $0.000000 a neuron" in command("score", "capped").out
    # the rest of a run is forecast from what is done of it
    more = ("explain", "--layer", 0, *EXPLAIN[5:], "--run", "capped", "--neurons", "0-23")
    plans: Any = command(*more, "--dry-run", "--json").json()["plans"]
    forecast = plans[0]["forecast"]
    assert forecast["measured"]
    assert forecast["requests"] == 12
    read, written = forecast["prompt_tokens"], forecast["completion_tokens"]
    assert read + written == pytest.approx(12 * tokens, abs=1)
    assert "about " in command(*more, "--dry-run").out


def test_failed_simulations_are_asked_again_and_the_others_kept(
    command: Command, here: Workspace
) -> None:
    assert command(*EXPLAIN, "--run", "capped").code == 0
    capped = command(*SIMULATE, "--max-tokens", 40_000)
    assert capped.code == 1
    folder = Run(here, "capped").simulations("numbers")
    held = set(folder.read_all(f"{SITE}/simulations", ["neuron"])["neuron"].to_pylist())
    assert 0 < len(held) < 12
    again = command(*SIMULATE, "--retry-failures")
    assert again.code == 0, again.err
    assert f"{12 - len(held)} neurons simulated now" in again.out
    assert command(*SIMULATE, "--as", "steady").code == 0
    assert tables(folder.path) == tables(here.scoring / "capped" / "steady")
