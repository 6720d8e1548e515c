"""Tokens are bytes; this is how people see them, and how they are written as text and back."""

import re
import unicodedata

_NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2})")


def readable(token: bytes) -> str:
    """One line of harmless text for a terminal or a prompt: nothing in it controls anything.

    Line breaks and tabs become symbols, other control, format and bidirectional characters and
    bytes that are no UTF-8 become `\\x..` or `\\u....`.
    """
    return "".join(_visible(character) for character in token.decode("utf-8", "surrogateescape"))


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape could not decode
        return f"\\x{code - 0xDC00:02x}"
    if character in _NAMED:
        return _NAMED[character]
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


def escape(token: bytes) -> str:
    """`token` as text from which `unescape` gets it back, whatever bytes it holds.

    Valid UTF-8 is kept as it is, but for the backslash, which is doubled.
    """
    text = token.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return "".join(
        f"\\x{ord(character) - 0xDC00:02x}" if 0xDC80 <= ord(character) <= 0xDCFF else character
        for character in text
    )


def unescape(text: str) -> bytes:
    """The inverse of `escape`; a lone backslash, which `escape` never writes, stands for itself."""
    parts, last = [], 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[last : match.start()].encode("utf-8", "surrogatepass"))
        code = match[1]
        parts.append(b"\\" if code == "\\" else bytes.fromhex(code[1:]))
        last = match.end()
    return b"".join([*parts, text[last:].encode("utf-8", "surrogatepass")])


def quoted(token: bytes) -> str:
    """A token in a sentence: quotation marks show where it begins and ends."""
    return f"“{readable(token)}”"
