"""The tables on disk: columns, types, and who writes them. See docs/formats.md."""

import pyarrow as pa


def records(activation: pa.DataType) -> pa.Schema:
    """`data/<subject>/<site>/records-*`: activations are float16, float32 or float64."""
    return pa.schema(
        [
            pa.field("neuron", pa.int32(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("rank", pa.int16(), nullable=False),
            pa.field("band", pa.int8()),
            pa.field("split", pa.string()),
            pa.field("sequence", pa.int32(), nullable=False),
            pa.field("activations", pa.list_(activation), nullable=False),
        ]
    )


def head_records(activation: pa.DataType) -> pa.Schema:
    """The same of attention heads, one pair of positions a record: float32 or float64."""
    return pa.schema(
        [
            *records(activation),
            pa.field("query", pa.int32(), nullable=False),
            pa.field("key", pa.int32(), nullable=False),
        ]
    )


def pairs(activation: pa.DataType) -> pa.Schema:
    """`pairs-*` beside the records of heads: of each the norms of all pairs of its text."""
    return pa.schema([field for field in records(activation) if field.name != "split"])


NEURONS = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("density", pa.float64()),
        pa.field("maximum", pa.float64()),
        pa.field("mean", pa.float64()),
        pa.field("variance", pa.float64()),
        pa.field("skewness", pa.float64()),
        pa.field("kurtosis", pa.float64()),
        pa.field("quantile_boundaries", pa.list_(pa.float64())),
        pa.field("histogram", pa.list_(pa.int64())),
    ]
)

# token and previous are rows of the corpus's vocabulary; a null token is the pool of rare ones
TOKENS = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("previous", pa.int32()),
        pa.field("token", pa.int32()),
        pa.field("activation", pa.float32(), nullable=False),
        pa.field("count", pa.int32(), nullable=False),
    ]
)

# token is a row of the corpus's vocabulary; an effect is never 0
LOGIT_EFFECTS = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("token", pa.int32(), nullable=False),
        pa.field("effect", pa.float32(), nullable=False),
    ]
)

INPUT_TOKENS = LOGIT_EFFECTS  # the same, of what a neuron reads

# neuron and other are of the same site; a cosine is never 0
NEAREST = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("direction", pa.string(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("other", pa.int32(), nullable=False),
        pa.field("cosine", pa.float32(), nullable=False),
    ]
)

SEQUENCES = pa.schema(
    [
        pa.field("document", pa.int32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),
    ]
)

VOCABULARY = pa.schema(
    [
        pa.field("token", pa.int32(), nullable=False),
        pa.field("bytes", pa.binary(), nullable=False),
        pa.field("special", pa.bool_(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)

EXPLANATIONS = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("explainer", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("table_previous", pa.list_(pa.binary())),
        pa.field("table_token", pa.list_(pa.binary())),
        pa.field("table_activation", pa.list_(pa.float32())),
        pa.field("table_share", pa.list_(pa.float32())),
        pa.field("table_otherwise", pa.float32()),
        pa.field("candidate", pa.string()),
        pa.field("examples", pa.int16()),
        pa.field("examples_dropped", pa.int16()),
        pa.field("items", pa.int16()),
        pa.field("items_dropped", pa.int16()),
    ]
)

SIMULATIONS = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("sequence", pa.int32(), nullable=False),
        pa.field("activations", pa.list_(pa.float32()), nullable=False),
        pa.field("highlighted", pa.list_(pa.bool_())),
        pa.field("genuine", pa.bool_()),
        pa.field("examples", pa.int16()),
        pa.field("examples_dropped", pa.int16()),
    ]
)

FAILURES = pa.schema(
    [
        pa.field("neuron", pa.int32(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
