"""What was dropped from prompts is counted in the manifest and said on the command line."""

import shutil
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from commands import in_process

from neuron_explainer.llm.base import Capabilities
from neuron_explainer.llm.scripted import Scripted
from neuron_explainer.runs import Run
from neuron_explainer.workspace import Workspace

ARGUMENTS = ("--layer", "0", "--explainer", "highlight")
SITE = "blocks.0.mlp.hook_post"


def test_dropped_examples_are_counted_over_all_invocations_and_said(
    small_workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(small_workspace.root / "data", tmp_path / "data")
    for name in ("explanations", "scoring"):
        (tmp_path / name).mkdir()
    rules = [
        {"pattern": "responds to", "reply": '{"activations": []}'},
        {"pattern": "", "reply": "rivers and lakes"},
    ]
    script = tmp_path / "script.json"
    script.write_bytes(orjson.dumps(rules))
    able = Capabilities(chat=True, completions=True, json_schema=True)
    context: list[int | None] = [None]

    async def capabilities(_: Scripted) -> Capabilities:
        return replace(able, context=context[0])

    monkeypatch.setattr(Scripted, "capabilities", capabilities)
    command = in_process(monkeypatch, capsys)
    more = ("--llm", f"scripted/{script}", "--workspace", tmp_path)
    run = Run(Workspace(tmp_path), "tiny-highlight")
    explain = ("explain", *ARGUMENTS, *more, "--neurons")
    assert "dropped" not in command(*explain, "0-3").out
    context[0] = 1200
    done = command(*explain, "4-9")
    fits = [row for row in run.folder.manifest()["fits"] if row["what"] == "examples"]
    assert sum(row["neurons"] for row in fits) == 10
    assert fits[-1] == {"what": "examples", "shown": 4, "dropped": 0, "neurons": 4}
    assert "few-shot examples dropped to fit the context of 1200: 4 → " in done.out
    again = run.folder.manifest()
    command(*explain, "0-9")
    assert run.folder.manifest()["fits"] == again["fits"]
    simulated = command(
        "simulate", run.name, "--simulator", "numbers", "--split", "calibration", *more
    )
    rows = run.simulations("numbers-calibration").manifest()["fits"]
    assert sum(row["neurons"] for row in rows) == 10
    assert all(row["dropped"] for row in rows)
    assert "few-shot examples dropped to fit the context of 1200: 5 → " in simulated.out
