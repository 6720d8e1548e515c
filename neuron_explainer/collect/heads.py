"""What collect keeps of one block's attention heads: strong pairs, random pairs, moments.

A pair counts when both its tokens do: a head that has nothing to do rests on the first token.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer import schemas
from neuron_explainer.collect.batches import Batch
from neuron_explainer.collect.dense import DenseRows
from neuron_explainer.collect.moments import MomentAccumulator, Moments
from neuron_explainer.collect.reservoirs import (
    Reservoir,
    Reservoirs,
    activation_keys,
    priority_keys,
)
from neuron_explainer.collect.state import Composite, Mergeable
from neuron_explainer.errors import SubjectError
from neuron_explainer.head_pairs import flat_index, pair_at
from neuron_explainer.record_set import Corpus
from neuron_explainer.records import BoolArray
from neuron_explainer.splits import assign_splits
from neuron_explainer.store import Shard

_SAMPLE_SEED, _PAIR_SEED = 0x51, 0x9A  # so that excerpts and pairs in them are independent


class HeadCollector(Composite):
    """Of each head the strongest pair of the top excerpts, and a random one of random excerpts.

    With `longest`, the tokens of the longest excerpt, also all pairs of these excerpts.
    """

    def __init__(self, heads: int, top: int, random: int, seed: int, longest: int = 0) -> None:
        self.neurons = heads
        self.seed = seed
        self.whole = longest > 0
        size = 2 + flat_index(longest, 0)  # the query's and the key's position, all pairs' norms
        self._top, self._random = (Reservoirs(heads, (kept,), size) for kept in (top, random))
        self.top: Reservoir = self._top.each[0]
        self.random: Reservoir = self._random.each[0]
        self.moments = MomentAccumulator(heads)
        self._at: NDArray[np.int64] | None = None  # the batch at hand
        self._taken = 0  # excerpts of it

    def parts(self) -> Mapping[str, Mergeable]:
        """Pairs and moments."""
        return {"top": self.top, "random": self.random, "moments": self.moments}

    def update(self, batch: Batch, norms: Tensor) -> None:
        """Take in `norms` (batch, heads, query, key) of one batch."""
        if self._at is batch.whole and batch.start < self._taken:
            return  # a part of a batch that did not fit memory, but was taken in here
        values = norms.to("cpu", torch.float32)
        flat = [_flat_pairs(scored) for scored in batch.scored]
        rows = [_of_pairs(values[place], pairs) for place, pairs in enumerate(flat)]
        positions = torch.from_numpy(batch.positions)
        strongest = [found.argmax(1).numpy() for found in rows]
        drawn = [
            np.random.default_rng([self.seed, _PAIR_SEED, place]).integers(len(pairs), size=len(v))
            for place, pairs, v in zip(batch.positions.tolist(), flat, rows, strict=True)
        ]
        maxima, places = _chosen(rows, flat, strongest)
        norms_drawn, places_drawn = _chosen(rows, flat, drawn)
        if self.whole:
            every = _triangles(values)
            places, places_drawn = (torch.cat([one, every], 1) for one in (places, places_drawn))
        top = self._top.offers(activation_keys(maxima, positions)[None])
        keys = priority_keys(self.seed + _SAMPLE_SEED, self.neurons, positions)
        random = self._random.offers(keys[None])
        commits = [
            self._top.weigh(top, positions, maxima, DenseRows(places)),
            self._random.weigh(random, positions, norms_drawn, DenseRows(places_drawn)),
        ]
        for commit in commits:
            commit()
        for found in rows:
            self.moments.update(found.T.contiguous())
        self._at, self._taken = batch.whole, batch.start + len(batch.positions)


def _flat_pairs(scored: BoolArray) -> NDArray[np.int64]:
    """Flat indices (pairs,) of the pairs whose query and key both count."""
    places = np.flatnonzero(scored)
    later, earlier = np.tril_indices(len(places))
    return flat_index(places[later], places[earlier])


def _of_pairs(norms: Tensor, flat: NDArray[np.int64]) -> Tensor:
    """One excerpt's norms (heads, query, key) at its pairs (heads, pairs)."""
    query, key = pair_at(flat)
    return norms[:, torch.from_numpy(query), torch.from_numpy(key)]


def _chosen(
    rows: list[Tensor], flat: list[NDArray[np.int64]], columns: list[NDArray[np.int64]]
) -> tuple[Tensor, Tensor]:
    """One pair of each excerpt and head: norms (heads, batch), positions (batch, 2, heads)."""
    norms = [
        found.gather(1, torch.from_numpy(column)[:, None])[:, 0]
        for found, column in zip(rows, columns, strict=True)
    ]
    places = [
        torch.from_numpy(np.stack(pair_at(pairs[column])).astype(np.float32))
        for pairs, column in zip(flat, columns, strict=True)
    ]
    return torch.stack(norms, 1), torch.stack(places)


def _triangles(norms: Tensor) -> Tensor:
    """All pairs' norms (batch, pairs, heads), by flat index: those of padding come last."""
    query, key = torch.tril_indices(norms.shape[2], norms.shape[2])
    return norms[:, :, query, key].transpose(1, 2)


class HeadTables:
    """The tables of one block's heads, made from a collector that has seen the whole corpus."""

    def __init__(self, collector: HeadCollector, corpus: Corpus) -> None:
        collector.top.sort()
        collector.random.sort()
        self._collector = collector
        self._corpus = corpus
        self._moments = collector.moments.result()

    def shard(self, shard: Shard) -> dict[str, pa.Table]:
        """The tables `records`, `neurons` and, where they were kept, `pairs` of heads."""
        heads = range(shard.start, shard.stop)
        rows = [row for head in heads for row in self._rows(head)]
        statistics = [_statistics(head, self._moments, self._maximum(head)) for head in heads]
        tables = {
            "records": pa.Table.from_pylist(rows, schemas.head_records(pa.float32())),
            "neurons": pa.Table.from_pylist(statistics, schemas.NEURONS),
        }
        if self._collector.whole:
            pairs = [row | {"activations": row["pairs"]} for row in rows]
            tables["pairs"] = pa.Table.from_pylist(pairs, schemas.pairs(pa.float32()))
        return tables

    def _maximum(self, head: int) -> float:
        largest = float(self._collector.top.maxima[head, 0])
        if not np.isfinite(largest):
            raise SubjectError("what a head writes is not finite: the model itself overflows")
        return largest

    def _rows(self, head: int) -> list[dict[str, object]]:
        kinds = {"top": self._collector.top, "random": self._collector.random}
        counts = [int((kept.positions[head] >= 0).sum()) for kept in kinds.values()]
        splits = assign_splits(counts[0], counts[1])
        return [
            self._row(head, kind, rank, split_of.get(rank))
            for number, kind in enumerate(kinds)
            for split_of in [{at: split for split, held in splits.items() for at in held[number]}]
            for rank in range(counts[number])
        ]

    def _row(self, head: int, kind: str, rank: int, split: str | None) -> dict[str, object]:
        kept = self._collector.top if kind == "top" else self._collector.random
        sequence = int(kept.positions[head, rank])
        query, key = (int(place) for place in kept.activations[head, rank, :2])
        length = int(self._corpus.lengths[sequence])
        activations = np.zeros(length, np.float32)
        activations[query] = float(kept.maxima[head, rank])
        return {
            "neuron": head,
            "kind": kind,
            "rank": rank,
            "band": None,
            "split": split,
            "sequence": sequence,
            "activations": activations,
            "query": query,
            "key": key,
            "pairs": kept.activations[head, rank, 2:][: flat_index(length, 0)].numpy(),
        }


def _statistics(head: int, moments: Moments, maximum: float) -> dict[str, object]:
    figures = {
        name: float(getattr(moments, name)[head])
        for name in ("density", "mean", "variance", "skewness", "kurtosis")
    }
    return {
        "neuron": head,
        "tokens": moments.tokens,
        "maximum": maximum,
        **{name: value if np.isfinite(value) else None for name, value in figures.items()},
        "quantile_boundaries": None,
        "histogram": moments.histogram[head],
    }
