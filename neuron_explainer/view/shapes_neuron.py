"""The type of a neuron's resource, as the server's OpenAPI schema has it."""

from typing import Literal

from neuron_explainer.view.shapes import Histogram, Interval, Number, Shape


class Statistics(Shape):
    """A neuron over the corpus."""

    tokens: int
    density: Number
    maximum: Number
    mean: Number
    variance: Number
    skewness: Number
    kurtosis: Number
    quantile_boundaries: list[Number] | None


class Failure(Shape):
    """Why there is no explanation."""

    stage: str
    cause: str
    message: str


class Cause(Shape):
    """Why there is no simulation."""

    cause: str
    message: str


class TableRow(Shape):
    """A row of a lookup explanation."""

    previous: str | None
    token: str
    activation: Number
    share: Number


class Value(Shape):
    """One score."""

    value: Number
    interval: Interval
    undefined: str | None


class Scores(Shape):
    """One simulator's scores."""

    simulator: str
    null: bool
    predicts: Literal["tokens", "sequences"]
    failure: Cause | None
    values: dict[str, Value]


class Explanation(Shape):
    """What a run says."""

    run: str
    explainer: str
    model: str | None
    text: str | None
    failure: Failure | None
    table: list[TableRow] | None
    table_rows: int | None
    otherwise: Number
    scores: list[Scores]


class Simulation(Shape):
    """What a simulator predicted of a record."""

    run: str
    simulator: str
    activations: list[Number]
    correlation: Number


class Record(Shape):
    """A sequence with the neuron's activations."""

    kind: Literal["top", "random", "quantile"]
    band: int | None
    share: Number
    split: Literal["train", "calibration", "valid", "test"] | None
    sequence: int
    tokens: list[str]
    unscored: list[int]
    activations: list[Number]
    maximum: Number
    pair: tuple[int, int] | None
    simulations: list[Simulation]


class Effect(Shape):
    """A token, and what the neuron does to it or it to the neuron."""

    token: str
    effect: Number


class TokenMean(Shape):
    """A token's mean activation."""

    previous: str | None
    token: str | None
    activation: Number
    count: int


class Alike(Shape):
    """A neuron that is alike."""

    direction: Literal["output", "input"]
    neuron: int
    cosine: Number
    explanation: str | None


class Neuron(Shape):
    """neurons/FOLDER/NEURON.json."""

    id: str
    site: str
    subject: str
    name: str
    neuron: int
    unit: Literal["neuron", "direction", "latent", "head"]
    statistics: Statistics | None
    histogram: Histogram | None
    explanations: list[Explanation]
    records: list[Record]
    promoted: list[Effect] | None
    suppressed: list[Effect] | None
    excites: list[Effect] | None
    inhibits: list[Effect] | None
    token_table: list[TokenMean] | None
    nearest: list[Alike] | None
    neuronpedia: str | None
    previous: int | None
    next: int | None
