"""Text of unknown origin in YAML and Markdown: shown as it is, and never read as markup."""

import re
from collections.abc import Iterable, Sequence

from neuron_explainer.tokens import readable

_MARKUP = re.compile(
    r"[&<>|`*\[\]\\~$@#!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)//|(?<=\bwww)\.", re.I
)
_PLAIN = re.compile(r"[\w ./:,+=()-]+", re.A)


def line(text: str, most: int | None = None) -> str:
    """One line in which nothing is markup, and nothing controls anything; cut after `most`."""
    shown = readable(text.encode("utf-8", "surrogatepass"))
    if most is not None and len(shown) > most:
        shown = shown[: most - 1] + "…"
    return _MARKUP.sub(lambda match: "".join(f"&#{ord(sign)};" for sign in match[0]), shown)


def code(text: str) -> str:
    """A name in a fixed-width font."""
    return f"`{text}`" if _PLAIN.fullmatch(text) and text.strip() else line(text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A table of cells that are Markdown already; `align` has an l or r for each column."""
    marks = ["---:" if place == "r" else "---" for place in align.ljust(len(head), "l")]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))


def bullets(lines: Iterable[str]) -> str:
    """A list of lines that are Markdown already."""
    return "\n".join(f"- {item}" for item in lines)


def scalar(text: str) -> str:
    """A YAML string in double quotes: one line of ASCII, so that nothing in it can end it."""
    shown = readable(text.encode("utf-8", "surrogatepass"))
    return f'"{"".join(map(_yaml, shown))}"'


def _yaml(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    code_point = ord(character)
    if 0x20 <= code_point < 0x7F:
        return character
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"
