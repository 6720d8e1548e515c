"""The index of words: in which neurons' explanations and strongest tokens each stands."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer.view.contract import Resource, Unavailable, reading
from neuron_explainer.view.entries import SiteEntry
from neuron_explainer.view.strongest import COLUMNS, strongest_in
from neuron_explainer.view.words import bucket_of, buckets_for, words_of

_LOW = 0xFFFFFFFF
MOST_ROWS = 20_000  # of a word; one that is in more says nothing

SCHEMA = pa.schema([("bucket", pa.int32()), ("word", pa.string()), ("rows", pa.list_(pa.int32()))])


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """Words by bucket: a table of `SCHEMA`, sorted by bucket and word."""

    table: pa.Table
    buckets: int

    def bucket(self, number: int) -> Resource:
        """search/BUCKET.json. Raises Unavailable where there is no such bucket."""
        if not 0 <= number < self.buckets:
            raise Unavailable(404, "there is no such part of the index", None)
        held = self.table["bucket"].to_numpy()
        start, stop = np.searchsorted(held, [number, number + 1]).tolist()
        part = self.table.slice(start, stop - start)
        return {"words": dict(zip(part["word"].to_pylist(), part["rows"].to_pylist(), strict=True))}


def build_index(site: SiteEntry, neurons: NDArray[np.int32]) -> SearchIndex:
    """Read all explanations and top records of a site. Raises Unavailable."""
    return index_of(_texts(site), neurons)


def index_of(texts: Iterator[tuple[int, str]], neurons: NDArray[np.int32]) -> SearchIndex:
    """The index of `texts`, each of one neuron, for `neurons`, which are sorted."""
    known: dict[str, int] = {}
    found = array("q")
    for neuron, text in texts:
        for word in set(words_of(text)):
            found.append(known.setdefault(word, len(known)) << 32 | neuron)
    pairs = _with_rows(np.frombuffer(found, np.int64), neurons)
    pairs.sort()  # in place, and not np.unique, which would hash them all: there may be millions
    pairs = pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])[: len(pairs)]]
    del found
    pa.default_memory_pool().release_unused()  # what every record was read into
    buckets = buckets_for(len(neurons))
    return SearchIndex(_table(list(known), pairs, buckets), buckets)


def _with_rows(pairs: NDArray[np.int64], neurons: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows in place of neurons in the lower half of `pairs`; those of other neurons left out."""
    if len(neurons) and int(neurons[-1]) == len(neurons) - 1:  # they are their rows
        inside = (pairs & _LOW) < len(neurons)
        return pairs if inside.all() else pairs[inside]
    held = pairs & _LOW
    inside = np.isin(held, neurons)
    return (pairs[inside] & ~_LOW) | np.searchsorted(neurons, held[inside])


def _table(words: list[str], pairs: NDArray[np.int64], buckets: int) -> pa.Table:
    """`pairs` are numbers of words and, in the lower half, rows; sorted."""
    count = np.bincount(pairs >> 32, minlength=len(words))
    start = np.concatenate([[0], np.cumsum(count)])
    places = np.array([bucket_of(word, buckets) for word in words], np.int32)
    used = np.flatnonzero(count).tolist()
    order = sorted(used, key=lambda number: (places[number], words[number]))
    kept = [number for number in order if count[number] <= MOST_ROWS]
    low = (pairs & _LOW).astype(np.int32)
    values = [low[start[number] : start[number + 1]] for number in kept]
    lengths = [len(each) for each in values]
    common = np.array([count[number] > MOST_ROWS for number in order], np.bool_)
    ends = np.zeros(len(order), np.int64)
    ends[~common] = lengths
    offsets = pa.array(np.concatenate([[0], np.cumsum(ends)]).astype(np.int32))
    flat = np.concatenate(values) if values else np.array([], np.int32)
    rows = pa.ListArray.from_arrays(offsets, pa.array(flat), mask=pa.array(common))
    columns = [pa.array(places[order]), pa.array([words[number] for number in order]), rows]
    return pa.table(columns, schema=SCHEMA)


def _texts(site: SiteEntry) -> Iterator[tuple[int, str]]:
    for run in site.runs:
        with reading(run.folder.rebuild):
            for _, file in run.folder.shards(f"{site.name}/explanations"):
                table = run.folder.read(file, ["neuron", "text"])
                yield from zip(table["neuron"].to_pylist(), table["text"].to_pylist(), strict=True)
    with reading(site.folder.rebuild):
        for _, file in site.folder.shards("records"):
            found = strongest_in(site.folder.read(file, COLUMNS), site.records.corpus)
            for neuron, tokens in found.items():
                yield from ((neuron, token) for token in tokens)
