"""What belongs to a neuron in rows of its own, as lists beside its statistics."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_explainer.publish.columns import EFFECTS, TOKEN_ROWS


def with_token_rows(neurons: pa.Table, rows: pa.Table | None, vocabulary: pa.Array) -> pa.Table:
    """`neurons` with their rows of the token table; null where there is no such table.

    Both are sorted by neuron; `vocabulary` holds the bytes of every token.
    """
    if rows is None:
        return _with_nulls(neurons, TOKEN_ROWS)
    mine = _of(neurons, rows)
    made = {
        "rows_previous": vocabulary.take(mine["previous"]),
        "rows_token": vocabulary.take(mine["token"]),
        "rows_activation": mine["activation"],
        "rows_count": mine["count"],
    }
    return _with_lists(neurons, mine["neuron"], made)


def with_effects(neurons: pa.Table, effects: pa.Table | None, vocabulary: pa.Array) -> pa.Table:
    """`neurons` with the tokens that they promote and suppress, the strongest effect first."""
    if effects is None:
        return _with_nulls(neurons, EFFECTS)
    mine = _of(neurons, effects)
    positive = pc.greater(mine["effect"], 0)
    for name, some, order in (
        ("promoted", mine.filter(positive), "descending"),
        ("suppressed", mine.filter(pc.invert(positive)), "ascending"),
    ):
        strongest = some.sort_by([("neuron", "ascending"), ("effect", order)])
        made = {
            name: vocabulary.take(strongest["token"]),
            f"{name}_effect": strongest["effect"],
        }
        neurons = _with_lists(neurons, strongest["neuron"], made)
    return neurons


def _of(neurons: pa.Table, rows: pa.Table) -> pa.Table:
    """The rows between the first and the last of `neurons`."""
    owners = rows["neuron"].to_numpy()
    start = int(np.searchsorted(owners, neurons["neuron"][0].as_py()))
    stop = int(np.searchsorted(owners, neurons["neuron"][-1].as_py(), side="right"))
    return rows.slice(start, stop - start)


def _with_lists(
    neurons: pa.Table, owners: pa.ChunkedArray, values: Mapping[str, pa.ChunkedArray]
) -> pa.Table:
    """`neurons` with columns of lists, cut where the sorted `owners` change."""
    begins = np.searchsorted(owners.to_numpy(), neurons["neuron"].to_numpy())
    offsets = pa.array([*begins, len(owners)], pa.int32())
    for name, column in values.items():
        flat = pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
        neurons = neurons.append_column(name, pa.ListArray.from_arrays(offsets, flat))
    return neurons


def _with_nulls(neurons: pa.Table, fields: tuple[pa.Field, ...]) -> pa.Table:
    for field in fields:
        neurons = neurons.append_column(field.name, pa.nulls(len(neurons), field.type))
    return neurons
