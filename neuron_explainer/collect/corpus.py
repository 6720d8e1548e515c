"""Documents from files: text, JSON lines, Parquet, folders of them, plain or compressed."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from neuron_explainer.collect.shuffle import Shuffle
from neuron_explainer.errors import CorpusError

SplitOn = Literal["file", "blank-line", "line"]
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_KINDS = (".txt", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """Where documents come from. `split_on` is for text files, `text_field` for the others."""

    path: Path
    split_on: SplitOn = "file"
    text_field: str = "text"

    def files(self) -> list[Path]:
        """The corpus files, in order of name. Raises CorpusError when there is none."""
        if not self.path.exists():
            raise CorpusError(f"no corpus at {self.path}: name a file or a folder that exists")
        if self.path.is_file():
            _kind(self.path)
            return [self.path]
        found = sorted(
            path for path in self.path.rglob("*") if path.is_file() and is_corpus_file(path)
        )
        if not found:
            raise CorpusError(
                f"{self.path} holds no corpus file: {', '.join(_KINDS)} are read, "
                "also compressed as .gz or .zst"
            )
        return found

    def check(self) -> None:
        """Raises CorpusError when there is no file to read."""
        self.files()

    def identity(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What the corpus is, by its contents, and how it is read."""
        del known
        about = {"split_on": self.split_on, "text_field": self.text_field}
        return {"corpus": self.digest(), **about}

    def documents(
        self, shuffle: Shuffle | None = None, identity: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """Every document that is not blank, in order, or shuffled.

        Raises CorpusError at the first bad one.
        """
        del identity
        return self._in_order() if shuffle is None else shuffle(self._in_order())

    def _in_order(self) -> Iterator[str]:
        for path in self.files():
            kind = _kind(path)
            if kind == ".parquet":
                texts = self._parquet_texts(path)
            elif kind == ".jsonl":
                texts = self._json_texts(path)
            else:
                texts = self._plain_texts(path)
            yield from (text for text in texts if text.strip())

    def digest(self) -> str:
        """SHA-256 over the contents of all files: what the corpus is, wherever it lies."""
        total = hashlib.sha256()
        for path in self.files():
            try:
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise CorpusError(f"cannot read {path}: {error.strerror}") from error
        return total.hexdigest()

    def _plain_texts(self, path: Path) -> Iterator[str]:
        if self.split_on == "file":
            with _open(path) as file:
                yield _decode(_read(file, path), path, 1)
            return
        paragraph: list[str] = []
        for number, line in _lines(path):
            text = _decode(line, path, number)
            if self.split_on == "line":
                yield text
            elif text.strip():
                paragraph.append(text)
            elif paragraph:
                yield "".join(paragraph)
                paragraph = []
        if paragraph:
            yield "".join(paragraph)

    def _json_texts(self, path: Path) -> Iterator[str]:
        for number, line in _lines(path):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                _decode(line, path, number)
                raise CorpusError(f"{path}, line {number}: no valid JSON ({error})") from error
            text = row.get(self.text_field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                what = "no JSON object" if not isinstance(row, dict) else "no such text"
                raise CorpusError(
                    f"{path}, line {number}: {what}; each line must be an object with the text "
                    f'in "{self.text_field}" (--text-field names another)'
                )
            yield text

    def _parquet_texts(self, path: Path) -> Iterator[str]:
        try:
            with pq.ParquetFile(path) as file:
                if self.text_field not in file.schema_arrow.names:
                    raise CorpusError(
                        f"{path} has no column '{self.text_field}' but "
                        f"{', '.join(file.schema_arrow.names)}; name one with --text-field"
                    )
                kind = file.schema_arrow.field(self.text_field).type
                if not _is_text(kind):
                    raise CorpusError(
                        f"{path}: column '{self.text_field}' holds {kind}, not text; "
                        "name another with --text-field"
                    )
                for batch in file.iter_batches(columns=[self.text_field]):
                    yield from (text for text in batch.column(0).to_pylist() if text)
        except (OSError, pa.ArrowException) as error:
            raise CorpusError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def is_corpus_file(path: Path) -> bool:
    """Whether a file's name says that it is read as a corpus."""
    return not path.name.startswith(".") and _suffix(path) in _KINDS


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def _kind(path: Path) -> str:
    suffix = _suffix(path)
    if suffix not in _KINDS:
        raise CorpusError(
            f"{path} is of no kind that is read: {', '.join(_KINDS)}, also with .gz or .zst"
        )
    return suffix


def _open(path: Path) -> BinaryIO:
    try:
        stream: BinaryIO = pa.input_stream(str(path), compression=_COMPRESSED.get(path.suffix))
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error
    return stream


def _read(file: BinaryIO, path: Path, size: int | None = None) -> bytes:
    try:
        return file.read(size)  # type: ignore[arg-type]  # pyarrow's takes None, not -1
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their ends; a line is never cut inside a character."""
    with _open(path) as file:
        rest, number = b"", 0
        while block := _read(file, path, 1 << 20):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                number += 1
                yield number, line + b"\n"
        if rest:
            yield number + 1, rest


def _decode(content: bytes, path: Path, line: int) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise CorpusError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is no UTF-8; "
            "convert the file to UTF-8"
        ) from error
