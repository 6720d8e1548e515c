"""How tables become Parquet files, and back."""

import pyarrow as pa
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
