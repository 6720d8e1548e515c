"""The configs of a published dataset and their columns. See docs/publish.md."""

from collections.abc import Sequence

import pyarrow as pa

from neuron_explainer import schemas

CONFIGS = ("explanations", "scores", "simulations", "records", "features", "runs")
ALWAYS = ("explanations", "runs")  # without these a dataset says nothing

_BYTES, _TEXT = pa.list_(pa.binary()), pa.list_(pa.string())

WHO = (
    pa.field("subject", pa.string(), nullable=False),
    pa.field("site", pa.string(), nullable=False),
    pa.field("layer", pa.int32(), nullable=False),
    pa.field("neuron", pa.int32(), nullable=False),
)

EXPLANATIONS = pa.schema(
    [
        *WHO,
        pa.field("explainer", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("failure_cause", pa.string()),
        *list(schemas.EXPLANATIONS)[3:],
    ]
)

RUNS = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("complete", pa.bool_(), nullable=False),
        pa.field("package_version", pa.string()),
        pa.field("schema_version", pa.int32()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("requests", pa.int64()),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("cached_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("cache_hits", pa.int64()),
        pa.field("cost", pa.float64()),
        pa.field("manifest", pa.string(), nullable=False),
    ]
)

SCORES = (
    *WHO,
    pa.field("simulator", pa.string(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
)

TOKEN_ROWS = (
    pa.field("rows_previous", _BYTES),
    pa.field("rows_token", _BYTES),
    pa.field("rows_activation", pa.list_(pa.float32())),
    pa.field("rows_count", pa.list_(pa.int32())),
)
EFFECTS = (
    pa.field("promoted", _BYTES),
    pa.field("promoted_effect", pa.list_(pa.float32())),
    pa.field("suppressed", _BYTES),
    pa.field("suppressed_effect", pa.list_(pa.float32())),
)
FEATURES = pa.schema([*WHO, *list(schemas.NEURONS)[1:], *TOKEN_ROWS, *EFFECTS])


def scores(stored: Sequence[pa.Schema]) -> pa.Schema:
    """Config `scores`: the metrics of all score tables, in the order in which they first come."""
    metrics = {field.name: field for schema in stored for field in list(schema)[1:]}
    return pa.schema([*SCORES, *metrics.values()])


def simulations(activation: pa.DataType) -> pa.Schema:
    """Config `simulations`."""
    simulator = pa.field("simulator", pa.string(), nullable=False)
    predicted = pa.field("activations", pa.list_(activation), nullable=False)
    stored = list(schemas.SIMULATIONS)[1:]
    kept = [predicted if field.name == "activations" else field for field in stored]
    return pa.schema([*WHO, simulator, *kept])


def records(activation: pa.DataType, heads: bool = False) -> pa.Schema:
    """Config `records`: a row can be read without any other table. Of `heads` it has the pairs."""
    kept = list(schemas.records(activation))[1:]
    if heads:  # null in records of neurons beside
        kept += [pa.field(name, pa.int32()) for name in ("query", "key")]
    tokens = (
        pa.field("tokens", _TEXT, nullable=False),
        pa.field("token_bytes", _BYTES, nullable=False),
        pa.field("scored", pa.list_(pa.bool_()), nullable=False),
    )
    return pa.schema([*WHO, *kept, *tokens])
