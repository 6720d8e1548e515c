"""The folder of a published dataset: made beside its place and moved there whole.

`checksums.txt` lists every file as `sha256sum --check` reads it; `published.json` says of which run
the folder is, and what it was made from.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from neuron_explainer.errors import DataError, RunMismatch, WorkspaceError
from neuron_explainer.store import locked, replace_file

CARD = "README.md"
CHECKSUMS = "checksums.txt"
ABOUT = "published.json"
FORMAT = 1
_LOCK = ".lock"
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<path>[^\n]+)")


@dataclass(frozen=True, slots=True)
class PublishedFolder:
    """One published dataset."""

    path: Path

    @property
    def exists(self) -> bool:
        """Whether there is anything at its place."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    @property
    def is_published(self) -> bool:
        """Whether `publish` made it, as far as one can see from outside."""
        return (self.path / ABOUT).is_file() and (self.path / CHECKSUMS).is_file()

    def about(self) -> dict[str, Any]:
        """What `published.json` says. Raises DataError when damaged, WorkspaceError when newer."""
        file = self.path / ABOUT
        try:
            about = orjson.loads(file.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise DataError(f"{file} is missing or damaged: publish the run again") from error
        known = {"format": int, "run": str, "config": dict, "inputs": dict, "configs": dict}
        if not isinstance(about, dict) or any(
            not isinstance(about.get(key), kind) for key, kind in known.items()
        ):
            raise DataError(f"{file} is damaged: publish the run again")
        if about["format"] > FORMAT:
            raise WorkspaceError(
                f"{file} was written by a newer neuron-explainer: upgrade this one"
            )
        return about

    def checksums(self) -> dict[str, str]:
        """SHA-256 by path, of all files but the list itself. Raises DataError when damaged."""
        file = self.path / CHECKSUMS
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is missing or damaged: publish the run again") from error
        found = {}
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                raise DataError(f"{file} is damaged at '{line[:80]}': publish the run again")
            found[match["path"]] = match["sha256"]
        return found

    def verified(self, file: str) -> Path:
        """The path of a listed file whose content is what was written. Raises DataError."""
        path, listed = self.path / file, self.checksums().get(file)
        if listed is None or not path.is_file():
            raise DataError(f"{path} is missing: publish the run or download it again")
        if _sha256(path) != listed:
            raise DataError(f"{path} was changed or cut short: publish or download it again")
        return path

    def require_own(self, run: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        """Check that the folder may be replaced: empty, or of this run and as `publish` left it.

        Raises RunMismatch otherwise.
        """
        if not self.exists:
            return
        advice = "choose another --to or delete it"
        if not self.is_published:
            raise RunMismatch(f"{self.path} holds something else than a dataset; {advice}")
        about = self.about()
        shared = about["inputs"].keys() & inputs.keys()
        if (about["run"], about["config"]) != (run, config) or any(
            about["inputs"][site] != inputs[site] for site in shared
        ):
            what = f"run '{about['run']}'" + (" as it was" if about["run"] == run else "")
            raise RunMismatch(f"{self.path} holds {what}; {advice}")
        listed = self.checksums()
        if foreign := [name for name in self._names() if name not in {*listed, CHECKSUMS}]:
            raise RunMismatch(f"{self.path / foreign[0]} is not from publish; move it, or {advice}")
        for name, digest in listed.items():
            path = self.path / name
            if path.is_file() and _sha256(path) != digest:
                raise RunMismatch(
                    f"{path} was changed since it was published; move it, or {advice}"
                )

    def is_whole(self) -> bool:
        """Whether every listed file is there; `require_own` compares their contents."""
        return all((self.path / name).is_file() for name in self.checksums())

    def sizes(self) -> dict[str, int]:
        """Bytes by path, of every file, in the order of their names."""
        return {name: (self.path / name).stat().st_size for name in self._names()}

    def _names(self) -> Iterator[str]:
        paths = sorted(path for path in self.path.rglob("*") if not path.is_dir())
        names = (path.relative_to(self.path).as_posix() for path in paths)
        return (name for name in names if name != _LOCK)

    def write(self, make: Callable[[Path], Mapping[str, Any]]) -> None:
        """Replace the folder by what `make` writes into an empty one and says about it.

        Raises RunLocked when another process is at it, WorkspaceError when it cannot be written.
        """
        with self._staging() as staging:
            about = make(staging)
            options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
            replace_file(staging / ABOUT, orjson.dumps({"format": FORMAT, **about}, option=options))
            names = list(PublishedFolder(staging)._names())
            lines = [f"{_sha256(staging / name)}  {name}\n" for name in names]
            replace_file(staging / CHECKSUMS, "".join(lines).encode())
            self._move_here(staging)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """An empty folder beside the place, which no other process uses; gone afterwards."""
        place = self.path.resolve()
        staging = place.with_name(f".{place.name}.publishing")
        with locked(staging):
            try:
                for leftover in staging.iterdir():
                    if leftover.is_dir():
                        shutil.rmtree(leftover)
                    elif leftover.name != _LOCK:
                        leftover.unlink()
                yield staging
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise WorkspaceError(
                    f"cannot write {self.path}: {reason}; free space or choose another --to"
                ) from error
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _move_here(self, staging: Path) -> None:
        """Two renames: after a crash between them the place is empty, never half old."""
        place = self.path.resolve()
        before = place.with_name(f".{place.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        if place.exists():
            place.rename(before)
        staging.rename(place)
        (place / _LOCK).unlink()  # now: until here it kept others out
        shutil.rmtree(before, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
