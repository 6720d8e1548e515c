"""Documents from every kind of file, and plain words for everything that can be wrong with one."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuron_explainer.collect.corpus import CorpusSource, SplitOn
from neuron_explainer.errors import CorpusError

TEXTS = ["The first one.\nIt has two lines.", "Überschrift — 東京 😀", "a\ttab and \\ a backslash"]


def _zstd(path: Path, content: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(content)


def _gzip(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, mtime=0))


WRITERS: dict[str, Callable[[Path, bytes], Any]] = {
    "": Path.write_bytes,
    ".gz": _gzip,
    ".zst": _zstd,
}


def _json_lines(texts: list[str], field: str = "text") -> bytes:
    return b"".join(orjson.dumps({"id": 1, field: text}) + b"\n" for text in texts)


def _documents(path: Path, split_on: SplitOn = "file", field: str = "text") -> list[str]:
    return list(CorpusSource(path, split_on, field).documents())


@pytest.mark.parametrize("ending", WRITERS)
def test_json_lines_are_read_plain_and_compressed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"corpus.jsonl{ending}"
    WRITERS[ending](path, _json_lines(TEXTS))
    assert _documents(path) == TEXTS


@pytest.mark.parametrize("ending", WRITERS)
def test_a_text_file_is_one_document(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"corpus.txt{ending}"
    WRITERS[ending](path, "\n\n".join(TEXTS).encode())
    assert _documents(path) == ["\n\n".join(TEXTS)]


@pytest.mark.parametrize("ending", WRITERS)
def test_blank_lines_part_a_text_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"corpus.txt{ending}"
    WRITERS[ending](path, b"\n\n" + ("\n \n\n".join(TEXTS) + "\n").encode())
    assert _documents(path, "blank-line") == [f"{text}\n" for text in TEXTS]


def test_every_line_of_a_text_file_may_be_a_document(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\n\n  \ntwo\r\nthree without an end")
    assert _documents(path, "line") == ["one\n", "two\r\n", "three without an end"]


def test_a_line_longer_than_a_block_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    long = "é" * (3 << 19)  # three megabytes, so that a block ends inside a character
    path.write_bytes(_json_lines(["x" + long, long]).rstrip(b"\n"))
    assert _documents(path) == ["x" + long, long]


def test_parquet_is_read_by_column_and_nulls_are_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"body": [TEXTS[0], None, " ", *TEXTS[1:]]}), path)
    assert _documents(path, field="body") == TEXTS


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_may_hold_text_in_other_types(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "corpus.parquet"
    column = pa.array(TEXTS)
    texts = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    pq.write_table(pa.table({"text": texts}), path)
    assert _documents(path) == TEXTS


def test_another_field_of_json_lines_may_hold_the_text(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(_json_lines(TEXTS, "content"))
    assert _documents(path, field="content") == TEXTS


def test_blank_lines_and_blank_texts_are_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n" + _json_lines(["", " \n", "one"]) + b"  \n")
    assert _documents(path) == ["one"]


def test_a_folder_is_read_in_order_of_names_and_hidden_files_are_left(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "second.txt").write_text("second")
    (tmp_path / "a.jsonl").write_bytes(_json_lines(["first"]))
    _gzip(tmp_path / "c.jsonl.gz", _json_lines(["third"]))
    pq.write_table(pa.table({"text": ["fourth"]}), tmp_path / "d.parquet")
    (tmp_path / "README.md").write_text("no corpus")
    (tmp_path / ".hidden.txt").write_text("no corpus")
    assert _documents(tmp_path) == ["first", "second", "third", "fourth"]


def test_the_digest_is_of_contents_and_not_of_names(tmp_path: Path) -> None:
    for name, text in (("a.txt", "same"), ("b.txt", "same"), ("c.txt", "other")):
        (tmp_path / name).write_text(text)
    one, same, other = (CorpusSource(tmp_path / f"{name}.txt").digest() for name in "abc")
    assert one == same != other
    assert CorpusSource(tmp_path).digest() not in {one, other}


def _fails(path: Path, *parts: str, split_on: SplitOn = "file", field: str = "text") -> None:
    with pytest.raises(CorpusError) as raised:
        _documents(path, split_on, field)
    message = str(raised.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    _fails(tmp_path / "nothing.txt", "no corpus at")


def test_a_folder_without_a_corpus_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no corpus")
    _fails(tmp_path, ".txt, .jsonl, .parquet", ".gz")


@pytest.mark.parametrize("name", ["corpus.csv", "corpus", "corpus.gz", "corpus.txt.bz2"])
def test_an_unknown_kind_says_what_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text")
    _fails(tmp_path / name, ".jsonl")


@pytest.mark.parametrize("split_on", ["file", "blank-line", "line"])
def test_invalid_utf8_is_named_by_line_and_byte(tmp_path: Path, split_on: SplitOn) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\ntwo\n" + "dré\n".encode("latin-1") + b"four\n")
    _fails(path, "line 3", "0xe9", "UTF-8", split_on=split_on)


def test_invalid_utf8_in_json_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(_json_lines(["one"]) + b'{"text": "dr\xe9"}\n')
    _fails(path, "line 2", "0xe9")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut sho', "no valid JSON"),
        (b"just words", "no valid JSON"),
        (b'["text"]', "no JSON object"),
        (b'"text"', "no JSON object"),
        (b"17", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"body": "a"}', "no such text"),
        (b'{"text": null}', "no such text"),
        (b'{"text": ["a"]}', "no such text"),
    ],
)
def test_a_bad_json_line_is_named_with_its_number(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(_json_lines(["one", "two"]) + line + b"\n" + _json_lines(["four"]))
    _fails(path, "line 3", reason)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_compressed_file_cut_short_is_no_corpus(tmp_path: Path, ending: str, kind: str) -> None:
    path = tmp_path / f"corpus.{kind}{ending}"
    texts = [f"document {number * 7919 % 1000}" for number in range(2000)]
    WRITERS[ending](path, _json_lines(texts))
    path.write_bytes(path.read_bytes()[:-20])
    _fails(path, "cannot read")


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_only_pretends_to_be_compressed_is_no_corpus(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"corpus.txt{ending}"
    path.write_bytes(b"plain text")
    _fails(path, "cannot read")


def test_a_parquet_file_without_the_column_lists_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"body": ["a"], "title": ["b"]}), path)
    _fails(path, "no column 'text'", "body, title", "--text-field")


def test_a_parquet_column_that_holds_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": [1, 2]}), path)
    _fails(path, "column 'text' holds int64", "--text-field")


@pytest.mark.parametrize("keep", [0, 3, 40])
def test_a_parquet_file_cut_short_is_no_corpus(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    path.write_bytes(path.read_bytes()[:keep])
    _fails(path, "cannot read")


@pytest.mark.parametrize("name", ["corpus.txt", "corpus.jsonl", "corpus.txt.gz"])
def test_an_empty_file_has_no_documents(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[path.suffix if path.suffix == ".gz" else ""](path, b"")
    assert _documents(path) == []
