"""What all resources of the viewer share: keys, bytes, numbers, and what cannot be read.

The contract itself is in docs/view.md.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer.errors import UserError
from neuron_explainer.tokens import escape

FORMAT = 1
BLOCK = 16  # rows in a file of rows/: a table sorted by a score shows rows from all over
BLOCKS_PER_FOLDER = 1000
NEURONS_PER_FOLDER = 1000
LONGEST_TEXT = 300  # characters of an explanation in rows/
ACTIVATION_DIGITS, OTHER_DIGITS = 4, 6  # significant

Resource = dict[str, Any]

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]")
_JOINT = "--"
_LONGEST_KEY = 120
_POWERS = np.array([float(f"1e{power}") for power in range(309)])


class Unavailable(Exception):
    """A resource that cannot be had: `status` 404 (not there) or 409 (damaged or unfinished).

    `run` is the command that mends it, if there is one.
    """

    def __init__(self, status: int, message: str, run: str | None = None) -> None:
        super().__init__(shown(message))
        self.status = status
        self.run = None if run is None else shown(run)

    def body(self) -> bytes:
        """What is replied in place of the resource."""
        return encode({"error": str(self), "run": self.run})


@contextmanager
def reading(command: str) -> Iterator[None]:
    """What is damaged in the files read within becomes Unavailable; `command` makes them anew."""
    try:
        yield
    except UserError as error:
        raise Unavailable(409, str(error), command) from error
    except (OSError, pa.ArrowException, KeyError, IndexError, ValueError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise Unavailable(409, f"a file is damaged: {said[0]}", command) from error


def key_of(*names: str) -> str:
    """What names a thing in paths and URLs: distinct for distinct `names`, and always harmless."""
    whole = _JOINT.join(names)
    plain = _NOT_PLAIN.sub("_", whole)
    clear = all(name and _JOINT not in name and name.strip("-") == name for name in names)
    if plain == whole and len(plain) <= _LONGEST_KEY and plain.strip(".") and clear:
        return plain
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{plain[:_LONGEST_KEY].strip('.-') or 'name'}-{digest[:8]}"


def shown(name: str) -> str:
    """The name of a file as text; bytes in it that are no UTF-8 become `\\x..`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@lru_cache(maxsize=1 << 17)
def token_text(token: bytes) -> str:
    """A token as text, with bytes that are no UTF-8 as `\\xNN` and backslashes doubled."""
    return escape(token)


def encode(resource: Resource) -> bytes:
    """The bytes of a resource. NaN and infinities become null."""
    return orjson.dumps(resource, option=orjson.OPT_SERIALIZE_NUMPY)


def significant(values: NDArray[Any], digits: int) -> NDArray[np.float64]:
    """`values` of any shape, each rounded to so many significant digits; NaN stays NaN."""
    exact = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        size = np.floor(np.log10(np.abs(exact)))
        usual = np.isfinite(size)
        places = np.where(usual, digits - 1 - size, 0).astype(np.int64)
        # dividing by a power of ten is exact to the last digit where multiplying by 0.1 is not
        up = _POWERS[np.clip(places, 0, 308)]
        down = _POWERS[np.clip(-places, 0, 308)]
        rounded = np.round(exact * up / down) * down / up
    return np.where(usual & np.isfinite(rounded), rounded, exact)


def number(value: float | None, digits: int = OTHER_DIGITS) -> float | None:
    """One value, rounded likewise; None where undefined."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
