"""A token table as people type it, one row a line.

    " the"          7.5
    " of" " the"    9        after the token “ of”; of a head, key and query
    otherwise       0.1

Within quotation marks a token is written as in prompts: `\\n`, `\\t`, `\\xNN` for other invisible
characters and bytes that are no UTF-8, `\\\\` for a backslash; and `\\x22` or `\\"` for the mark
itself. Empty lines and lines that begin with `#` say nothing.
"""

import re
from math import isfinite

import numpy as np

from neuron_explainer.records import TokenTable
from neuron_explainer.token_text import read, write
from neuron_explainer.view.contract import Unavailable

OTHERWISE = "otherwise"
_TOKEN = r'"((?:[^"\\]|\\.)*)"'
_ROW = re.compile(rf"(?:{_TOKEN}\s+)?{_TOKEN}\s*[=:]?\s*(\S+)")
_OTHERWISE = re.compile(rf"{OTHERWISE}\s*[=:]?\s*(\S+)", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")
_LARGEST = 1e6
_UNREADABLE = 422


def parse(text: str) -> TokenTable:
    """The table. Raises Unavailable that names the line which cannot be read."""
    rows: dict[tuple[bytes | None, bytes], float] = {}
    otherwise = 0.0
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if found := _OTHERWISE.fullmatch(stripped):
            otherwise = _number(found[1], number)
            continue
        found = _ROW.fullmatch(stripped)
        if found is None:
            raise _refused(number, 'write "token" number, for example " the" 7.5')
        key = (None if found[1] is None else _token(found[1]), _token(found[2]))
        if key in rows:
            raise _refused(number, "this token has a row already")
        rows[key] = _number(found[3], number)
    if not rows:
        raise Unavailable(_UNREADABLE, 'the table has no rows: write "token" number on a line')
    previous, tokens = zip(*rows, strict=True)
    return TokenTable(previous, tokens, tuple(rows.values()), (0.0,) * len(rows), otherwise)


def written(table: TokenTable, most: int) -> tuple[str, int]:
    """The table as text of at most so many characters, and how many rows that leaves out.

    `parse` gets the same single-precision activations back.
    """
    last = f"{OTHERWISE} {_figure(table.otherwise)}\n"
    lines, length = [], len(last)
    rows = zip(table.previous, table.tokens, table.activations, strict=True)
    for previous, token, activation in rows:
        before = "" if previous is None else f"{_quoted(previous)} "
        line = f"{before}{_quoted(token)} {_figure(activation)}\n"
        length += len(line)
        if length > most:
            break
        lines.append(line)
    return "".join([*lines, last]), len(table.tokens) - len(lines)


def _quoted(token: bytes) -> str:
    text = write(token).replace('"', "\\x22")
    return f'"{text}"'


def _token(text: str) -> bytes:
    plain = _ESCAPED.sub(lambda match: "\\x22" if match[1] == '"' else match[0], text)
    return read(plain)


def _figure(value: float) -> str:
    return str(np.float32(value))


def _number(text: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _refused(line, f"“{text[:20]}” is no number") from None
    if not isfinite(value) or abs(value) > _LARGEST:
        raise _refused(line, f"the number must lie between −{_LARGEST:,.0f} and {_LARGEST:,.0f}")
    return value


def _refused(line: int, why: str) -> Unavailable:
    return Unavailable(_UNREADABLE, f"line {line} of the table: {why}")
