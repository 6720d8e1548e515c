"""The resources' types, as the server's OpenAPI schema has them. What they mean: docs/view.md."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Number = float | None
Interval = tuple[float, float] | None


class Shape(BaseModel):
    """A resource or a part of one; it has these keys and no others."""

    model_config = ConfigDict(extra="forbid")


class Refusal(Shape):
    """What cannot be had."""

    error: str
    run: str | None


class Live(Shape):
    """What a process can do."""

    try_: bool = Field(alias="try")
    judge: bool


class Problem(Shape):
    """A folder that is damaged or unfinished."""

    what: str
    run: str | None


class Subject(Shape):
    """A subject and its sites."""

    key: str
    name: str
    sites: list[str]


class Site(Shape):
    """A site and the runs about it."""

    key: str
    subject: str
    name: str
    layer: int
    unit: Literal["neuron", "direction", "latent", "head"]
    width: int
    neurons: int
    excerpts: int
    complete: bool
    runs: list[str]


class Simulator(Shape):
    """A simulator of a run."""

    name: str
    null: bool
    predicts: Literal["tokens", "sequences"]
    metrics: list[str]


class Main(Shape):
    """The score that stands for a run."""

    simulator: str
    metric: str


class Run(Shape):
    """A run of explanations."""

    key: str
    name: str
    subject: str
    explainer: str
    model: str | None
    sites: list[str]
    complete: bool
    simulators: list[Simulator]
    main: Main | None


class Workspace(Shape):
    """workspace.json."""

    format: int
    mode: Literal["served", "static"]
    package_version: str
    live: Live
    problems: list[Problem]
    subjects: list[Subject]
    sites: dict[str, Site]
    runs: dict[str, Run]


class Mean(Shape):
    """A mean with its interval."""

    mean: Number
    interval: Interval


class Histogram(Shape):
    """Counts between edges."""

    edges: list[float]
    counts: list[int]


class SiteScore(Mean):
    """One run and simulator on a site."""

    run: str
    simulator: str
    null: bool
    metric: str
    n: int
    undefined: Number
    reasons: dict[str, int]
    random_only: Mean | None
    histogram: Histogram


class SiteFailures(Shape):
    """How many neurons failed for one reason."""

    run: str
    stage: str
    cause: str
    neurons: int


class Summary(Shape):
    """summary.json."""

    scores: list[SiteScore]
    failures: list[SiteFailures]


class ColumnAbout(Shape):
    """What a column is."""

    key: str
    label: str
    kind: Literal["statistic", "score"]
    run: str | None
    simulator: str | None
    metric: str | None


class Search(Shape):
    """How the index of words is cut."""

    buckets: int


class Columns(Shape):
    """columns.json."""

    rows: int
    neurons: list[int] | None
    block: int
    blocks_per_folder: int
    columns: list[ColumnAbout]
    search: Search


class Column(Shape):
    """columns/COLUMN.json."""

    values: list[Number]


class Row(Shape):
    """One neuron in the table."""

    neuron: int
    explanations: dict[str, str]
    failures: dict[str, str]
    tokens: list[str]


class Rows(Shape):
    """rows/FOLDER/BLOCK.json."""

    rows: list[Row]


class Words(Shape):
    """search/BUCKET.json."""

    words: dict[str, list[int] | None]
