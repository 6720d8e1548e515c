"""Writes docs/command-line.md from the commands' own --help. Run it after changing a command."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import typer

from neuron_explainer.cli import app

FILE = Path(__file__).resolve().parents[1] / "docs" / "command-line.md"
WIDTH = 88
HEAD = """\
# Command line

What `--help` says of every command; `scripts/write_command_line_docs.py` writes this page and a
test compares them.

Each command ends with exit code 0 when it is done, 1 when it has finished but some neurons have no
result (they are listed by cause), and 2 when it cannot run: then stderr says why, and what is on
disk is as it was. Results go to stdout, progress and notes to stderr. Whatever a killed command had
finished is kept, and the same command goes on from there.
"""


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group, as one types them, in the order of the help."""
    yield ()
    yield from _below((), typer.main.get_command(app))


def _below(path: tuple[str, ...], group: Any) -> Iterator[tuple[str, ...]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*path, name)
        yield from _below((*path, name), command)


def help_of(path: tuple[str, ...]) -> str:
    """What `neuron-explainer … --help` prints on a terminal of `WIDTH` columns."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        app(
            [*path, "--help"],
            prog_name="neuron-explainer",
            standalone_mode=False,
            terminal_width=WIDTH,
        )
    return printed.getvalue().strip()


def page() -> str:
    """The whole page."""
    sections = [
        f"## {' '.join(['neuron-explainer', *path])}\n\n```\n{help_of(path)}\n```\n"
        for path in commands()
    ]
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    FILE.write_text(page(), "utf-8")
