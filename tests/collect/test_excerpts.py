"""Documents cut into excerpts: consecutive, within one document, and all of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fake_subject import SPECIAL, FakeTokenizer, words
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuron_explainer.collect.batches import batches
from neuron_explainer.collect.excerpts import ExcerptRule, cut, write_corpus
from neuron_explainer.errors import CorpusError, DataError
from neuron_explainer.record_set import Corpus
from neuron_explainer.store import Folder
from neuron_explainer.subjects.base import Tokenizer
from neuron_explainer.subjects.huggingface import HuggingFaceSubject

_DOCUMENTS = st.lists(st.lists(st.integers(SPECIAL, 9), max_size=60), min_size=1, max_size=8)


def _write(path: Path, documents: Iterable[str], tokenizer: Tokenizer, rule: ExcerptRule) -> Corpus:
    folder = Folder(path)
    folder.open({"excludes_first": True})
    write_corpus(folder, documents, tokenizer, rule)
    return Corpus(path)


def _expected(
    documents: Sequence[Sequence[int]], rule: ExcerptRule, skipped: int
) -> list[tuple[int, int, list[int]]]:
    """Document, start and tokens of every excerpt; `skipped` tokens are shown but not scored."""
    pieces = [
        (number, start, list(tokens[start : start + rule.length]))
        for number, tokens in enumerate(tokens for tokens in documents if tokens)
        for start in range(0, len(tokens), rule.length)
    ]
    return [
        piece
        for piece in pieces
        if len(piece[2]) >= min(rule.minimum, rule.length)
        and any(token != SPECIAL for token in piece[2][skipped:])
    ]


def _stored(corpus: Corpus) -> list[tuple[int, int, list[int]]]:
    with pa.memory_map(str(corpus.folder.path / "sequences.arrow")) as file:
        table = pa.ipc.open_file(file).read_all().to_pydict()
    return list(zip(table["document"], table["start"], table["tokens"], strict=True))


@settings(deadline=None, max_examples=60)
@given(_DOCUMENTS, st.integers(2, 9), st.integers(1, 12), st.booleans())
def test_excerpts_are_every_piece_of_every_document(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    length: int,
    minimum: int,
    bos: bool,
) -> None:
    rule = ExcerptRule(length, minimum, "prepend" if bos else "none")
    expected = _expected(documents, rule, 0 if bos else 1)
    path = tmp_path_factory.mktemp("corpus")
    texts = [words(tokens) for tokens in documents if tokens]
    if not expected:
        with pytest.raises(CorpusError, match="no document"):
            _write(path, texts, FakeTokenizer(10), rule)
        return
    corpus = _write(path, texts, FakeTokenizer(10), rule)
    prefix = [SPECIAL] if bos else []
    assert _stored(corpus) == [(number, at, prefix + tokens) for number, at, tokens in expected]
    for place, (_, _, tokens) in enumerate(expected):
        scored = [token != SPECIAL for token in prefix + tokens]
        assert corpus.stimulus(place).scored.tolist() == [False, *scored[1:]]
    counts = np.bincount(np.concatenate([tokens for _, _, tokens in expected]), minlength=10)
    stored = corpus.folder.read("vocabulary.parquet")["count"].to_numpy()
    np.testing.assert_array_equal(stored, counts)


@pytest.mark.parametrize(("tokens", "kept"), [(15, 0), (16, 1), (64, 1), (79, 1), (80, 2)])
def test_a_last_piece_is_kept_from_16_tokens_on(tokens: int, kept: int) -> None:
    pieces = cut(np.arange(tokens, dtype=np.int32), ExcerptRule())
    assert len(pieces) == kept
    if kept:
        np.testing.assert_array_equal(
            np.concatenate(pieces), np.arange(sum(map(len, pieces)), dtype=np.int32)
        )


def test_a_tokenizer_without_bos_gets_none(tmp_path: Path) -> None:
    tokenizer = FakeTokenizer(10, bos=None)
    corpus = _write(tmp_path, ["t2 t3 t4"], tokenizer, ExcerptRule(8, 2, "prepend"))
    assert corpus.token_ids(0).tolist() == [2, 3, 4]
    assert corpus.stimulus(0).scored.tolist() == [False, True, True]


def test_a_special_token_inside_a_document_is_shown_and_not_scored(tmp_path: Path) -> None:
    documents = ["t2 <|endoftext|> t3 t4"]
    corpus = _write(tmp_path, documents, FakeTokenizer(10), ExcerptRule(8, 2))
    stimulus = corpus.stimulus(0)
    assert stimulus.tokens == (b"<|endoftext|>", b" t2", b"<|endoftext|>", b" t3", b" t4")
    assert stimulus.scored.tolist() == [False, True, False, True, True]


def test_no_document_is_long_enough_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"16 tokens or more.*--minimum-tokens"):
        _write(tmp_path, ["t2 t3"] * 9, FakeTokenizer(10), ExcerptRule())
    assert not list(tmp_path.glob("*.arrow"))


def test_the_last_corpus_stays_when_a_new_one_fails_half_way(tmp_path: Path) -> None:
    corpus = _write(tmp_path, ["t2 t3 t4"], FakeTokenizer(10), ExcerptRule(8, 2))
    before = (tmp_path / "sequences.arrow").read_bytes()

    def documents() -> Iterable[str]:
        yield "t5 t6 t7"
        raise CorpusError("line 2 is bad")

    with pytest.raises(CorpusError, match="line 2"):
        write_corpus(corpus.folder, documents(), FakeTokenizer(10), ExcerptRule(8, 2))
    assert (tmp_path / "sequences.arrow").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def _text_of(corpus: Corpus, document: int) -> bytes:
    names = corpus.vocabulary[0]
    rows = [tokens for number, _, tokens in _stored(corpus) if number == document]
    return b"".join(names[token] for row in rows for token in row[1:])


def test_a_long_document_is_read_piece_by_piece_and_comes_back_whole(
    tmp_path: Path, tiny: Path, tiny_subject: HuggingFaceSubject
) -> None:
    short = "Over the hills — é 東京 😀\n\n  and\tfar away. Twelve eggs cost €3.50 today;\r\n"
    long = "".join(f"{number} {short}" for number in range(15_000))  # two pieces
    assert len(long) > 1 << 20
    rule = ExcerptRule(minimum=1)
    tokenizer = tiny_subject.tokenizer
    corpus = _write(tmp_path, [short, long, short], tokenizer, rule)
    assert [_text_of(corpus, number) for number in range(3)] == [
        text.encode() for text in (short, long, short)
    ]
    starts = [start for number, start, _ in _stored(corpus) if number == 1]
    assert starts == list(range(0, 64 * len(starts), 64))
    # parts that are tokenised alone break where the whole does
    whole = tokenizer.encode([long])[0]
    pieces = [tokens[1:] for number, _, tokens in _stored(corpus) if number == 1]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_long_document_without_a_place_to_break_is_one_piece(
    tmp_path: Path, tiny_subject: HuggingFaceSubject
) -> None:
    text = "ab" * (1 << 19) + "c"
    corpus = _write(tmp_path, [text], tiny_subject.tokenizer, ExcerptRule(minimum=1))
    assert _text_of(corpus, 0) == text.encode()


def _corpus_of(path: Path, lengths: Sequence[int]) -> Corpus:
    rng = np.random.default_rng(0)
    documents = [words(rng.integers(2, 50, length)) for length in lengths]
    return _write(path, documents, FakeTokenizer(50), ExcerptRule(16, 1))


@pytest.mark.parametrize("number", [1, 63, 64, 65, 300, 1500])
@pytest.mark.parametrize("size", [1, 32, 5000])
def test_every_excerpt_is_in_one_batch_padded_on_the_right(
    tmp_path: Path, number: int, size: int
) -> None:
    lengths = np.random.default_rng(number).integers(1, 17, number)
    corpus = _corpus_of(tmp_path, lengths.tolist())
    seen: list[int] = []
    for batch in batches(corpus, size, seed=3):
        assert len(batch.positions) <= size
        for position, tokens, scored in zip(
            batch.positions, batch.tokens, batch.scored, strict=True
        ):
            ids = corpus.token_ids(int(position))
            assert tokens[: len(ids)].tolist() == ids.tolist()
            assert not tokens[len(ids) :].any()
            assert not scored[len(ids) :].any()
            assert scored[: len(ids)].tolist() == corpus.scored(ids).tolist()
            seen.append(int(position))
    assert sorted(seen) == list(range(len(corpus)))


def test_the_order_of_excerpts_is_the_seeds(tmp_path: Path) -> None:
    corpus = _corpus_of(tmp_path, [10] * 400)

    def order(size: int, seed: int) -> NDArray[np.int64]:
        return np.concatenate([batch.positions for batch in batches(corpus, size, seed)])

    np.testing.assert_array_equal(order(7, 0), order(100, 0))
    assert not np.array_equal(order(7, 0), order(7, 1))
    assert not np.array_equal(order(7, 0), np.arange(400))


def test_a_token_that_was_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    corpus = _write(tmp_path, ["t2 t3 t4"], FakeTokenizer(10), ExcerptRule(8, 2))
    path = tmp_path / "sequences.arrow"
    content = bytearray(path.read_bytes())
    content[content.index(bytes([3, 0, 0, 0, 4, 0, 0, 0]))] = 5
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"sequences\.arrow is damaged .*run "):
        Corpus(corpus.folder.path).token_ids(0)
