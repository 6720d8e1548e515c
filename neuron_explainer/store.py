"""Typed tables and manifests on disk: whole or absent, never half.

A folder of artefacts holds `manifest.json` and Parquet shards named by neuron range, such as
`records-00000-00511.parquet`. A file is written under a temporary name, synced and renamed. The
manifest lists each finished shard with its SHA-256, so a shard that is not listed is not done and
one that was changed is found. One process at a time writes a folder (`locked`).
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from neuron_explainer import __version__
from neuron_explainer.errors import DataError, RunLocked, RunMismatch, WorkspaceError
from neuron_explainer.parquet import deserialise, rows_of, serialise, sha256_of

SCHEMA_VERSION = 1
SHARD_SIZE = 512  # neurons
_SHARD = re.compile(r"(?P<name>.+)-(?P<start>\d{5,})-(?P<last>\d{5,})\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """A range of neurons: the unit of work, of resume and of publishing."""

    start: int
    stop: int

    def file(self, name: str) -> str:
        """The name of this shard's file in table `name`."""
        return f"{name}-{self.start:05d}-{self.stop - 1:05d}.parquet"

    def __contains__(self, neuron: int) -> bool:
        return self.start <= neuron < self.stop


def shards_of(width: int, size: int = SHARD_SIZE) -> list[Shard]:
    """Neurons 0 … width-1 in shards of `size`."""
    return [Shard(start, min(start + size, width)) for start in range(0, width, size)]


@contextmanager
def replacing(path: Path, synced: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which becomes `path` once the block ends well: all of it or nothing.

    Raises WorkspaceError when the disk is full or the folder may not be written. What is not
    `synced` may go with the power: for many files that are made again easily.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            if synced:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if synced:
            _sync_folder(path.parent)
    except OSError as error:
        raise WorkspaceError(_cannot_write(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def replace_file(path: Path, content: bytes, synced: bool = True) -> None:
    """Write `content` so that `path` holds all of it or what it held before."""
    with replacing(path, synced) as file:
        file.write(content)


def replacement_of(path: Path) -> Path:
    """Where the content waits that is to replace a shard's."""
    return path.with_name(f".{path.name}.next")


def _cannot_write(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path}: {os.strerror(error.errno or 0).lower()}; "
        "free space or choose another --workspace; what was finished is kept"
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed process left anywhere in `folder`."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for writing. Raises RunLocked when another process holds it, or waits for it.

    The lock is the kernel's and goes with the process, so a crash never leaves one behind. A folder
    that was made for a block goes again when the block leaves no results in it.
    """
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkspaceError(_cannot_write(folder, error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunLocked(
            f"{folder} is being written by another process; wait for it or stop it"
        ) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        if made and not _holds_results(folder):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _holds_results(folder: Path) -> bool:
    files = (path for path in folder.rglob("*") if path.is_file())
    return any(path.name not in {".lock", "manifest.json"} for path in files)


class Folder:
    """One folder of artefacts: its manifest and its shards.

    `rebuild` is the command that makes the folder again; it is named when a file is damaged.
    """

    def __init__(self, path: Path, rebuild: str = "the command that made it") -> None:
        self.path = path
        self.rebuild = rebuild

    @property
    def exists(self) -> bool:
        """Whether anything was ever written here."""
        return self._manifest_path.is_file()

    @property
    def _manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """The manifest. Raises DataError when missing or damaged, WorkspaceError when newer."""
        try:
            manifest = orjson.loads(self._manifest_path.read_bytes())
        except FileNotFoundError as error:
            raise DataError(
                f"{self.path} holds no results; make them with {self.rebuild}"
            ) from error
        except orjson.JSONDecodeError as error:
            raise self._damaged(self._manifest_path, "it is no JSON") from error
        if not isinstance(manifest, dict) or not _is_manifest(manifest):
            raise self._damaged(self._manifest_path, "it is no manifest")
        if manifest["schema_version"] > SCHEMA_VERSION:
            raise WorkspaceError(
                f"{self.path} was written by a newer neuron-explainer "
                f"({manifest.get('package_version', 'unknown')}); upgrade this one ({__version__})"
            )
        return manifest

    def open(self, config: Mapping[str, Any]) -> None:
        """Begin or resume a run with `config`.

        Raises RunMismatch when the folder holds results of another configuration.
        """
        if not self.exists:
            self.update({"config": dict(config), "shards": {}, "complete": False})
            return
        old = self.manifest()["config"]
        new = orjson.loads(orjson.dumps(config, option=orjson.OPT_SERIALIZE_NUMPY))
        different = sorted(key for key in old | new if old.get(key) != new.get(key))
        if different:
            key = different[0]
            raise RunMismatch(
                f"{self.path} was made with {key} = {_brief(old.get(key))}, not "
                f"{_brief(new.get(key))}; choose another name or delete that folder"
            )

    def update(self, changes: Mapping[str, Any]) -> None:
        """Merge `changes` into the manifest's top level; None removes a key."""
        manifest = self.manifest() if self.exists else {}
        manifest |= {"schema_version": SCHEMA_VERSION, "package_version": __version__, **changes}
        manifest = {key: value for key, value in manifest.items() if value is not None}
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        replace_file(
            self._manifest_path, orjson.dumps(manifest, option=options | orjson.OPT_SERIALIZE_NUMPY)
        )

    @property
    def complete(self) -> bool:
        """Whether the stage that writes this folder has finished."""
        return self.exists and bool(self.manifest().get("complete"))

    def digest(self) -> str:
        """What the folder holds: a hash over its configuration and the hashes of its shards."""
        manifest = self.manifest()
        content = {"config": manifest["config"], "shards": manifest["shards"]}
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def has(self, *files: str) -> bool:
        """Whether all of these shards are finished."""
        if not self.exists:
            return False
        done = self.manifest()["shards"]
        return all(file in done and self._place(file).is_file() for file in files)

    def _place(self, file: str) -> Path:
        """Where a listed file is: one that replaces another may not have its name yet."""
        path = self.path / file
        moving = replacement_of(path)
        return moving if moving.is_file() and file in self.manifest().get("moving", ()) else path

    def write(self, tables: Mapping[str, pa.Table]) -> None:
        """Write shards by file name; they count as done only once the manifest lists them all."""
        done = dict(self.manifest()["shards"])
        for file, table in tables.items():
            content = serialise(table)
            replace_file(self.path / file, content)
            digest = hashlib.sha256(content).hexdigest()
            done[file] = {"rows": table.num_rows, "sha256": digest}
        self.update({"shards": done})

    def register(self, file: str, rows: int) -> None:
        """List a file that was streamed into the folder, with its hash, as done."""
        entry = {"rows": rows, "sha256": sha256_of(self.path / file)}
        self.update({"shards": {**self.manifest()["shards"], file: entry}})

    def verified(self, file: str) -> Path:
        """The path of a listed file whose content is what was written. Raises DataError."""
        path = self._place(file)
        listed = self.manifest()["shards"].get(file)
        if listed is None or not path.is_file():
            raise self._damaged(path, "it is missing")
        if sha256_of(path) != listed["sha256"]:
            raise self._damaged(path, "it was changed or cut short")
        return path

    def read(self, file: str, columns: list[str] | None = None) -> pa.Table:
        """A whole shard, verified against the manifest. Raises DataError when damaged."""
        path = self._place(file)
        listed = self.manifest()["shards"].get(file)
        if listed is None:
            raise DataError(f"{path} is not there; make it with {self.rebuild}")
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise self._damaged(path, "it is missing") from error
        if hashlib.sha256(content).hexdigest() != listed["sha256"]:
            raise self._damaged(path, "it was changed or cut short")
        return deserialise(content, columns)

    def shards(self, name: str) -> list[tuple[Shard, str]]:
        """The finished shards of table `name`, in order of neurons."""
        found = []
        for file in self.manifest()["shards"]:
            match = _SHARD.fullmatch(file)
            if match and match["name"] == name:
                found.append((Shard(int(match["start"]), int(match["last"]) + 1), file))
        return sorted(found)

    def read_all(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """All shards of table `name` as one table."""
        shards = self.shards(name)
        if not shards:
            raise DataError(f"{self.path} holds no {name}; make them with {self.rebuild}")
        return pa.concat_tables(self.read(file, columns) for _, file in shards)

    def read_neuron(self, name: str, neuron: int, columns: list[str] | None = None) -> pa.Table:
        """The rows of one neuron, read without the rest of its shard. Empty when it has none."""
        for shard, file in self.shards(name):
            if neuron in shard:
                return self._rows_of(file, [neuron], columns)
        raise DataError(f"{self.path} holds no {name} of neuron {neuron}")

    def read_neurons(
        self, name: str, neurons: Sequence[int], columns: list[str] | None = None
    ) -> pa.Table | None:
        """The rows of some neurons, in stored order, read as those of one. None: no shard has any.

        `columns` must hold `neuron`.
        """
        parts = [
            self._rows_of(file, within, columns)
            for shard, file in self.shards(name)
            if (within := [neuron for neuron in neurons if neuron in shard])
        ]
        return pa.concat_tables(parts) if parts else None

    def _rows_of(self, shard: str, neurons: list[int], columns: list[str] | None) -> pa.Table:
        path = self._place(shard)
        digest = self.manifest()["shards"][shard]["sha256"]
        try:
            rows = rows_of(path, digest, neurons, columns)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(path, str(error).splitlines()[0]) from error
        if rows is None:
            raise self._damaged(path, "it was changed or cut short")
        return rows

    def _damaged(self, path: Path, reason: str) -> DataError:
        return DataError(f"{path} is damaged ({reason}); delete {self.path} and run {self.rebuild}")


def _is_manifest(manifest: dict[str, Any]) -> bool:
    kinds = {"schema_version": int, "config": dict, "shards": dict}
    if not all(isinstance(manifest.get(key), kind) for key, kind in kinds.items()):
        return False
    shards = manifest["shards"].values()
    return all(isinstance(shard, dict) and "sha256" in shard for shard in shards)


def _brief(value: object, limit: int = 60) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
