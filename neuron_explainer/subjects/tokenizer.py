"""The bytes behind the tokens of a Hugging Face tokenizer."""

import json
import re
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.errors import SubjectError
from neuron_explainer.records import BoolArray

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class HuggingFaceTokenizer:
    """A fast tokenizer, with the bytes of its tokens.

    Byte-level BPE writes each byte as one printable character; SentencePiece writes a space as
    U+2581 and a lone byte as `<0x0A>`. Which one it is stands in the tokenizer's own decoder.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer = tokenizer
        self._size = size  # of the embedding, which may be padded beyond the tokenizer's own

    @cached_property
    def vocabulary(self) -> tuple[bytes, ...]:
        """The bytes that each token id stands for; unused ids are empty."""
        backend = self._tokenizer.backend_tokenizer
        byte_level = "ByteLevel" in json.dumps(json.loads(backend.to_str()).get("decoder"))
        added = {token.content for token in self._tokenizer.added_tokens_decoder.values()}
        names = [b""] * self._size
        for name, index in backend.get_vocab(with_added_tokens=True).items():
            if index < self._size:
                literal = name in added
                names[index] = name.encode() if literal else _token_bytes(name, byte_level)
        return tuple(names)

    @cached_property
    def special(self) -> BoolArray:
        """Which token ids are control tokens, (vocabulary,)."""
        special = np.zeros(self._size, bool)
        special[[index for index in self._tokenizer.all_special_ids if index < self._size]] = True
        return special

    @property
    def bos(self) -> int | None:
        """The token that begins a sequence, where there is one."""
        bos: int | None = self._tokenizer.bos_token_id
        return bos

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, without added special tokens."""
        encodings = self._tokenizer.backend_tokenizer.encode_batch_fast(
            list(texts), add_special_tokens=False
        )
        return [np.array(encoding.ids, np.int32) for encoding in encodings]


def load_tokenizer(folder: Path) -> HuggingFaceTokenizer:
    """The tokenizer in a folder, without its model. Raises SubjectError."""
    import transformers

    if not folder.is_dir():
        raise SubjectError(f"{folder} is no folder: give one with a tokenizer.json")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise SubjectError(f"{folder} holds no tokenizer that can be read: {reason}") from error
    if not tokenizer.is_fast:
        raise SubjectError(f"{folder} holds no tokenizer.json: only fast tokenizers are read")
    return HuggingFaceTokenizer(tokenizer, len(tokenizer))


def _token_bytes(name: str, byte_level: bool) -> bytes:
    if byte_level:
        table = _byte_characters()
        if all(character in table for character in name):
            return bytes(table[character] for character in name)
        return name.encode()
    if match := _BYTE_TOKEN.fullmatch(name):
        return bytes.fromhex(match[1])
    return name.replace("▁", " ").encode()


@cache
def _byte_characters() -> dict[str, int]:
    """Byte-level BPE's alphabet: printable bytes are themselves, the others follow U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}
