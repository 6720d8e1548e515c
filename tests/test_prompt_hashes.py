"""A run's manifest tells the templates it was made with, and the run goes on with no others."""

import hashlib
import shutil
from pathlib import Path

import orjson
import pytest
from commands import Command, in_process

from neuron_explainer import registry, workspace
from neuron_explainer.prompt_hashes import note_prompts
from neuron_explainer.registry import Table
from neuron_explainer.runs import Run
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace

SHIPPED = workspace.shipped() / "prompts"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_process(monkeypatch, capsys)


@pytest.fixture
def here(small_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of the test's own, with records and no template."""
    shutil.copytree(small_workspace.root / "data", tmp_path / "data")
    for name in ("explanations", "scoring", "prompts"):
        (tmp_path / name).mkdir()
    return Workspace(tmp_path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_explain_and_simulate_record_their_prompts_and_refuse_others(
    here: Workspace, command: Command
) -> None:
    script = here.root / "script.json"
    script.write_bytes(orjson.dumps([{"pattern": "", "reply": "rivers and lakes"}]))
    own = here.prompts / "highlight" / "system.txt"
    own.parent.mkdir()
    own.write_text((SHIPPED / "highlight" / "system.txt").read_text() + "Mind the gap.\n")
    model = ("--llm", f"scripted/{script}", "--workspace", here.root)
    explain = ("explain", "--layer", "0", "--explainer", "highlight", *model, "--neurons")
    assert command(*explain, "0-3").code == 0
    run = Run(here, "tiny-highlight")
    found = run.folder.manifest()["prompts"]
    assert found["highlight/system.txt"] == _sha256(own)
    assert found["highlight/records.txt"] == _sha256(SHIPPED / "highlight" / "records.txt")
    assert sum(name.startswith("few-shot/") for name in found) == 5
    simulate = ("simulate", run.name, "--simulator", "numbers", *model)
    assert command(*simulate).code == 1  # a reply that holds no numbers is a failure
    simulated = run.simulations("numbers").manifest()["prompts"]
    assert "simulate-numbers/neuron.txt" in simulated
    before = run.folder.manifest()
    own.write_text("Another one.\n")
    refused = command(*explain, "4-9")
    assert refused.code == 2
    assert "made with another prompts/highlight/system.txt" in refused.err
    assert run.folder.manifest() == before
    (here.prompts / "few-shot").mkdir()
    shutil.copy(SHIPPED / "few-shot" / "5-clock-times.toml", here.prompts / "few-shot")
    assert "another prompts/few-shot/1-quiet-speech.toml" in command(*simulate).err


def test_a_run_without_hashes_goes_on_without(here: Workspace, command: Command) -> None:
    explain = ("explain", "--layer", "0", "--explainer", "token-lookup-context")
    where = ("--workspace", here.root, "--neurons")
    assert command(*explain, *where, "0-3").code == 0
    folder = Run(here, "tiny-token-lookup-context").folder
    assert folder.manifest()["prompts"] == {
        "token-lookup.txt": _sha256(SHIPPED / "token-lookup.txt")
    }
    folder.update({"prompts": None})
    assert command(*explain, *where, "4-9").code == 0
    assert "prompts" not in folder.manifest()


@pytest.mark.parametrize(
    "name", ["all-at-once", "one-at-a-time", "numbers", "detection", "fuzzing", "pair-detection"]
)
def test_every_simulator_that_asks_has_its_templates_recorded(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path)
    folder.open({})
    made = registry.make("simulators", name, {"few_shot": 0}, llm=object())
    note_prompts(folder, made, f"simulate-{name}")
    names = {f"simulate-{name}/{path.name}" for path in SHIPPED.glob(f"simulate-{name}/*.txt")}
    assert names
    assert set(folder.manifest()["prompts"]) == names


def test_what_asks_about_heads_has_the_example_heads_recorded_and_no_neurons(
    tmp_path: Path,
) -> None:
    tables: tuple[tuple[Table, str, str], ...] = (
        ("explainers", "attention-head", "attention-head"),
        ("simulators", "pair-detection", "simulate-pair-detection"),
    )
    for table, name, templates in tables:
        folder = Folder(tmp_path / name)
        folder.open({})
        note_prompts(folder, registry.make(table, name, {}, llm=object()), templates)
        found = folder.manifest()["prompts"]
        assert "attention-head/examples.toml" in found
        assert not any(file.startswith("few-shot/") for file in found)
