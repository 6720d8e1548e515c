"""Which activations are trained on, in which order, in how much memory."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_subject import SITE, SPECIAL, FakeSubject, table_lookup, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from neuron_explainer.collect.corpus import CorpusSource
from neuron_explainer.collect.excerpts import ExcerptRule, write_corpus
from neuron_explainer.errors import SubjectError
from neuron_explainer.record_set import Corpus
from neuron_explainer.store import Folder
from neuron_explainer.train.buffer import Buffer, Reader
from neuron_explainer.train.training import split

_VOCABULARY = 400
_LENGTH = 6


def _reader(
    folder: Path, documents: Sequence[Sequence[int]], size: int = 2, bos: bool = True
) -> Reader:
    """A site whose one neuron is the token's number."""
    numbers = np.arange(_VOCABULARY, dtype=np.float32)[:, None]
    subject = FakeSubject({SITE: table_lookup(numbers)}, _VOCABULARY, SPECIAL if bos else None)
    source = CorpusSource(write_documents(folder / "texts.jsonl", documents))
    corpus = Folder(folder / "corpus")
    corpus.open({"excludes_first": True})
    rule = ExcerptRule(_LENGTH, 1)
    write_corpus(corpus, source.documents(), subject.tokenizer, rule)
    return Reader(subject, SITE, Corpus(folder / "corpus"), size)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """60 excerpts in which no token comes twice."""
    tokens = range(10, 10 + 60 * _LENGTH)
    documents = [tokens[at : at + 4 * _LENGTH] for at in range(0, len(tokens), 4 * _LENGTH)]
    return _reader(tmp_path_factory.mktemp("buffer"), documents)


def _drawn(buffer: Buffer, batch: int, number: int) -> list[list[int]]:
    return [buffer.draw(batch)[:, 0].int().tolist() for _ in range(number)]


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 50), extra=st.integers(0, 300), seed=st.integers(0, 3), data=st.data())
def test_a_pass_draws_every_token_once_in_bounded_memory(
    reader: Reader, batch: int, extra: int, seed: int, data: st.DataObject
) -> None:
    places = torch.arange(data.draw(st.integers(2, 60)))
    tokens = len(places) * _LENGTH
    buffer = Buffer(reader, places, "none", 2 * reader.most + batch + extra, tokens, seed)
    drawn = chain(*_drawn(buffer, batch, -(-tokens // batch)))
    expected = {int(token) for place in places for token in reader.corpus.token_ids(int(place))[1:]}
    assert Counter(drawn) == Counter(expected)
    assert buffer._rows is not None
    assert len(buffer._rows) == 2 * reader.most + batch + extra


def test_neighbours_in_the_text_are_no_neighbours_in_training(reader: Reader) -> None:
    buffer = Buffer(reader, torch.arange(60), "none", 360, 360, 0)
    drawn = np.array(_drawn(buffer, 360, 1)[0])
    assert np.mean(np.diff(drawn) == 1) < 0.05


def test_a_second_pass_has_another_order_and_the_same_seed_the_same(reader: Reader) -> None:
    def rows(seed: int) -> list[list[int]]:
        return _drawn(Buffer(reader, torch.arange(60), "none", 60, 720, seed), 36, 20)

    first = rows(0)
    assert set(Counter(chain(*first)).values()) == {2}
    assert first[:10] != first[10:]
    assert first == rows(0) != rows(1)


def test_special_tokens_and_the_first_position_are_left_out(tmp_path: Path) -> None:
    documents = [[7, SPECIAL, 9], [20, 21, 22]]
    (tmp_path / "a").mkdir()
    with_bos = _reader(tmp_path / "a", documents)
    drawn = Buffer(with_bos, torch.arange(2), "none", 64, 5, 0).draw(9)
    assert sorted(drawn[:, 0].tolist()) == [7, 9, 20, 21, 22]
    (tmp_path / "b").mkdir()
    without = _reader(tmp_path / "b", documents, bos=False)
    drawn = Buffer(without, torch.arange(2), "none", 64, 3, 0).draw(9)
    assert sorted(drawn[:, 0].tolist()) == [9, 21, 22]


def test_rows_are_held_as_they_are_encoded(tmp_path: Path) -> None:
    reader = _reader(tmp_path, [[7, 8, 9]])
    buffer = Buffer(reader, torch.arange(1), "constant_norm_rescale", 64, 3, 0)
    assert buffer.draw(3).tolist() == [[1.0], [1.0], [1.0]]


def test_a_restored_buffer_goes_on_with_the_same_rows(reader: Reader) -> None:
    def fresh() -> Buffer:
        return Buffer(reader, torch.arange(50), "none", 61, 900, 4)

    whole = fresh()
    _drawn(whole, 25, 13)
    state = whole.state()
    rest = _drawn(whole, 25, 20)
    again = fresh()
    again.restore(state)
    assert _drawn(again, 25, 20) == rest


def test_activations_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    reader = _reader(tmp_path, [[7, 8, 9]])
    numbers = np.full((_VOCABULARY, 1), np.inf, np.float32)
    broken = Reader(FakeSubject({SITE: table_lookup(numbers)}), SITE, reader.corpus, 2)
    with pytest.raises(SubjectError, match="infinite or NaN: choose --dtype float32"):
        Buffer(broken, torch.arange(1), "none", 64, 3, 0).draw(1)


@given(st.lists(st.integers(1, 64), min_size=4, max_size=300), st.integers(1, 5000))
def test_held_out_excerpts_are_a_tenth_at_most_and_never_trained_on(
    lengths: list[int], wanted: int
) -> None:
    held, trained = split(torch.tensor(lengths), wanted, 0)
    assert sorted([*held.tolist(), *trained.tolist()]) == list(range(len(lengths)))
    assert 1 <= len(held) <= max(1, len(lengths) // 10)
    tokens = sum(lengths[place] for place in held.tolist())
    assert tokens >= wanted or len(held) == max(1, len(lengths) // 10)
