"""The commands that the pages show are commands that there are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from neuron_explainer.cli import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("llm.md", "compare-explainers.md")  # their blocks marked sh are to be run as they stand


def _commands(text: str) -> Iterator[str]:
    """Every `neuron-explainer …` line of the blocks marked sh, continued lines joined."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("neuron-explainer "):
                yield line


def _parse(line: str) -> None:
    """What the command line makes of it, without running it. Raises click's usage errors."""
    command: Any = typer.main.get_command(app)
    arguments = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        name = arguments.pop(0)
        assert name in command.commands, f"no command {name!r}: {line}"
        command = command.commands[name]
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one_that_the_command_line_takes(page: str) -> None:
    found = list(_commands((DOCS / page).read_text("utf-8")))
    assert len(found) > 10
    for line in found:
        _parse(line)


@pytest.mark.parametrize("line", ["neuron-explainer score", "neuron-explainer explain --no-such 1"])
def test_a_command_that_is_not_taken_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)missing (argument|parameter)|no such option"):
        _parse(line)


def test_a_command_over_two_lines_is_one_command() -> None:
    assert list(_commands("```sh\nneuron-explainer score \\\n  a\n```\n```\nb\n```\n")) == [
        "neuron-explainer score    a"
    ]
