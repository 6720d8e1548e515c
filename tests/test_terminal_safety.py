"""Whatever a corpus or an imported file holds, a terminal is only ever told colours."""

import re
import shutil
import unicodedata
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from commands import Command, in_process

from neuron_explainer.record_set import RecordSet
from neuron_explainer.store import Folder
from neuron_explainer.tokens import unescape
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
HOSTILE = [
    b"\x1b[2J",
    b"\x1b]0;title\x07",
    b"\x1b]8;;http://example.org\x1b\\link",
    b"a\rb",
    b"\b\b",
    b"\x07",
    b"\x9b31m",
    b"\xc2\x9b31m",
    b"\xff\xfe",
    b"\xe2\x82",
    "\u202eevil\u202c".encode(),
    "\u2066x\u2069".encode(),
    "\u200b\ufeff".encode(),
    "\u2028".encode(),
    b"\t",
    b"\n",
    b"\v\f\x00\x7f",
    b"[bold]red[/bold]",
    b":smile:",
    "e\u0301".encode(),
]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def hostile(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The small workspace in which every second token of the vocabulary is a hostile one."""
    root = tmp_path_factory.mktemp("hostile") / "workspace"
    shutil.copytree(small_workspace.root, root)
    folder = Folder(root / "data" / "tiny" / "corpus")
    table = folder.read("vocabulary.parquet")
    names = table["bytes"].to_pylist()
    for token in range(0, len(names), 2):
        names[token] = HOSTILE[token // 2 % len(HOSTILE)]
    place = table.schema.get_field_index("bytes")
    table = table.set_column(place, table.schema.field(place), pa.array(names, pa.binary()))
    folder.write({"vocabulary.parquet": table})
    return Workspace(root)


def _assert_harmless(printed: str) -> None:
    for character in COLOUR.sub("", printed):
        assert character == "\n" or unicodedata.category(character)[0] != "C", repr(character)
        assert character not in "\u2028\u2029"


@pytest.mark.parametrize("colour", [False, True], ids=["plain", "colour"])
def test_hostile_tokens_reach_the_terminal_as_text(
    command: Command, hostile: Workspace, monkeypatch: pytest.MonkeyPatch, colour: bool
) -> None:
    if colour:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    here = ("--workspace", hostile.root)
    explain = ("explain", "--layer", 0, "--neurons", "0-19", "--run", "fresh")
    assert command(*explain, *here).code == 0
    everything = ""
    for neuron in range(20):
        done = command("show", f"tiny/0/{neuron}", "--random", 20, "--quantile", *here)
        assert (done.code, done.err) == (0, "")
        assert ("\x1b" in done.out) == colour
        _assert_harmless(done.out)
        everything += done.out
    for expected in (
        "\\x1b[2J",
        "\\x07",
        "\\xff\\xfe",
        "\\u202eevil",
        "⇥",
        "⏎",
        "[bold]red[/bold]",
    ):
        assert expected in COLOUR.sub("", everything).replace("\n", "")
    assert ":smile:" in everything


def test_hostile_tokens_in_json_are_escaped_and_come_back(
    command: Command, hostile: Workspace
) -> None:
    done = command("show", "tiny/0/1", "--json", "--workspace", hostile.root)
    assert done.code == 0
    assert not {character for character in done.out if character < " "} - {"\n"}
    tokens = {
        unescape(token)
        for record in orjson.loads(done.out)["records"]
        for token in record["tokens"]
    }
    assert set(HOSTILE) <= tokens
    effects = [
        (unescape(row["token"]), row["effect"]) for row in orjson.loads(done.out)["promoted"]
    ]
    assert tuple(effects) == RecordSet(hostile.data, "tiny", SITE).neuron(1).promoted


def test_an_imported_explanation_cannot_control_the_terminal(
    command: Command, small_workspace: Workspace, tmp_path: Path
) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root, root)
    folder = Folder(root / "explanations" / "tiny-token-lookup")
    ((_, file),) = folder.shards(f"{SITE}/explanations")
    table = folder.read(file)
    texts = ["harmless\x1b[2J\x1b]0;title\x07 \u202etxet\r\nmore"] * len(table)
    place = table.schema.get_field_index("text")
    folder.write({file: table.set_column(place, table.schema.field(place), pa.array(texts))})
    done = command("show", "tiny/0/1", "--workspace", root)
    assert done.code == 0
    assert "harmless\\x1b[2J" in done.out
    _assert_harmless(done.out)
