"""The index of words finds the rows whose text has a word, and no others."""

import unicodedata
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_workspace import RUNS, SITE, SUBJECT, MadeWorkspace

from neuron_explainer.store import Folder
from neuron_explainer.view import search
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.search import SearchIndex, index_of
from neuron_explainer.view.words import bucket_of, words_of
from neuron_explainer.workspace import Workspace

TEXT = (
    st.text(st.sampled_from("abcAB éßİſﬁ२1.,;«»\u0301\u200d\n\tاب中文🙂-_"), max_size=30)
    | st.text()
)
words_of("")  # the first one makes the pattern, which takes longer than an example may
ROWS = st.lists(st.lists(TEXT, max_size=3), min_size=1, max_size=12)


def built(texts: list[list[str]]) -> SearchIndex:
    """The index of neurons 10, 12, 14, … with these texts."""
    neurons = np.arange(10, 10 + 2 * len(texts), 2, dtype=np.int32)
    pairs = [
        (int(neuron), text) for neuron, said in zip(neurons, texts, strict=True) for text in said
    ]
    return index_of(iter(pairs), neurons)


def rows_with(index: SearchIndex, word: str) -> list[int]:
    """What the page does to find a word."""
    found: list[int] = index.bucket(bucket_of(word, index.buckets))["words"].get(word, [])
    return found


@settings(deadline=None)
@given(ROWS)
def test_a_word_is_found_in_exactly_the_rows_whose_text_has_it(texts: list[list[str]]) -> None:
    index = built(texts)
    said = [{word for text in row for word in words_of(text)} for row in texts]
    for word in set().union(*said) | {"absent"}:
        assert rows_with(index, word) == [row for row, held in enumerate(said) if word in held]


@settings(deadline=None)
@given(ROWS, st.integers(2, 4))
def test_a_beginning_is_found_in_the_file_of_its_first_two_characters(
    texts: list[list[str]], length: int
) -> None:
    index = built(texts)
    for row, said in enumerate(texts):
        for word in (word for text in said for word in words_of(text) if len(word) >= length):
            start = word[:length]
            listed = index.bucket(bucket_of(start, index.buckets))["words"]
            found = {
                each for held, rows in listed.items() if held.startswith(start) for each in rows
            }
            assert row in found


@settings(deadline=None)
@given(st.text())
def test_words_are_all_that_is_visible(text: str) -> None:
    words = words_of(text)
    normal = unicodedata.normalize("NFKC", text).lower()
    visible = [c for c in normal if unicodedata.category(c)[0] not in "ZC"]
    assert "".join(words) == "".join(visible)
    for word in words:
        kinds = {unicodedata.category(character)[0] in "LNM" for character in word}
        assert len(kinds) == 1


def test_buckets_are_the_hash_that_the_contract_names() -> None:
    """Published values of FNV-1a, 32 bits."""
    assert bucket_of("a", 1 << 32) == 0xE40C292C
    assert bucket_of("fo", 1 << 32) == 0x6222E842
    assert bucket_of("foobar", 1 << 32) == bucket_of("fo", 1 << 32)


def test_a_word_of_too_many_rows_is_known_and_lists_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_ROWS", 2)
    index = built([["the cat"], ["the dog"], ["the end"]])
    words = {
        word: rows
        for number in range(index.buckets)
        for word, rows in index.bucket(number)["words"].items()
    }
    assert words == {"the": None, "cat": [0], "dog": [1], "end": [2]}


def test_explanations_and_strongest_tokens_of_a_workspace_are_found(made: MadeWorkspace) -> None:
    resources = Resources(Workspace(made.root))
    site = key_of(SUBJECT, SITE)
    buckets = orjson.loads(resources.columns(site))["search"]["buckets"]
    row = orjson.loads(resources.rows(site, 0, 40))["rows"][3]
    texts = [*row["explanations"].values(), *row["tokens"]]
    for word in {word for text in texts for word in words_of(text)}:
        listed = orjson.loads(resources.search(site, bucket_of(word, buckets)))["words"][word]
        assert listed is None or row["neuron"] in listed


def test_the_index_is_kept_and_made_anew_when_it_must_be(tmp_path: Path) -> None:
    here = MadeWorkspace(tmp_path / "here", 30, runs=RUNS[:1], simulated=False).write()
    site = key_of(SUBJECT, SITE)
    found = [Resources(here).search(site, bucket) for bucket in range(64)]
    (kept,) = (tmp_path / "here" / ".cache" / "view").rglob("words.parquet")
    written = kept.stat().st_mtime_ns
    assert [Resources(here).search(site, bucket) for bucket in range(64)] == found
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(b"damaged")
    assert [Resources(here).search(site, bucket) for bucket in range(64)] == found
    folder = Folder(here.explanations / RUNS[0])
    file = f"{SITE}/explanations-00000-00029.parquet"
    table = folder.read(file)
    place = table.column_names.index("text")
    folder.write({file: table.set_column(place, table.schema.field("text"), [["zebra"] * 30])})
    bucket = bucket_of("zebra", 64)
    assert orjson.loads(Resources(here).search(site, bucket))["words"]["zebra"] == list(range(30))


def test_a_workspace_that_cannot_be_written_is_searched_all_the_same(tmp_path: Path) -> None:
    here = MadeWorkspace(tmp_path / "here", 30, runs=RUNS[:1], simulated=False).write()
    (tmp_path / "here" / ".cache").write_text("in the way")
    assert orjson.loads(Resources(here).search(key_of(SUBJECT, SITE), 0))
