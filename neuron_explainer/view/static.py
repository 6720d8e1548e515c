"""The viewer as files for any file server: the same pages, and every resource under its own name.

A site is made beside its place and moved there whole. `site.json` says that `publish --site` made
the folder; one without it, or with more in it, is left alone.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from neuron_explainer.errors import DataError, RunMismatch, WorkspaceError
from neuron_explainer.runner import Progress, silent
from neuron_explainer.store import locked, replace_file
from neuron_explainer.view.contract import FORMAT, Unavailable
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.server import PAGE, page_files

ABOUT = "site.json"
_LOCK = ".lock"
_OFFERS = {"try": False, "judge": False}

Made = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Written:
    """What a site takes."""

    folder: Path
    files: int
    bytes: int


def write_site(source: Resources, folder: Path, progress: Progress = silent) -> Written:
    """Write everything that `source` holds, with the pages, as `folder`: whole or not at all.

    Raises DataError when there is nothing to show or a resource cannot be had, RunMismatch when
    something else is at that place, RunLocked when another process writes it, WorkspaceError when
    it cannot be written.
    """
    _require_free(folder)
    total = count_files(source)
    with _staging(folder) as staging, progress("write site", total, "files") as advance:
        size = 0
        for path, make in _files(source):
            content = _made(path, make)
            replace_file(staging / path, content, synced=False)
            size += len(content)
            advance(1)
        entries = sorted(path.name for path in staging.iterdir() if path.name != _LOCK)
        about = {"format": FORMAT, "files": total, "entries": [*entries, ABOUT]}
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        replace_file(staging / ABOUT, orjson.dumps(about, option=options))
        _move(staging, folder)
    return Written(folder, total + 1, size)


def count_files(source: Resources) -> int:
    """How many files a site has, but for `site.json`. Raises DataError when there is no site."""
    if not source.catalog(anew=True).sites:
        raise DataError("there is nothing to show: collect or import something first")
    return sum(1 for _ in _files(source))


def _files(source: Resources) -> Iterator[tuple[str, Made]]:
    """Every file's path with what makes it; workspace.json last, for what was read before it."""
    yield ".nojekyll", bytes  # some hosts would leave out names that begin with an underscore
    for file in page_files():
        yield file.relative_to(PAGE).as_posix(), file.read_bytes
    for site in source.catalog().sites:
        for path, make in source.paths(site):
            yield f"api/{path}", make
    yield "api/workspace.json", lambda: source.workspace("static", _OFFERS)


def _made(path: str, make: Made) -> bytes:
    try:
        return make()
    except Unavailable as error:
        advice = f": {error.run}" if error.run else ""
        raise DataError(f"cannot make {path}: {error}{advice}") from error


def _require_free(folder: Path) -> None:
    """Raises RunMismatch unless `folder` is empty, or a site and nothing else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        entries = orjson.loads((folder / ABOUT).read_bytes())["entries"]
        foreign = sorted({path.name for path in folder.iterdir()} - set(entries))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise RunMismatch(
            f"{folder} is not from publish --site; choose another folder or delete that one"
        ) from error
    if foreign:
        raise RunMismatch(
            f"{folder / foreign[0]} is not from publish --site; move it, or choose another folder"
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """An empty folder beside the place, which no other process uses; gone afterwards."""
    place = folder.resolve()
    staging = place.with_name(f".{place.name}.publishing")
    try:
        with locked(staging):
            for leftover in staging.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                elif leftover.name != _LOCK:
                    leftover.unlink()
            yield staging
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise WorkspaceError(
            f"cannot write {folder}: {reason}; free space or choose another --site"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, folder: Path) -> None:
    """Two renames: after a crash between them the place is empty, never half old."""
    place = folder.resolve()
    before = place.with_name(f".{place.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if place.exists():
        place.rename(before)
    staging.rename(place)
    with suppress(OSError):
        (place / _LOCK).unlink()
    shutil.rmtree(before, ignore_errors=True)
