"""Documents from a dataset that the library `datasets` reads: from the hub, or from a folder.

A dataset of the hub is streamed: no more of it is fetched than is taken. Which revision that was is
asked of the hub before and kept; a corpus that is there already is known by it, and the hub is not
asked again.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuron_explainer.collect.shuffle import Shuffle
from neuron_explainer.errors import CorpusError
from neuron_explainer.subjects.hub import dataset_revision, first_line, unreachable

UNRESOLVED = "not resolved"  # stands for the revision where the hub names none
_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves in a folder
_BUFFER = 10_000  # documents among which a stream is shuffled
_BATCH = 100


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset: `USER/NAME` on the hub, also `USER/NAME@REVISION`, or a folder."""

    name: str
    config: str | None = None
    split: str = "train"
    text_field: str = "text"

    @property
    def folder(self) -> Path | None:
        """Where it lies, unless it is the hub's."""
        path = Path(self.name)
        return path if path.is_dir() else None

    def check(self) -> None:
        """Raises CorpusError when it cannot be had."""
        if find_spec("datasets") is None:
            raise CorpusError(
                f"to read the dataset {self.name} needs a library: "
                "pip install 'neuron-explainer[datasets]'"
            )
        if self.folder is None and _ID.fullmatch(self.name) is None:
            raise CorpusError(f"no corpus at {self.name}: name a file or a folder that exists")

    def identity(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What the corpus is: a folder's contents, or a dataset of the hub and its revision.

        `known` is the identity of the corpus that is stored. Where it is of the same dataset, and
        no other revision is asked for, its revision stands.
        """
        about = {"dataset_config": self.config, "dataset_split": self.split}
        about["text_field"] = self.text_field
        if self.folder is not None:
            return {"corpus": _digest(self.folder), **about}
        name, asked = self._parts()
        there = known.get("corpus") == f"hub:{name}" and known.get("revision")
        revision = there if there and asked in (None, there) else self._resolved(name, asked)
        return {"corpus": f"hub:{name}", "revision": revision, **about}

    def documents(
        self, shuffle: Shuffle | None = None, identity: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """Every document that is not blank. Raises CorpusError at the first that is no text.

        A stream is shuffled as `datasets` does it, its files and then among 10,000 documents; a
        folder through and through.
        """
        with _told(_unreadable(self.name)):
            rows = self._rows((identity or {}).get("revision"))
            if shuffle is not None and self.folder is None:
                rows = rows.shuffle(seed=shuffle.seed, buffer_size=_BUFFER)
        texts = self._texts(rows)
        return texts if shuffle is None or self.folder is None else shuffle(texts)

    def _parts(self) -> tuple[str, str | None]:
        match = _ID.fullmatch(self.name)
        assert match is not None
        return match["id"], match["revision"]

    def _resolved(self, name: str, asked: str | None) -> str:
        if (reason := unreachable()) is not None:
            raise CorpusError(_absent(name).format(reason))
        with _told(_absent(name)):
            return dataset_revision(name, asked) or UNRESOLVED

    def _rows(self, revision: str | None) -> Any:
        import datasets

        datasets.disable_progress_bars()
        datasets.utils.logging.set_verbosity_error()
        if self.folder is None:
            name, asked = self._parts()
            pinned = asked if revision in (None, UNRESOLVED) else revision
            return datasets.load_dataset(
                name, self.config, split=self.split, revision=pinned, streaming=True
            )
        if not is_saved(self.folder):
            return datasets.load_dataset(
                str(self.folder), self.config, split=self.split, streaming=True
            )
        loaded = datasets.load_from_disk(str(self.folder))
        if not isinstance(loaded, datasets.DatasetDict):
            return loaded
        if self.split not in loaded:
            raise CorpusError(
                f"{self.name} has no split '{self.split}' but {', '.join(loaded)}: "
                "name one with --corpus-split"
            )
        return loaded[self.split]

    def _texts(self, rows: Any) -> Iterator[str]:
        if rows.column_names is not None:
            self._check_column(rows.column_names)
            rows = rows.select_columns([self.text_field])
        with _told(_unreadable(self.name)):
            for batch in rows.iter(batch_size=_BATCH):
                self._check_column(list(batch))
                for text in batch[self.text_field]:
                    if text is not None and not isinstance(text, str):
                        raise CorpusError(
                            f"{self.name}: column '{self.text_field}' holds "
                            f"{type(text).__name__}, not text; name another with --text-field"
                        )
                    if text and text.strip():
                        yield text

    def _check_column(self, columns: list[str]) -> None:
        if self.text_field not in columns:
            raise CorpusError(
                f"{self.name} has no column '{self.text_field}' but {', '.join(columns)}; "
                "name one with --text-field"
            )


def is_saved(folder: Path) -> bool:
    """Whether `datasets` wrote the folder by `save_to_disk`."""
    return any((folder / name).is_file() for name in _SAVED)


def is_hub_id(name: str) -> bool:
    """Whether it could name a dataset of the hub."""
    return _ID.fullmatch(name) is not None


def _digest(folder: Path) -> str:
    """SHA-256 over the contents of a folder's files, in order of name."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            total.update(inside.as_posix().encode())
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


@contextmanager
def _told(message: str) -> Iterator[None]:
    """What goes wrong in the libraries, in one line: `message` with the reason for `{}`."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # they let through what comes of whatever reads the files
        raise CorpusError(message.format(first_line(error))) from error


def _unreadable(name: str) -> str:
    return f"{name} cannot be read as a dataset ({{}}); see --corpus-config and --corpus-split"


def _absent(name: str) -> str:
    return (
        f"no corpus at {name}: it is no file or folder here, and the hub did not give it ({{}}); "
        "give a file or a folder of .txt, .jsonl or .parquet files, or one that datasets saved"
    )
