"""From what was collected of a site to its tables on disk, one shard of neurons at a time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from neuron_explainer import schemas
from neuron_explainer.collect.bands import BandSample
from neuron_explainer.collect.kept import BAND_SEED
from neuron_explainer.collect.moments import Moments
from neuron_explainer.collect.reservoirs import positions_of
from neuron_explainer.collect.site import SiteCollector
from neuron_explainer.collect.token_table import (
    POOLED,
    HeldOut,
    TokenTableAccumulator,
    best_rows,
)
from neuron_explainer.config import CollectSettings
from neuron_explainer.errors import SubjectError
from neuron_explainer.record_set import Corpus
from neuron_explainer.splits import assign_splits
from neuron_explainer.store import Shard
from neuron_explainer.token_gain import mixture, variance_gain

_ACTIVATION_TYPES = {"float16": pa.float16(), "float32": pa.float32()}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Records of some neurons, one a row, in order of neuron, kind and rank."""

    neuron: NDArray[np.int32]
    kind: NDArray[np.str_]
    rank: NDArray[np.int16]
    band: NDArray[np.int8]  # -1: not a quantile record
    split: NDArray[np.str_]  # "": in no split
    sequence: NDArray[np.int64]
    activations: NDArray[np.float32]  # (rows, time)


class SiteTables:
    """The tables of one site, made from a collector that has seen the whole corpus."""

    def __init__(self, collector: SiteCollector, corpus: Corpus, settings: CollectSettings) -> None:
        kept = collector.kept
        kept.top.sort()
        kept.random.sort()
        self._collector = collector
        self._corpus = corpus
        self._kept_tokens = settings.kept_tokens
        self._whole_table = settings.whole_table
        self._dtype = settings.activations
        self._bands = kept.bands.result(kept.top, kept.random, collector.seed + BAND_SEED)
        self._moments = collector.moments.result()

    def shard(self, shard: Shard) -> dict[str, pa.Table]:
        """The tables `records`, `neurons` and `tokens` of the neurons in `shard`."""
        neurons = slice(shard.start, shard.stop)
        rows = self._rows(neurons)
        tables = {
            "records": _record_table(rows, self._corpus.lengths, self._dtype),
            "neurons": _neuron_table(
                neurons, self._moments, self._collector.kept.top.maxima, self._bands
            ),
        }
        if self._collector.tables:
            tables["tokens"] = self._token_table(neurons, rows)
        return tables

    def _rows(self, neurons: slice) -> _Rows:
        sources = (self._collector.kept.top, self._collector.kept.random)
        layout = _Layout.of(sources[0].order.shape[1], sources[1].order.shape[1], self._bands)
        of_bands = positions_of(self._bands.keys[neurons].flatten(1))
        positions = torch.cat([*(source.positions[neurons] for source in sources), of_bands], 1)
        activations = torch.cat(
            [
                *(source.activations[neurons] for source in sources),
                self._bands.activations[neurons].flatten(1, 2),
            ],
            1,
        )
        present = positions >= 0
        top, random, _ = layout.sizes
        counts = int(present[0, :top].sum()), int(present[0, top : top + random].sum())
        neuron, place = (index.numpy() for index in torch.nonzero(present, as_tuple=True))
        return _Rows(
            (neuron + neurons.start).astype(np.int32),
            layout.kind[place],
            layout.rank[place],
            layout.band[place],
            layout.split(*counts)[place],
            positions[present].numpy(),
            activations[present].numpy(),
        )

    def _token_table(self, neurons: slice, rows: _Rows) -> pa.Table:
        held_out = np.isin(rows.split, ("calibration", "valid", "test"))
        parts: list[pa.Table] = []
        token_means: NDArray[np.float64] | None = None
        for table in self._collector.tables.values():
            cells = _Cells(rows, self._corpus, table, neurons)
            sums, counts = table.without(neurons, cells.held_out(held_out))
            means = sums / np.maximum(counts, 1)
            if token_means is None:
                token_means, token_layout = means, table.layout
                baseline = sums.sum(1, keepdims=True) / np.maximum(1, counts.sum(1, keepdims=True))
            else:  # what a pair adds to its token alone
                tokens = table.layout.names[1].astype(np.int64)
                baseline = token_means[:, [POOLED, *token_layout.rows_of(tokens)]]
            shown = cells.token_counts(rows.split == "train", sums.shape)
            gains = variance_gain(mixture(counts.astype(np.float64), shown), means, baseline)
            kept = counts > 0
            if table.layout.pairs or not self._whole_table:
                kept = best_rows(counts, means, gains, self._kept_tokens)
            parts.append(_token_rows(neurons, table, sums, counts, kept))
        return pa.concat_tables(parts).sort_by([("neuron", "ascending")])


@dataclass(frozen=True)
class _Layout:
    """What stands in each place of a neuron's row of records."""

    sizes: tuple[int, int, int]
    per_band: int

    @classmethod
    def of(cls, top: int, random: int, bands: BandSample) -> "_Layout":
        _, number, per_band = bands.keys.shape
        return cls((top, random, number * per_band), per_band)

    @cached_property
    def kind(self) -> NDArray[np.str_]:
        return np.repeat(np.array(["top", "random", "quantile"]), self.sizes)

    @cached_property
    def rank(self) -> NDArray[np.int16]:
        quantile = np.arange(self.sizes[2]) % self.per_band
        return np.concatenate(
            [np.arange(self.sizes[0]), np.arange(self.sizes[1]), quantile]
        ).astype(np.int16)

    @cached_property
    def band(self) -> NDArray[np.int8]:
        quantile = np.arange(self.sizes[2]) // self.per_band
        return np.concatenate([np.full(sum(self.sizes[:2]), -1), quantile]).astype(np.int8)

    def split(self, top: int, random: int) -> NDArray[np.str_]:
        """The split of each place, for neurons with so many top and random records."""
        splits = np.full(sum(self.sizes), "", "U11")
        for name, (of_top, of_random) in assign_splits(top, random).items():
            splits[list(of_top)] = name
            splits[[self.sizes[0] + place for place in of_random]] = name
        return splits


class _Cells:
    """The (neuron, row of a token table) pairs that records touch."""

    def __init__(
        self, rows: _Rows, corpus: Corpus, table: TokenTableAccumulator, neurons: slice
    ) -> None:
        self._rows = rows
        self._neuron = rows.neuron.astype(np.int64) - neurons.start
        sequences, self._sequence = np.unique(rows.sequence, return_inverse=True)
        time = rows.activations.shape[1]
        self._table_rows = np.zeros((len(sequences), time), np.int64)
        self._scored = np.zeros((len(sequences), time), bool)
        for place, sequence in enumerate(sequences):
            ids = corpus.token_ids(int(sequence))
            self._table_rows[place, : len(ids)] = table.layout.rows_of(ids.astype(np.int64))
            self._scored[place, : len(ids)] = corpus.scored(ids)

    def held_out(self, chosen: NDArray[np.bool_]) -> HeldOut:
        """The cells of the chosen records, a sequence that a neuron holds twice counted once."""
        pairs = self._neuron * len(self._table_rows) + self._sequence
        _, first = np.unique(np.where(chosen, pairs, -1), return_index=True)
        once = first[chosen[first]]
        scored = self._scored[self._sequence[once]]
        neuron = np.broadcast_to(self._neuron[once][:, None], scored.shape)
        rows = self._table_rows[self._sequence[once]]
        return HeldOut(neuron[scored], rows[scored], self._rows.activations[once][scored])

    def token_counts(
        self, chosen: NDArray[np.bool_], shape: tuple[int, ...]
    ) -> NDArray[np.float64]:
        """How often each table row occurs in the chosen records, (neurons, rows)."""
        scored = self._scored[self._sequence[chosen]]
        neuron = np.broadcast_to(self._neuron[chosen][:, None], scored.shape)[scored]
        cells = neuron * shape[1] + self._table_rows[self._sequence[chosen]][scored]
        return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def _token_rows(
    neurons: slice,
    table: TokenTableAccumulator,
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> pa.Table:
    """The rows that are kept, and for single tokens one row without a token: all the others."""
    kept[:, POOLED] = False
    neuron, row = np.nonzero(kept)
    previous, tokens = table.layout.names
    indices = np.arange(neurons.start, neurons.stop, dtype=np.int32)
    own = [
        pa.array(indices[neuron]),
        pa.nulls(len(row), pa.int32()) if previous is None else pa.array(previous[row - 1]),
        pa.array(tokens[row - 1]),
        pa.array((sums[kept] / counts[kept]).astype(np.float32)),
        pa.array(counts[kept].astype(np.int32)),
    ]
    if previous is not None:
        return pa.table(own, schema=schemas.TOKENS)
    total, count = np.where(kept, 0.0, sums).sum(1), np.where(kept, 0, counts).sum(1)
    means = (total / np.maximum(count, 1)).astype(np.float32)
    nothing = pa.nulls(len(indices), pa.int32())
    others = [pa.array(indices), nothing, nothing, pa.array(means), pa.array(count, pa.int32())]
    return pa.concat_tables([pa.table(columns, schema=schemas.TOKENS) for columns in (own, others)])


def _record_table(rows: _Rows, lengths: NDArray[np.int32], dtype: str) -> pa.Table:
    length = lengths[rows.sequence]
    values = rows.activations[np.arange(rows.activations.shape[1]) < length[:, None]]
    _require_finite(values.astype(dtype), dtype)
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    columns = [
        pa.array(rows.neuron),
        pa.array(rows.kind, pa.string()),
        pa.array(rows.rank),
        pa.array(rows.band, mask=rows.band < 0),
        pa.array(rows.split, pa.string(), mask=rows.split == ""),
        pa.array(rows.sequence.astype(np.int32)),
        pa.ListArray.from_arrays(offsets, pa.array(values.astype(dtype))),
    ]
    return pa.table(columns, schema=schemas.records(_ACTIVATION_TYPES[dtype]))


def _require_finite(values: NDArray[np.float16] | NDArray[np.float32], dtype: str) -> None:
    if not np.isfinite(values).all():
        raise SubjectError(
            f"an activation is not finite in {dtype}: collect again with --activations float32, "
            "and if that does not help the model itself overflows"
        )


def _neuron_table(
    neurons: slice, moments: Moments, top_maxima: torch.Tensor, bands: BandSample
) -> pa.Table:
    count = neurons.stop - neurons.start

    def nullable(values: NDArray[np.float64]) -> pa.Array:
        return pa.array(values[neurons], mask=~np.isfinite(values[neurons]))

    columns = [
        pa.array(np.arange(neurons.start, neurons.stop, dtype=np.int32)),
        pa.array(np.full(count, moments.tokens, np.int64)),
        pa.array(moments.density[neurons]),
        nullable(top_maxima[:, 0].double().numpy()),
        *map(nullable, (moments.mean, moments.variance, moments.skewness, moments.kurtosis)),
        _lists(bands.boundaries[neurons].astype(np.float64)),
        _lists(moments.histogram[neurons]),
    ]
    return pa.table(columns, schema=schemas.NEURONS)


def _lists(matrix: NDArray[np.float64] | NDArray[np.int64]) -> pa.ListArray:
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, matrix.reshape(-1))
