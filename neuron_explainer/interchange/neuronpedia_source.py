"""Neuronpedia's files, brought into order of neurons on disk and read back one neuron at a time.

The public exports are sorted by index as text (0, 1, 10, 100 …), and a neuron's lines need not lie
together, so the lines are first copied to a temporary file; memory holds where each one is.
"""

import hashlib
import re
from array import array
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.errors import DataError
from neuron_explainer.interchange import json_lines, tagged_json
from neuron_explainer.interchange.import_job import Fault
from neuron_explainer.interchange.neuronpedia import (
    ACTIVATIONS,
    EXPLANATIONS,
    FEATURES,
    PARTS,
    Activation,
    Explanation,
    Feature,
    parse_source,
    read_line,
)
from neuron_explainer.interchange.neuronpedia_about import site_in
from neuron_explainer.interchange.source import LARGEST_NEURON, cut, file_digest
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.store import Shard
from neuron_explainer.tokens import readable

MOST_LINES = 1 << 22
MOST_BYTES = 16 << 20  # of one neuron's lines
_BATCH = re.compile(r"batch-(0|[1-9][0-9]{0,5})\.jsonl(\.gz)?")
_INDEX = re.compile(r"0|[1-9][0-9]{0,7}")
_ABOUT = ("release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl")
_HOOK = re.compile(r"blocks\.[0-9]{1,4}(\.[a-z_0-9]+)+")
_SINGLE = -1  # the batch of a file that was given by itself


@dataclass(frozen=True, slots=True)
class Content:
    """All that the files say of a neuron, and what of it could not be read."""

    feature: Feature | None
    activations: tuple[Activation, ...]
    explanations: tuple[Explanation, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Found:
    """The files of a source."""

    files: Mapping[tuple[str, int], Path]  # by folder and batch
    names: Mapping[tuple[str, int], str]  # how to call them: not by where they lay
    ignored: tuple[str, ...]
    notes: str  # of source.jsonl

    @classmethod
    def at(cls, path: Path) -> "Found":
        """The files in a source's folder, or one such file. Raises DataError."""
        if path.is_file():
            key = (_part_of(path), _SINGLE)
            return cls({key: path}, {key: path.name}, (), "")
        if not path.is_dir():
            raise DataError(f"{path} does not exist; give a source's folder or a batch file")
        files, ignored = _files(path)
        if not files:
            raise DataError(
                f"{path} holds no features/, activations/ or explanations/batch-N.jsonl.gz: "
                "give the folder v1/MODEL/SOURCE"
            )
        names = {key: f"{key[0]}/{file.name}" for key, file in files.items()}
        return cls(files, names, tuple(ignored), _notes(path / "source.jsonl"))

    def digest(self, neurons: Collection[int] | None) -> str:
        """SHA-256 over all files and what is asked of them."""
        whole = hashlib.sha256(repr(None if neurons is None else sorted(neurons)).encode())
        for key, path in self.files.items():
            whole.update(f"{key} {file_digest(path)}\n".encode())
        return whole.hexdigest()


@dataclass
class Spool:
    """The lines of all files in one, and where each begins."""

    found: Found
    file: IO[bytes]
    source: str | None = None  # what the lines call `layer`; the first one decides
    model: str | None = None  # theirs; likewise
    hook: str | None = None
    effects: bool = False  # whether some feature names tokens that it promotes or suppresses
    _columns: tuple["array[int]", ...] = field(
        default_factory=lambda: tuple(array(code) for code in "iiiqi")
    )

    def fill(self, neurons: Collection[int] | None) -> None:
        """Copy the lines about `neurons`. Raises DataError at a line that is about no neuron."""
        offset = 0
        for number, (key, path) in enumerate(self.found.files.items()):
            for line_number, line in json_lines.lines(path):
                index = self._index(line, f"{self.found.names[key]}, line {line_number}")
                if neurons is not None and index not in neurons:
                    continue
                if len(self._columns[0]) == MOST_LINES:
                    raise DataError(f"{path}: over {MOST_LINES:,} lines: import it in parts")
                self.file.write(line)
                place = (index, number, line_number, offset, len(line))
                for column, value in zip(self._columns, place, strict=True):
                    column.append(value)
                offset += len(line)

    def _index(self, line: bytes, where: str) -> int:
        try:
            value = tagged_json.parse(line)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        index = value.get("index") if isinstance(value, dict) else None
        if not isinstance(index, str) or not _INDEX.fullmatch(index) or int(index) > LARGEST_NEURON:
            raise DataError(f'{where}: field index: it names no neuron; write it such as "123"')
        if self.source is None and isinstance(value.get("layer"), str):
            self.source = value["layer"]
        if self.model is None and isinstance(value.get("modelId"), str):
            self.model = value["modelId"]
        hook = value.get("hookName")
        if self.hook is None and isinstance(hook, str) and _HOOK.fullmatch(hook):
            self.hook = hook
        self.effects |= bool(value.get("pos_str") or value.get("neg_str"))
        return int(index)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names in the folder that are not read."""
        return self.found.ignored

    @cached_property
    def _sorted(self) -> NDArray[np.int64]:
        """(lines, 5): neuron, file, line, offset, length; by neuron, then as they came."""
        table = np.stack([np.asarray(column, np.int64) for column in self._columns], 1)
        return table[np.argsort(table[:, 0], kind="stable")]

    @cached_property
    def neurons(self) -> list[int]:
        """The neurons that the files are about, ascending."""
        return [int(neuron) for neuron in np.unique(self._sorted[:, 0])]

    def shards(self, site: str) -> Iterator[tuple[Shard, list[int]]]:
        """The shards that hold any neuron, and the neurons in them."""
        del site  # there is one
        return cut(self.neurons)

    def read(self, subject: str, site: str, neuron: int) -> Content | Failure:
        """All lines about a neuron."""
        start, stop = np.searchsorted(self._sorted[:, 0], [neuron, neuron + 1])
        rows = self._sorted[start:stop]
        size = int(rows[:, 4].sum())
        if size > MOST_BYTES:
            message = f"neuron {neuron} has {size >> 20} MB; at most {MOST_BYTES >> 20} are read"
            return Failure(NeuronId(subject, site, neuron), "import", "too-large", message)
        made: dict[str, list[Any]] = {part: [] for part in PARTS}
        faults: list[Fault] = []
        keys = list(self.found.files)
        for _, file, line_number, offset, length in rows.tolist():
            self.file.seek(offset)
            part = keys[file][0]
            try:
                row = read_line(part, self.file.read(length))
                self._check(row, made[part])
                made[part].append(row)
            except (DataError, RecursionError) as error:
                where = f"{self.found.names[keys[file]]}, line {line_number}"
                faults.append(("malformed", f"{where}: {str(error) or 'it is nested too deep'}"))
        faults += self._missing({keys[file] for file in rows[:, 1].tolist()})
        return Content(
            next(iter(made[FEATURES]), None),
            tuple(made[ACTIVATIONS]),
            tuple(made[EXPLANATIONS]),
            tuple(faults),
        )

    def _check(self, row: Any, before: list[Any]) -> None:
        """Raises DataError when a line does not belong here or is there twice."""
        if row.layer is not None and row.layer != self.source:
            raise DataError(f"field layer: another source than {self.source}")
        if isinstance(row, Feature):
            if before:
                raise DataError(f"field index: feature {row.index} is there twice")
        elif row.id is not None and any(row.id == other.id for other in before):
            raise DataError("field id: it is there twice")

    def _missing(self, keys: set[tuple[str, int]]) -> Iterator[Fault]:
        """Files that should hold more about a neuron and are not there: batches go together."""
        present = {part for part, _ in self.found.files}
        told = {part for part, _ in keys}
        for batch in sorted({batch for _, batch in keys}):
            for part in PARTS:
                if part in present - told and (part, batch) not in self.found.files:
                    yield "missing", f"{part}/batch-{batch}.jsonl.gz is missing"


@contextmanager
def spooled(found: Found, neurons: Collection[int] | None, folder: Path) -> Iterator[Spool]:
    """The lines of a source, in a temporary file in `folder`. Raises DataError."""
    with TemporaryFile(dir=folder, prefix=".import-") as file:
        spool = Spool(found, file)
        spool.fill(neurons)
        if not spool.neurons:
            raise DataError("the files hold none of the neurons asked for")
        yield spool


def site_for(spool: Spool) -> tuple[str, bool]:
    """The site that a source is about, and whether its sequences begin with BOS, if we wrote it.

    From what the notes or hookName say, else from the names of the best-known source sets. Raises
    DataError when none of them tells.
    """
    site, excludes_first = site_in(spool.found.notes)
    if site is not None:
        return site, excludes_first
    if spool.source is None:
        raise DataError("field layer: missing in all lines; name the site with --site")
    layer, name = parse_source(spool.source)
    kind = name.partition("-")[0]
    if spool.hook is not None:
        hook = spool.hook
    elif name in {"neurons", "mlp"} or name.startswith("mlp-neurons-"):
        hook = f"blocks.{layer}.mlp.hook_post"
    elif name == "res-jb":
        hook = f"blocks.{layer}.hook_resid_pre"
    else:
        raise DataError(
            f"{spool.source}: no hookName says where '{readable(kind.encode())}' is; "
            f"name the site with --site, such as blocks.{layer}.hook_resid_post/{name}"
        )
    return hook if hook.endswith(".mlp.hook_post") else f"{hook}/{name}", False


def _files(folder: Path) -> tuple[dict[tuple[str, int], Path], list[str]]:
    files: dict[tuple[str, int], Path] = {}
    ignored = []
    for entry in sorted(folder.iterdir()):
        if entry.name not in PARTS or entry.is_symlink() or not entry.is_dir():
            if entry.name not in _ABOUT:
                ignored.append(readable(entry.name.encode("utf-8", "surrogateescape")))
            continue
        for file in sorted(entry.iterdir()):
            match = _BATCH.fullmatch(file.name)
            if match is None or file.is_symlink() or not file.is_file():
                name = readable(file.name.encode("utf-8", "surrogateescape"))
                ignored.append(f"{entry.name}/{name}")
            else:
                files[entry.name, int(match[1])] = file
    order = sorted(files, key=lambda key: (PARTS.index(key[0]), key[1]))
    return {key: files[key] for key in order}, ignored


def _part_of(path: Path) -> str:
    """What a single file holds, by its first line. Raises DataError."""
    for number, line in json_lines.lines(path):
        try:
            value = tagged_json.parse(line)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if isinstance(value, dict):
            if "tokens" in value:
                return ACTIVATIONS
            return EXPLANATIONS if "description" in value else FEATURES
        break
    raise DataError(f"{path} holds no features, activations or explanations, one object a line")


def _notes(path: Path) -> str:
    if not path.is_file() or path.is_symlink():
        return ""
    for number, line in json_lines.lines(path):
        try:
            value = tagged_json.parse(line)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        notes = value.get("notes") if isinstance(value, dict) else None
        return notes if isinstance(notes, str) else ""
    return ""
