"""How tables become Parquet files, and back."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP_BYTES = 1 << 18  # small, so that one neuron is read in milliseconds


def serialise(table: pa.Table) -> bytes:
    """A Parquet file as bytes. The first column must be the sorted `neuron`."""
    sink = pa.BufferOutputStream()
    numbers = [_leaf(field) for field in table.schema if _is_number(field.type)]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=max(1, table.num_rows * ROW_GROUP_BYTES // max(1, table.nbytes)),
        write_page_checksum=True,
        write_statistics=[table.schema[0].name],
        use_dictionary=[_leaf(field) for field in table.schema if _is_text(field.type)],
        # a sixth smaller than plain for activations, and faster to write
        column_encoding=dict.fromkeys(numbers, "BYTE_STREAM_SPLIT"),
    )
    return bytes(sink.getvalue())


def deserialise(content: bytes, columns: list[str] | None = None) -> pa.Table:
    """The inverse of `serialise`, with all columns or `columns` in their order."""
    # Not read_table: its threads may let go of `content` when the interpreter is gone already, and
    # the process then ends with "terminate called without an active exception". No slower either.
    table = pq.ParquetFile(pa.BufferReader(content)).read(columns, use_threads=False)
    return table if columns is None else table.select(columns)


def rows_of(
    path: Path, digest: str, neurons: Sequence[int], columns: list[str] | None
) -> pa.Table | None:
    """The rows of `neurons`, in stored order, read from the row groups that may hold them.

    The file is memory-mapped and kept open. None when its SHA-256 is not `digest`, which is checked
    once for as long as the file is not modified. `columns` must hold `neuron`. Raises OSError and
    pyarrow's exceptions.
    """
    file = _opened(str(path), path.stat().st_mtime_ns, digest)
    if file is None:
        return None
    groups = [
        group
        for group in range(file.num_row_groups)
        if _may_hold(file.metadata.row_group(group), neurons)
    ]
    with _READING:
        table = file.read_row_groups(groups, columns=columns, use_threads=False)
    held = table["neuron"]
    if len(neurons) == 1:
        return table.filter(pc.equal(held, neurons[0]))
    return table.filter(pc.is_in(held, pa.array(neurons, held.type)))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_READING = Lock()  # an opened file serves one thread at a time


@lru_cache(maxsize=128)
def _opened(path: str, _modified: int, digest: str) -> pq.ParquetFile | None:
    """The opened file, or None when its SHA-256 is another.

    The whole file is hashed, once, because pyarrow aborts on some damages of a footer.
    """
    if sha256_of(Path(path)) != digest:
        return None
    with Path(path).open("rb") as file:  # by Python: pyarrow takes no path that is not UTF-8
        mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
    source = pa.BufferReader(pa.py_buffer(mapped))
    return pq.ParquetFile(source, page_checksum_verification=True)


def _may_hold(group: pq.RowGroupMetaData, neurons: Sequence[int]) -> bool:
    statistics = group.column(0).statistics
    if statistics is None:
        return True
    low, high = statistics.min, statistics.max
    return any(low <= neuron <= high for neuron in neurons)


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    value = _value_type(kind)
    # one byte has nothing to split, and small integers gain nothing
    wide = pa.types.is_int32(value) or pa.types.is_int64(value)
    return bool(pa.types.is_floating(value) or wide)


def _is_text(kind: pa.DataType) -> bool:
    value = _value_type(kind)
    return bool(pa.types.is_string(value) or pa.types.is_binary(value))
