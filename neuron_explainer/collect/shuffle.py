"""Documents in random order, as many as there are: what does not fit in memory goes through files.

Documents are dealt to piles at random, and then each pile is shuffled, in the same way where it is
still too large: every order is equally likely, and the seed says which one it is. With a limit only
the piles that it reaches into are kept, so that a sample of a large corpus needs little disk.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from neuron_explainer.errors import WorkspaceError

HELD = 64 << 20  # bytes of text in memory
_PILES = 64
_SIZE = 8  # bytes of a document's length in a pile's file


@dataclass(frozen=True, slots=True)
class Shuffle:
    """A random order of documents; `scratch` is a folder for files that are deleted again."""

    seed: int
    scratch: Path
    limit: int | None = None  # documents
    held: int = HELD

    def __call__(self, documents: Iterable[str]) -> Iterator[str]:
        """The first `limit` of all documents in their new order.

        Raises WorkspaceError when the scratch folder cannot be written.
        """
        encoded = (document.encode("utf-8", "surrogatepass") for document in documents)
        mixed = self._mixed(encoded, np.random.default_rng(self.seed), self.limit, "0")
        for content in islice(mixed, self.limit):
            yield content.decode("utf-8", "surrogatepass")

    def _mixed(
        self, documents: Iterator[bytes], random: np.random.Generator, limit: int | None, name: str
    ) -> Iterator[bytes]:
        held: list[bytes] = []
        room = self.held
        for content in documents:
            held.append(content)
            room -= len(content)
            if room < 0 and len(held) > 1:
                break
        else:
            yield from (held[place] for place in random.permutation(len(held)))
            return
        paths = [self._path(f"{name}.{pile}") for pile in range(_PILES)]
        try:
            counts = self._deal(chain(held, documents), paths, random, limit)
            held.clear()
            for pile, path in enumerate(paths[: len(counts)]):
                yield from self._mixed(_read(path), random, limit, f"{name}.{pile}")
                path.unlink(missing_ok=True)
                limit = None if limit is None else max(0, limit - counts[pile])
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.scratch / f".shuffle-{name}.{os.getpid()}.tmp"  # removed after a kill, too

    def _deal(
        self,
        documents: Iterator[bytes],
        paths: list[Path],
        random: np.random.Generator,
        limit: int | None,
    ) -> list[int]:
        """Write each document to a random pile; how many each pile has that the limit reaches."""
        counts = np.zeros(len(paths), np.int64)
        reached = len(paths)
        with ExitStack() as stack:
            files = [stack.enter_context(_open(path)) for path in paths]
            for content in documents:
                pile = int(random.integers(len(paths)))
                counts[pile] += 1
                if pile < reached:
                    _write(files[pile], content)
                    if limit is not None:
                        reached = 1 + int(np.searchsorted(np.cumsum(counts), limit))
        return [int(count) for count in counts[:reached]]


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise _cannot_write(path.parent, error) from error


def _write(file: BinaryIO, content: bytes) -> None:
    try:
        file.write(len(content).to_bytes(_SIZE))
        file.write(content)
    except OSError as error:
        raise _cannot_write(Path(file.name).parent, error) from error


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while size := file.read(_SIZE):
            yield file.read(int.from_bytes(size))


def _cannot_write(folder: Path, error: OSError) -> WorkspaceError:
    return WorkspaceError(
        f"cannot write to {folder}, through which the corpus is shuffled: "
        f"{os.strerror(error.errno or 0).lower()}; free space or leave out --shuffle"
    )
