"""A package outside the tree adds an explainer and a simulator, and the command line finds them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuron_explainer.workspace import Workspace

PLUGIN = Path(__file__).parent / "plugin"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of site-packages with the plugin, built and installed as any package is."""
    for needed in ("hatchling", "pip"):
        pytest.importorskip(needed, reason=f"building and installing the plugin needs {needed}")
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "site-packages"))
    shutil.copytree(PLUGIN, source, dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--target", target, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def command(installed: Path, small_workspace: Workspace, tmp_path: Path) -> Command:
    """Runs the command line where the plugin is installed, in a copy of the small workspace."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "neuron_explainer", *arguments, "--workspace", str(root)],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def _report(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plugin_explains_simulates_and_is_scored_like_what_is_built_in(command: Command) -> None:
    site = ["--layer", "0", "--neurons", "0-15", "--json"]
    report = _report(command("explain", "--explainer", "loudest-token", *site))
    assert (report["run"], report["explained"]) == ("tiny-loudest-token", 16)
    assert report["failures"] == {}
    report = _report(
        command("simulate", "tiny-loudest-token", "--simulator", "loudest-token", "--json")
    )
    (made,) = report["simulators"]
    assert (made["simulator"], made["simulated"]) == ("loudest-token", 16)
    (row, *_) = _report(command("score", "tiny-loudest-token", "--json"))["rows"]
    assert row["simulator"] == "loudest-token"
    assert row["scores"]["correlation_top_and_random"]["mean"] > 0.05
    shown = _report(command("show", "tiny/0/12", "--json"))
    (mine,) = (made for made in shown["explanations"] if made["run"] == "tiny-loudest-token")
    assert mine["text"].startswith("Loudest on “")


def test_the_options_of_a_plugin_are_known_and_checked(command: Command) -> None:
    explain = ("explain", "--explainer", "loudest-token", "--layer", "0", "--neurons", "3")
    _report(command(*explain, "--option", "phrase=Mostly", "--run", "mostly", "--json"))
    shown = _report(command("show", "tiny/0/3", "--json"))
    (mine,) = (made for made in shown["explanations"] if made["run"] == "mostly")
    assert mine["text"].startswith("Mostly “")
    done = command(*explain, "--option", "frase=Mostly")
    assert done.returncode == 2
    assert "unknown option of loudest-token 'frase'; did you mean 'phrase'?" in done.stderr
    done = command("explain", "--explainer", "loudest-tokn")
    assert "unknown explainer 'loudest-tokn'; did you mean 'loudest-token'?" in done.stderr
