"""JSON lines of unknown origin, plain or gzip, in bounded memory; and gzip whose bytes repeat."""

import errno
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from neuron_explainer.errors import DataError
from neuron_explainer.store import replacing

LONGEST_LINE = 4 << 20  # bytes; a record of 1,024 tokens takes some 20,000
LARGEST_RATIO = 300  # of unpacked to packed; texts stay far below
SMALL = 64 << 20  # bytes that may be unpacked at any ratio
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_LEVEL = 4


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file, without their ends and without blank ones.

    Raises DataError, which names the file: it cannot be read or is cut short, a line is too long,
    or it unpacks to far more than text does.
    """
    rest, number = b"", 0
    for block in _blocks(path):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, line
        if len(rest) > LONGEST_LINE:
            raise DataError(
                f"{path}, line {number + 1}: over {LONGEST_LINE >> 20} MB; no record is that long"
            )
    if rest.strip():
        yield number + 1, rest


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with _opened(path) as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if packed:
                yield from _unpacked(path, file)
            else:
                while block := file.read(_CHUNK):
                    yield block
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise DataError(f"cannot read {path}: {reason}") from error
    except zlib.error as error:
        raise DataError(f"{path} is damaged: it is no valid gzip; fetch it again") from error


def _opened(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not block
    if not path.is_file():
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    return os.fdopen(descriptor, "rb")


def _unpacked(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The content of all gzip members, in blocks of bounded size."""
    unpacker, inside, made = zlib.decompressobj(wbits=31), False, 0
    while data := file.read(_CHUNK):
        block = b""
        while data or (block and inside):  # what is left inside comes out without new data
            block = unpacker.decompress(data, _CHUNK)
            made += len(block)
            if made > max(SMALL, LARGEST_RATIO * file.tell()):
                raise DataError(
                    f"{path} unpacks to over {LARGEST_RATIO} times its size: it is not read"
                )
            yield block
            inside = not unpacker.eof
            data = unpacker.unconsumed_tail
            if unpacker.eof:
                data, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=31)
    if inside:
        raise DataError(f"{path} is damaged: it is cut short; fetch it again")


@contextmanager
def writing(path: Path) -> Iterator[io.BufferedIOBase]:
    """A gzip file to write: whole or absent, the same bytes for the same content."""
    with (
        replacing(path) as file,
        gzip.GzipFile("", "wb", compresslevel=_LEVEL, fileobj=file, mtime=0) as packed,
        io.BufferedWriter(packed, _CHUNK) as output,
    ):
        yield output
