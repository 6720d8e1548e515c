"""Gives main memory back to the system that is free but held by the C library.

Arrays of ever other sizes leave gaps between those in use: over thousands of batches they add up to
several times of what is in use.
"""

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Do it, where the C library can (glibc); it takes milliseconds."""
    _trim()(0)


@cache
def _trim() -> Callable[[int], int]:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library
        return lambda _: 0
    return found
