"""The folder of a training: what may be there before, what lies there after."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from neuron_explainer import __version__
from neuron_explainer.errors import DataError, RunMismatch, WorkspaceError
from neuron_explainer.store import replace_file
from neuron_explainer.subjects.sparse_files import TRAINING

WORK = ".training"  # tokens and the saved state, while it lasts


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with one autoencoder, in format `format`."""

    folder: Path
    format: str

    @property
    def autoencoder(self) -> Path:
        """What `--sae` takes: the folder, or OpenAI's file in it, which has the folder's name."""
        return self.folder / f"{self.folder.resolve().name}.pt" if self._is_file else self.folder

    @property
    def work(self) -> Path:
        """Where an unfinished training keeps what it needs."""
        return self.folder / WORK

    @property
    def _is_file(self) -> bool:
        return self.format == "openai"

    def check(self) -> None:
        """Raises WorkspaceError when something else is there that must not be written over."""
        if self.folder.exists() and not self.folder.is_dir():
            raise WorkspaceError(f"{self.folder} is a file: --to takes a folder")
        there = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if there - {".lock"} and not there & {TRAINING, WORK}:
            raise WorkspaceError(
                f"{self.folder} holds files of something else: --to takes a new folder"
            )

    def finished(self, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The report of a training with `config` that has ended here.

        Raises RunMismatch when it had another configuration, DataError when it is damaged.
        """
        path = self.folder / TRAINING
        if not path.is_file():
            return None
        try:
            report = orjson.loads(path.read_bytes())
            old = report["config"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged; delete {self.folder} and train again") from error
        new = orjson.loads(orjson.dumps(config))
        for key in sorted(old | new):
            if old.get(key) != new.get(key):
                raise RunMismatch(
                    f"{self.folder} was trained with another {key}; choose another --to, or delete "
                    "that folder"
                )
        if not self.autoencoder.exists():
            raise DataError(f"{self.autoencoder} is gone; delete {self.folder} and train again")
        found: Mapping[str, Any] = report
        return found

    def note(self, report: Mapping[str, Any]) -> None:
        """Write `report`, the sign that the training has ended."""
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        content = {**report, "package_version": __version__}
        replace_file(self.folder / TRAINING, orjson.dumps(content, option=options))
