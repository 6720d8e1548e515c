"""Runs the command line inside the test's process, and tells what changed on disk."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from neuron_explainer.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        """What it reported on stdout, which must be one JSON object and nothing else."""
        assert self.code == 0, self.err
        made = orjson.loads(self.out)
        assert isinstance(made, dict)
        return made


Command = Callable[..., Done]


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs `neuron-explainer` with the arguments it is given."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["neuron-explainer", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, printed.out, printed.err)

    return run


def files(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
