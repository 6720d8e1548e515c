"""Tokens as they stand in a prompt: visible text on one line, and got back whatever they hold.

A prompt's own tabs and line breaks then part its rows without doubt, and nothing in a token reads
as `<start>`, `<end>` or a tokenizer's special token, which some servers would not take as text.
Where stretches of text are marked «like this», the marks in the text itself are escaped too.
"""

import re
import unicodedata
from functools import lru_cache

OPEN, CLOSE = "«", "»"

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}
_MARKS = {OPEN: f"\\{OPEN}", CLOSE: f"\\{CLOSE}"}
_MEANING = {written: character.encode() for character, written in (_SHORT | _MARKS).items()}
_ESCAPE = re.compile(rf"\\(?:[ntr\\{OPEN}{CLOSE}]|x[0-9a-f]{{2}})")
# What this package's prompts and well-known tokenizers reserve. Other tags, as in HTML, are text.
_RESERVED = re.compile(
    r"<(?=[|｜]|/?(?:start|end|s|unk|pad|bos|eos|mask|(?:start|end)_of_turn|think|tool_call)>)"
)
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@lru_cache(maxsize=1 << 16)
def write(token: bytes) -> str:
    """`token` as visible text on one line, from which `read` gets it back."""
    text = token.decode("utf-8", "surrogateescape")
    return _RESERVED.sub(r"\\x3c", "".join(map(_visible, text)))


def write_among_marks(text: bytes) -> str:
    """As `write`, for text in which stretches are marked with `OPEN` and `CLOSE`."""
    written = write(text)
    return written.replace(OPEN, _MARKS[OPEN]).replace(CLOSE, _MARKS[CLOSE])


def read(text: str) -> bytes:
    """The inverse of both; a backslash that they never write stands for itself."""
    parts, last = [], 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[last : match.start()].encode("utf-8", "surrogatepass"))
        parts.append(_MEANING.get(match[0]) or bytes.fromhex(match[0][2:]))
        last = match.end()
    return b"".join([*parts, text[last:].encode("utf-8", "surrogatepass")])


def _visible(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape could not decode
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in _INVISIBLE:
        return "".join(f"\\x{byte:02x}" for byte in character.encode())
    return character
