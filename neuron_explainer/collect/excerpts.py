"""A corpus cut into excerpts, tokenised once and stored once."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer import schemas
from neuron_explainer.errors import CorpusError
from neuron_explainer.record_set import SEQUENCES
from neuron_explainer.store import Folder, replacing
from neuron_explainer.subjects.base import Tokenizer

_DOCUMENTS = 1024  # that are tokenised at once
_CHUNK = 4096  # excerpts in one block of the sequences file
_PIECE = 1 << 20  # characters that are tokenised at once
# a place where no tokenizer in use joins what stands on the two sides
_BREAK = re.compile(r"(?<=\n)(?=\S)|(?<=\S)(?= \S)")


@dataclass(frozen=True, slots=True)
class ExcerptRule:
    """How a document is cut. Lengths are in tokens and do not count BOS."""

    length: int = 64
    minimum: int = 16  # a shorter last excerpt is dropped
    bos: Literal["prepend", "none"] = "prepend"


def cut(tokens: NDArray[np.int32], rule: ExcerptRule) -> list[NDArray[np.int32]]:
    """Consecutive excerpts of one document; the last may be shorter, down to `rule.minimum`."""
    pieces = [tokens[at : at + rule.length] for at in range(0, len(tokens), rule.length)]
    return [piece for piece in pieces if len(piece) >= min(rule.minimum, rule.length)]


def write_corpus(
    folder: Folder,
    documents: Iterable[str],
    tokenizer: Tokenizer,
    rule: ExcerptRule,
    most: int | None = None,
) -> None:
    """Tokenise `documents` into `folder`: sequences, vocabulary and token counts.

    Up to `most` tokens, BOS not counted: the excerpt that would go beyond is the first left out.
    Memory holds one block of excerpts, whatever the corpus. Raises CorpusError when no document is
    long enough for an excerpt.
    """
    counts = np.zeros(len(tokenizer.vocabulary), np.int64)
    prefix = _prefix(tokenizer, rule)
    written = 0
    with replacing(folder.path / SEQUENCES) as file:
        with pa.ipc.new_file(file, schemas.SEQUENCES) as writer:
            excerpts = _scorable(_excerpts(documents, tokenizer, rule), tokenizer, prefix)
            for block in _blocks(excerpts if most is None else _up_to(most, excerpts)):
                writer.write_batch(_sequence_batch(block, prefix))
                ids = np.concatenate([tokens for _, _, tokens in block])
                counts += np.bincount(ids, minlength=len(counts))
                written += len(block)
        if not written:
            raise CorpusError(
                f"the corpus holds no document of {rule.minimum} tokens or more: "
                "give it more text, or a smaller --minimum-tokens"
            )
    folder.register(SEQUENCES, written)
    folder.write({"vocabulary.parquet": _vocabulary(tokenizer, counts)})
    folder.update({"complete": True, "excerpts": written, "tokens": int(counts.sum())})


def _prefix(tokenizer: Tokenizer, rule: ExcerptRule) -> NDArray[np.int32]:
    bos = tokenizer.bos if rule.bos == "prepend" else None
    return np.array([] if bos is None else [bos], np.int32)


Excerpt = tuple[int, int, NDArray[np.int32]]  # document, first token in it, tokens


def _scorable(
    excerpts: Iterator[Excerpt], tokenizer: Tokenizer, prefix: NDArray[np.int32]
) -> Iterator[Excerpt]:
    """Those excerpts that have a token which counts: see Corpus.scored."""
    special, shown_only = tokenizer.special, 1 - len(prefix)
    for excerpt in excerpts:
        if not special[excerpt[2][shown_only:]].all():
            yield excerpt


def _up_to(most: int, excerpts: Iterator[Excerpt]) -> Iterator[Excerpt]:
    for excerpt in excerpts:
        most -= len(excerpt[2])
        if most < 0:
            return
        yield excerpt


def _excerpts(
    documents: Iterable[str], tokenizer: Tokenizer, rule: ExcerptRule
) -> Iterator[Excerpt]:
    for number, pieces in _tokenised(documents, tokenizer):
        rest, start = np.array([], np.int32), 0
        for piece in pieces:
            tokens = np.concatenate([rest, piece])
            whole = len(tokens) - len(tokens) % rule.length
            for at in range(0, whole, rule.length):
                yield number, start + at, tokens[at : at + rule.length]
            rest, start = tokens[whole:], start + whole
        for last in cut(rest, rule):
            yield number, start, last


def _tokenised(
    documents: Iterable[str], tokenizer: Tokenizer
) -> Iterator[tuple[int, Iterable[NDArray[np.int32]]]]:
    """Documents in order; small ones are tokenised together, large ones piece by piece."""
    waiting: list[str] = []
    first = 0
    for document in documents:
        if len(document) > _PIECE or sum(map(len, waiting)) > _PIECE or len(waiting) >= _DOCUMENTS:
            yield from _together(first, waiting, tokenizer)
            first, waiting = first + len(waiting), []
        if len(document) > _PIECE:
            yield first, (tokenizer.encode([piece])[0] for piece in _pieces(document))
            first += 1
        else:
            waiting.append(document)
    yield from _together(first, waiting, tokenizer)


def _together(
    first: int, texts: list[str], tokenizer: Tokenizer
) -> Iterator[tuple[int, Iterable[NDArray[np.int32]]]]:
    for place, tokens in enumerate(tokenizer.encode(texts) if texts else []):
        yield first + place, [tokens]


def _pieces(document: str) -> Iterator[str]:
    start = 0
    while start < len(document):
        match = _BREAK.search(document, start + _PIECE)
        stop = match.start() if match else len(document)
        yield document[start:stop]
        start = stop


def _blocks(excerpts: Iterator[Excerpt]) -> Iterator[list[Excerpt]]:
    block: list[Excerpt] = []
    for excerpt in excerpts:
        block.append(excerpt)
        if len(block) == _CHUNK:
            yield block
            block = []
    if block:
        yield block


def _sequence_batch(block: list[Excerpt], prefix: NDArray[np.int32]) -> pa.RecordBatch:
    tokens = [np.concatenate([prefix, ids]) for _, _, ids in block]
    offsets = np.cumsum([0, *map(len, tokens)]).astype(np.int32)
    columns = [
        pa.array([document for document, _, _ in block], pa.int32()),
        pa.array([start for _, start, _ in block], pa.int32()),
        pa.ListArray.from_arrays(offsets, np.concatenate(tokens)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schemas.SEQUENCES)


def _vocabulary(tokenizer: Tokenizer, counts: NDArray[np.int64]) -> pa.Table:
    names = tokenizer.vocabulary
    columns = [
        pa.array(np.arange(len(names), dtype=np.int32)),
        pa.array(names, pa.binary()),
        pa.array(tokenizer.special),
        pa.array(counts),
    ]
    return pa.table(columns, schema=schemas.VOCABULARY)
