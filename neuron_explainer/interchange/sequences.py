"""An imported corpus: each distinct token sequence once, in the vocabulary of its token strings.

Only a sequence that one neuron has more than once in a split is stored more than once: rows are
matched by neuron, kind, split and sequence.

Tokens come as JSON strings and are kept as UTF-8; half a surrogate pair is kept as the three bytes
that UTF-8 would have for it, so that `token_text` gives every string back.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from neuron_explainer import schemas
from neuron_explainer.errors import DataError
from neuron_explainer.record_set import SEQUENCES
from neuron_explainer.store import Folder, replacing
from neuron_explainer.tokens import escape

MOST_DISTINCT = 1 << 20  # tokens; the largest vocabularies have a quarter of that
_BLOCK = 4096  # sequences in one block of the file


def token_bytes(text: str) -> bytes:
    """The bytes of a token that came as a JSON string."""
    return text.encode("utf-8", "surrogatepass")


def token_text(token: bytes) -> str:
    """A token as a JSON string, the inverse of `token_bytes`.

    Bytes that no JSON string stands for, such as a part of a character, are written as `escape`
    writes them, with `\\x..` for each byte that is no UTF-8.
    """
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        text = token.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return escape(token)
    # a pair written as two halves would be read as one character
    return text if json.loads(json.dumps(text)) == text else escape(token)


class SequenceWriter:
    """Numbers token sequences as they come. Memory holds a digest of each distinct one."""

    def __init__(self, file: pa.RecordBatchFileWriter) -> None:
        self._file = file
        self._vocabulary: dict[str, int] = {}
        self._counts = array("q")
        self._numbers: dict[bytes, int] = {}
        self._block: list[array[int]] = []

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """The rows of `vocabulary` that tokens have. Raises DataError when there are too many."""
        ids = [self._vocabulary.setdefault(text, len(self._vocabulary)) for text in texts]
        if len(self._vocabulary) > MOST_DISTINCT:
            raise DataError(f"field tokens: over {MOST_DISTINCT:,} different ones: no vocabulary")
        self._counts.extend([0] * (len(self._vocabulary) - len(self._counts)))
        return ids

    def number(self, tokens: Sequence[str], occurrence: int = 0) -> int:
        """The position of a sequence in the corpus: for each `occurrence` another one."""
        ids = array("i", self.tokens(tokens))
        salt = occurrence.to_bytes(8, "little")
        digest = hashlib.blake2b(ids.tobytes(), digest_size=16, salt=salt).digest()
        known = self._numbers.get(digest)
        if known is not None:
            return known
        for token in ids:
            self._counts[token] += 1
        self._numbers[digest] = len(self._numbers)
        self._block.append(ids)
        if len(self._block) == _BLOCK:
            self.flush()
        return len(self._numbers) - 1

    def flush(self) -> None:
        """Write the sequences that are still in memory."""
        if not self._block:
            return
        first = len(self._numbers) - len(self._block)
        offsets = np.cumsum([0, *map(len, self._block)]).astype(np.int32)
        values = np.concatenate([np.asarray(ids, np.int32) for ids in self._block])
        columns = [
            # what document they are from is not known: each counts as its own
            pa.array(np.arange(first, len(self._numbers), dtype=np.int32)),
            pa.array(np.zeros(len(self._block), np.int32)),
            pa.ListArray.from_arrays(offsets, values),
        ]
        self._file.write_batch(pa.RecordBatch.from_arrays(columns, schema=schemas.SEQUENCES))
        self._block = []

    def vocabulary(self) -> pa.Table:
        """The tokens; `count` is over distinct sequences."""
        counts = np.asarray(self._counts, np.int64)
        columns = [
            pa.array(np.arange(len(counts), dtype=np.int32)),
            pa.array([token_bytes(text) for text in self._vocabulary], pa.binary()),
            pa.array(np.zeros(len(counts), np.bool_)),
            pa.array(counts),
        ]
        return pa.table(columns, schema=schemas.VOCABULARY)

    def totals(self) -> dict[str, int]:
        """The size of the corpus, as its manifest has it."""
        return {"excerpts": len(self._numbers), "tokens": sum(self._counts)}


@contextmanager
def writing_corpus(folder: Folder) -> Iterator[SequenceWriter]:
    """A writer of `folder`, an opened corpus; it is complete once the block ends well."""
    with (
        replacing(folder.path / SEQUENCES) as file,
        pa.ipc.new_file(file, schemas.SEQUENCES) as output,
    ):
        writer = SequenceWriter(output)
        yield writer
        writer.flush()
    folder.register(SEQUENCES, writer.totals()["excerpts"])
    folder.write({"vocabulary.parquet": writer.vocabulary()})
    folder.update({"complete": True, **writer.totals()})
