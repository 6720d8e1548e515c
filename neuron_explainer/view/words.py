"""Words of explanations and tokens, and in which file of the index each is listed.

A word is a run of letters, digits and marks, or a run of other visible characters, of the text
after NFKC and in lower case. The page finds the same words with
`/[\\p{L}\\p{N}\\p{M}]+|[^\\p{L}\\p{N}\\p{M}\\p{Z}\\p{C}]+/gu`.
"""

import re
import sys
import unicodedata
from functools import lru_cache

PREFIX = 2  # characters that name a bucket
_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193


def words_of(text: str) -> list[str]:
    """All words of `text`, in order."""
    return _pattern().findall(unicodedata.normalize("NFKC", text).lower())


def buckets_for(rows: int) -> int:
    """How many files the index of a site with so many neurons has."""
    return 64 if rows <= 4096 else 256 if rows <= 65_536 else 1024


def bucket_of(word: str, buckets: int) -> int:
    """The file that lists `word`: by its first two characters, so that a beginning is there too."""
    return _fnv1a(word[:PREFIX].encode("utf-8", "surrogatepass")) % buckets


def _fnv1a(data: bytes) -> int:
    """The 32-bit hash of Fowler, Noll and Vo, variant 1a."""
    state = _FNV_OFFSET
    for byte in data:
        state = (state ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return state


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    """Python's `re` knows no categories, so the classes are spelled out as ranges."""
    kinds = {"word": "LNM", "hidden": "LNMZC"}
    classes = {name: _ranges(first) for name, first in kinds.items()}
    return re.compile(f"[{classes['word']}]+|[^{classes['hidden']}]+")


def _ranges(majors: str) -> str:
    """Characters whose category begins with one of `majors`, as the inside of a class."""
    parts, start = [], None
    for code in range(sys.maxunicode + 2):
        within = code <= sys.maxunicode and unicodedata.category(chr(code))[0] in majors
        if within and start is None:
            start = code
        elif not within and start is not None:
            parts.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    return "".join(parts)
