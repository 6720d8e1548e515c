"""A latent's sparse activations as records and statistics, exact over the whole cache.

The records are those that collect takes: the sequences with the largest maximum, earlier ones first
in a tie; sequences drawn uniformly, whether the latent fires in them or not; and sequences drawn
from each quantile band of the maxima. Draws come from a generator seeded by the latent's index.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer import schemas
from neuron_explainer.histogram import HISTOGRAM_EDGES
from neuron_explainer.interchange.columns import ListColumn
from neuron_explainer.interchange.import_job import Fault
from neuron_explainer.interchange.openai_results import IMPORTED
from neuron_explainer.records import Kind, Split
from neuron_explainer.splits import assign_splits

QUANTILES = (0.5, 0.9, 0.99, 0.999)
TOP, RANDOM, PER_BAND = 20, 20, 4
_SEED = 0
_COST = 2  # a record of zeros takes memory, too

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sequences:
    """The cache's token sequences: (sequences, length), and which positions count."""

    tokens: NDArray[np.int32]
    scored: NDArray[np.bool_]


@dataclass(frozen=True)
class Latent:
    """What is known of one latent. `rows` (rows, 3): sequence, position, activation."""

    rows: Floats | None  # None: it is in no file of the cache
    text: str | None  # its explanation
    faults: tuple[Fault, ...] = ()


@dataclass
class DelphiRows:
    """The latents of a shard, as rows of our tables."""

    sequences: Sequences
    with_run: bool
    _columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: [] for name in ("neuron", "kind", "rank", "band", "split", "sequence")
        }
    )
    _activations: ListColumn = field(default_factory=ListColumn)
    _neurons: list[dict[str, object]] = field(default_factory=list)
    _explanations: list[dict[str, object]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many numbers are held."""
        return _COST * self._activations.size

    def add(self, neuron: int, latent: Latent) -> list[Fault]:
        """Add a latent, larger than those before. Returns what of it could not be read."""
        faults = list(latent.faults)
        if latent.text is not None:
            row = {"neuron": neuron, "explainer": IMPORTED, "text": latent.text}
            self._explanations.append(row)
        if latent.rows is None:
            return faults
        fault = _fault(latent.rows, self.sequences)
        if fault is not None:
            return [*faults, ("malformed", f"latent {neuron}: {fault}")]
        maxima = _maxima(latent.rows, self.sequences)
        boundaries = np.quantile(maxima, QUANTILES) if len(maxima) else None
        if len(latent.rows) and boundaries is not None:  # one that never fires has no records
            self._add_records(neuron, latent.rows, maxima, boundaries)
        self._neurons.append(_statistics(neuron, latent.rows, self.sequences, boundaries))
        return faults

    def _add_records(self, neuron: int, rows: Floats, maxima: Floats, boundaries: Floats) -> None:
        order = np.argsort(rows[:, 0], kind="stable")
        rows = rows[order]
        length = self.sequences.tokens.shape[1]
        for kind, band, rank, split, sequence in _chosen(neuron, maxima, boundaries):
            begin, stop = np.searchsorted(rows[:, 0], [sequence, sequence + 1])
            activations = np.zeros(length)
            activations[rows[begin:stop, 1].astype(np.int64)] = rows[begin:stop, 2]
            row = (neuron, kind, rank, band, split, sequence)
            for column, value in zip(self._columns.values(), row, strict=True):
                column.append(value)
            self._activations.append(activations.tolist())

    def tables(self) -> dict[str, dict[str, pa.Table]]:
        """The tables of the record set and of the run, by name."""
        schema = schemas.records(self._activations.narrowest())
        number = schema.field("activations").type.value_type
        columns = [
            self._activations.to_arrow(number)
            if item.name == "activations"
            else pa.array(self._columns[item.name], item.type)
            for item in schema
        ]
        data = {
            "records": pa.table(columns, schema=schema),
            "neurons": pa.Table.from_pylist(self._neurons, schema=schemas.NEURONS),
        }
        if not self.with_run:
            return {"data": data}
        said = pa.Table.from_pylist(self._explanations, schema=schemas.EXPLANATIONS)
        return {"data": data, "explanations": {"explanations": said}}


def _fault(rows: Floats, sequences: Sequences) -> str | None:
    """What is wrong with a latent's rows."""
    if not len(rows):
        return None
    many, length = sequences.tokens.shape
    if rows[:, 0].max() >= many or rows[:, 0].min() < 0:
        return f"field locations: sequence {rows[:, 0].max():.0f}; the cache has {many}"
    if rows[:, 1].max() >= length or rows[:, 1].min() < 0:
        return f"field locations: position {rows[:, 1].max():.0f}; a sequence has {length} tokens"
    if not np.isfinite(rows[:, 2]).all():
        return "field activations: not a finite number"
    places = rows[:, 0] * length + rows[:, 1]
    if len(np.unique(places)) < len(places):
        return "field locations: a position is there twice"
    return None


def _counted(rows: Floats, sequences: Sequences) -> Floats:
    """The rows at positions that count."""
    places = rows[:, :2].astype(np.int64)
    counted: Floats = rows[sequences.scored[places[:, 0], places[:, 1]]]
    return counted


def _maxima(rows: Floats, sequences: Sequences) -> Floats:
    """The largest activation in each sequence, (sequences,); 0 where the latent does not fire."""
    maxima = np.zeros(len(sequences.tokens))
    counted = _counted(rows, sequences)
    np.maximum.at(maxima, counted[:, 0].astype(np.int64), counted[:, 2])
    return maxima


def _chosen(
    neuron: int, maxima: Floats, boundaries: Floats
) -> Iterator[tuple[Kind, int | None, int, Split | None, int]]:
    """Kind, band, rank, split and sequence of each record."""
    top = np.argsort(-maxima, kind="stable")[:TOP]
    generator = np.random.default_rng([_SEED, neuron])
    random = np.sort(generator.permutation(len(maxima))[:RANDOM])
    splits = assign_splits(len(top), len(random))
    of = {
        (kind, position): split
        for split, pair in splits.items()
        for kind, positions in zip(("top", "random"), pair, strict=True)
        for position in positions
    }
    kinds: tuple[tuple[Kind, NDArray[np.int64]], ...] = (("top", top), ("random", random))
    for kind, sequences in kinds:
        for rank, sequence in enumerate(sequences.tolist()):
            yield kind, None, rank, of.get((kind, rank)), sequence
    edges = np.concatenate([[-np.inf], boundaries, [np.inf]])
    for band, (low, high) in enumerate(pairwise(edges)):
        inside = np.flatnonzero((maxima >= low) & (maxima <= high))
        drawn = np.sort(generator.permutation(inside)[:PER_BAND])
        for rank, sequence in enumerate(drawn.tolist()):
            yield "quantile", band, rank, None, sequence


def _statistics(
    neuron: int, rows: Floats, sequences: Sequences, boundaries: Floats | None
) -> dict[str, object]:
    """Over all positions that count; those without a row are 0."""
    values = _counted(rows, sequences)[:, 2]
    tokens = int(sequences.scored.sum())
    row: dict[str, object] = {"neuron": neuron, "tokens": tokens}
    if not tokens or boundaries is None:
        return row
    mean = float(values.sum() / tokens)
    away = values - mean
    empty = tokens - len(values)
    moments = [float((np.sum(away**n) + empty * (-mean) ** n) / tokens) for n in (2, 3, 4)]
    variance = moments[0]
    positive = values[values > 0]
    bins = np.minimum(np.searchsorted(HISTOGRAM_EDGES, positive) + 1, len(HISTOGRAM_EDGES))
    histogram = np.bincount(bins, minlength=len(HISTOGRAM_EDGES) + 1)
    histogram[0] = tokens - len(positive)
    return row | {
        "density": len(positive) / tokens,
        "maximum": float(values.max(initial=0.0 if empty else -np.inf)),
        "mean": mean,
        "variance": variance,
        "skewness": moments[1] / variance**1.5 if variance > 0 else None,
        "kurtosis": moments[2] / variance**2 if variance > 0 else None,
        "quantile_boundaries": boundaries.tolist(),
        "histogram": histogram.tolist(),
    }
