"""Tables as Parquet files of a size that the hub, DuckDB and a browser read well."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neuron_explainer.publish.columns import SCORES

GROUP_BYTES = 1 << 25  # of a row group, in memory
FILE_BYTES = 1 << 28  # after which the next file begins


@dataclass(frozen=True, slots=True)
class Written:
    """One config on disk."""

    rows: int
    files: tuple[str, ...]


def write_parts(
    folder: Path,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    file_bytes: int = FILE_BYTES,
    group_bytes: int = GROUP_BYTES,
) -> Written:
    """Write `tables` to `folder/00000.parquet` and so on. Nothing at all when they have no rows.

    The same tables give the same bytes.
    """
    names: list[str] = []
    writer: pq.ParquetWriter | None = None
    sink: pa.NativeFile | None = None
    rows = 0
    for group in _groups(tables, group_bytes):
        if writer is None or sink is None:
            folder.mkdir(parents=True, exist_ok=True)
            names.append(f"{len(names):05d}.parquet")
            sink = pa.OSFile(str(folder / names[-1]), "wb")
            writer = _writer(sink, schema)
        writer.write_table(group, row_group_size=max(1, len(group)))
        rows += len(group)
        if sink.tell() >= file_bytes:
            writer.close()
            sink.close()
            writer = sink = None
    if writer is not None and sink is not None:
        writer.close()
        sink.close()
    return Written(rows, tuple(names))


def _groups(tables: Iterable[pa.Table], group_bytes: int) -> Iterable[pa.Table]:
    """The same rows in tables of about `group_bytes`."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        for piece in _pieces(table, group_bytes):
            waiting.append(piece)
            size += piece.nbytes
            if size >= group_bytes:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting, size = [], 0
    if any(map(len, waiting)):
        yield pa.concat_tables(waiting).combine_chunks()


def _pieces(table: pa.Table, group_bytes: int) -> Iterable[pa.Table]:
    step = max(1, len(table) * group_bytes // max(1, table.nbytes))
    return (table.slice(start, step) for start in range(0, len(table), step))


def _writer(sink: pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    floats = [_leaf(field) for field in schema if pa.types.is_floating(_value(field.type))]
    identity = {field.name for field in SCORES}
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=[_leaf(field) for field in schema if _leaf(field) not in floats],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        write_statistics=[name for name in schema.names if name in identity],
        write_page_checksum=True,
        write_page_index=True,
    )


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _value(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else kind
