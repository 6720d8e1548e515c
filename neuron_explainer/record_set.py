"""A record set on disk, as collect or import wrote it: `data/<subject>/<site>/` and its corpus."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from shlex import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neuron_explainer.errors import DataError, SubjectError
from neuron_explainer.neuron_list import parse_neurons
from neuron_explainer.record_rows import Grouped, neighbours
from neuron_explainer.records import (
    NEGATIVE,
    BoolArray,
    Effects,
    NeuronId,
    NeuronRecord,
    Pair,
    Record,
    Statistics,
    Stimulus,
    TokenRows,
)
from neuron_explainer.store import Folder, Shard

SEQUENCES = "sequences.arrow"
TABLES = ("records", "neurons", "tokens", "logit_effects", "input_tokens", "nearest")
_REMEMBERED_SEQUENCES = 1 << 14


class Corpus:
    """The token sequences of one corpus and the vocabulary they are written in."""

    def __init__(self, path: Path, rebuild: str = "neuron-explainer collect") -> None:
        self.folder = Folder(path, rebuild)

    @cached_property
    def _map(self) -> mmap.mmap:
        with self.folder.verified(SEQUENCES).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def release(self) -> None:
        """Let go of the memory of what was read; what is read again is mapped again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def _chunks(self) -> tuple[NDArray[np.int64], list[pa.ListArray]]:
        """Where each record batch begins, and the token lists in it, memory-mapped."""
        try:
            chunks = pa.ipc.open_file(pa.py_buffer(self._map)).read_all()["tokens"].chunks
        except (OSError, pa.ArrowException) as error:
            path = self.folder.path / SEQUENCES
            raise DataError(
                f"{path} is damaged; delete {self.folder.path.parent} and run {self.folder.rebuild}"
            ) from error
        starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        return starts, chunks

    @cached_property
    def vocabulary(self) -> tuple[tuple[bytes, ...], BoolArray]:
        """The bytes of every token, and whether it is special."""
        table = self.folder.read("vocabulary.parquet")
        return tuple(table["bytes"].to_pylist()), table["special"].to_numpy()

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How often each token of the vocabulary occurs, (vocabulary,)."""
        found: NDArray[np.int64] = self.folder.read("vocabulary.parquet")["count"].to_numpy()
        return found

    @cached_property
    def excludes_first(self) -> bool:
        """Whether the first position of a sequence is shown but not scored."""
        return bool(self.folder.manifest()["config"]["excludes_first"])

    @cached_property
    def whole(self) -> bool:
        """Whether it holds all that records were chosen from, not just what was published."""
        return bool(self.folder.manifest()["config"].get("whole", True))

    def __len__(self) -> int:
        return int(self._chunks[0][-1])

    def token_ids(self, sequence: int) -> NDArray[np.int32]:
        """The token ids of one sequence, (tokens,)."""
        starts, chunks = self._chunks
        chunk = int(np.searchsorted(starts, sequence, side="right")) - 1
        ids: NDArray[np.int32] = chunks[chunk][int(sequence - starts[chunk])].values.to_numpy()
        return ids

    def tokens_at(
        self, sequences: NDArray[np.int32], positions: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """The token ids at one position of each of `sequences`, both (places,)."""
        starts, chunks = self._chunks
        chunk = np.searchsorted(starts, sequences, side="right") - 1
        found = np.empty(len(sequences), np.int32)
        for place in np.unique(chunk):
            within = chunk == place
            offsets = chunks[place].offsets.to_numpy()[sequences[within] - starts[place]]
            found[within] = chunks[place].values.to_numpy()[offsets + positions[within]]
        return found

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The number of tokens of every sequence, (sequences,)."""
        parts = [np.diff(chunk.offsets.to_numpy()) for chunk in self._chunks[1]]
        return np.concatenate(parts) if parts else np.array([], np.int32)

    def stimulus(self, sequence: int) -> Stimulus:
        """The tokens of one sequence, and which of them count."""
        return self._stimulus(sequence)

    @cached_property
    def _stimulus(self) -> Callable[[int], Stimulus]:
        @lru_cache(maxsize=_REMEMBERED_SEQUENCES)
        def make(sequence: int) -> Stimulus:
            ids = self.token_ids(sequence)
            names = self.vocabulary[0]
            return Stimulus(tuple(names[token] for token in ids), self.scored(ids))

        return make

    def scored(self, token_ids: NDArray[np.int32]) -> BoolArray:
        """Which positions count: not the first one (unless imported), no special token."""
        scored = ~self.vocabulary[1][token_ids]
        if self.excludes_first and len(scored):
            scored[0] = False
        return scored


@dataclass(frozen=True)
class RecordSet:
    """The records of one site's neurons. `data` is the workspace's `data/` folder."""

    data: Path
    subject: str
    site: str

    @cached_property
    def folder(self) -> Folder:
        """The folder with this site's shards."""
        site, sign = self.site.removesuffix(NEGATIVE), ""
        if site != self.site:
            sign = " --sign negative"
        layer = site.split(".")[1]
        of_layer = site == f"blocks.{layer}.mlp.hook_post"
        where = (f"--layer {layer}" if of_layer else f"--site {quote(site)}") + sign
        command = f"neuron-explainer collect --subject {quote(self.subject)} {where}"
        return Folder(self.data / self.subject / self.site, command)

    @cached_property
    def corpus(self) -> Corpus:
        """The sequences that the records point into."""
        path = self.data / self.subject / "corpus"
        written = path / "manifest.json"
        stamp = written.stat().st_mtime_ns if written.is_file() else 0
        return _corpus(path, self.folder.rebuild, stamp)

    @cached_property
    def width(self) -> int:
        """How many neurons the site has."""
        return int(self.folder.manifest()["width"])

    @cached_property
    def neurons(self) -> Sequence[int]:
        """Those that were collected, in order: all, unless collect was asked for some."""
        return parse_neurons(self._listed, self.width)

    @property
    def _listed(self) -> str | None:
        listed: str | None = self.folder.manifest()["config"].get("neurons")
        return listed

    def chosen(self, text: str | None) -> Sequence[int]:
        """`0-99,512` as indices, by default all that were collected.

        Raises ConfigError when it is no such list, SubjectError when one was not collected.
        """
        if text is None:
            return self.neurons
        chosen = parse_neurons(text, self.width)
        if absent := sorted(set(chosen).difference(self.neurons)):
            raise self._not_collected(absent[0])
        return chosen

    def _not_collected(self, neuron: int) -> SubjectError:
        return SubjectError(
            f"{self.subject}/{self.site} holds the neurons {_brief(self._listed or '')}, not "
            f"{neuron}: choose among them, or collect others under another --name"
        )

    def require_complete(self) -> None:
        """Raises DataError when collect has not finished."""
        if not self.folder.complete:
            raise DataError(
                f"{self.folder.path} is not complete; finish it with {self.folder.rebuild}"
            )

    def check(self, neuron: int) -> None:
        """Raises SubjectError when there is no such neuron."""
        if not 0 <= neuron < self.width:
            raise SubjectError(
                f"{self.subject}/{self.site} has neurons 0 to {self.width - 1}, no {neuron}"
            )
        if self._listed is not None and neuron not in self.neurons:
            raise self._not_collected(neuron)

    def neuron(self, index: int) -> NeuronRecord:
        """One neuron, in milliseconds whatever the number of neurons."""
        self.check(index)
        rows = {
            name: self.folder.read_neuron(name, index)
            for name in TABLES
            if self.folder.shards(name)
        }
        return self._assemble(index, rows)

    def shard(
        self, shard: Shard, tables: Sequence[str] = TABLES, splits: Sequence[str] | None = None
    ) -> Iterator[NeuronRecord]:
        """The neurons of `shard`, in order; of their records only those in `splits`, if given."""
        grouped = {name: Grouped(self.folder, name, splits) for name in tables}
        for index in range(shard.start, shard.stop):
            yield self._assemble(index, {name: table[index] for name, table in grouped.items()})

    def _assemble(self, index: int, rows: dict[str, pa.Table | None]) -> NeuronRecord:
        records, neurons, tokens, effects, inputs, near = (rows.get(name) for name in TABLES)
        promoted, suppressed = self._effects(effects)
        excited_by, inhibited_by = self._effects(inputs)
        statistics = neurons.to_pylist()[0] if neurons is not None and len(neurons) else None
        return NeuronRecord(
            NeuronId(self.subject, self.site, index),
            tuple(self._records(records)) if records is not None else (),
            _statistics(statistics) if statistics else None,
            self._token_rows(tokens) if tokens is not None else None,
            promoted,
            suppressed,
            excited_by,
            inhibited_by,
            None if near is None else neighbours(near),
        )

    def _records(self, table: pa.Table) -> Iterator[Record]:
        columns = {name: table[name].to_pylist() for name in ("kind", "split", "sequence", "band")}
        pairs: list[Pair | None] = [None] * len(table)
        if "query" in table.column_names:  # of attention heads
            pairs = list(zip(table["query"].to_pylist(), table["key"].to_pylist(), strict=True))
        offsets, values = list_column(table["activations"])
        for row, sequence in enumerate(columns["sequence"]):
            stimulus = self.corpus.stimulus(sequence)
            yield Record(
                stimulus.tokens,
                values[offsets[row] : offsets[row + 1]],
                stimulus.scored,
                columns["kind"][row],
                columns["split"][row],
                sequence,
                columns["band"][row],
                pairs[row],
            )

    def _token_rows(self, table: pa.Table) -> TokenRows:
        previous, token = (
            table[name].fill_null(-1).to_numpy().astype(np.int32) for name in ("previous", "token")
        )
        names = self.corpus.vocabulary[0]
        activation, count = table["activation"].to_numpy(), table["count"].to_numpy()
        return TokenRows(names, previous, token, activation, count)

    def _effects(self, table: pa.Table | None) -> tuple[Effects | None, Effects | None]:
        """The tokens of positive effect and those of negative, each by falling strength."""
        if table is None:
            return None, None
        names = self.corpus.vocabulary[0]
        tokens, effects = table["token"].to_pylist(), table["effect"].to_pylist()
        named = [(names[token], effect) for token, effect in zip(tokens, effects, strict=True)]
        promoted = tuple(pair for pair in named if pair[1] > 0)
        return promoted, tuple(pair for pair in reversed(named) if pair[1] < 0)


@lru_cache(maxsize=4)
def _corpus(path: Path, rebuild: str, _written: int) -> Corpus:
    """One corpus for all sites of a subject, so that its sequences are remembered once.

    What is remembered of one that was written anew since is of no use: hence when it was.
    """
    return Corpus(path, rebuild)


def collected_sites(data: Path, subject: str) -> dict[str, int]:
    """The complete record sets of a subject: site → number of neurons, in order of layer."""
    root = data / subject
    found = {}
    for manifest in root.glob("blocks.*/**/manifest.json"):
        record_set = RecordSet(data, subject, manifest.parent.relative_to(root).as_posix())
        if record_set.folder.complete:
            found[record_set.site] = record_set.width
    return dict(sorted(found.items(), key=lambda item: (int(item[0].split(".")[1]), item[0])))


def _brief(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def rows_of(folder: Folder, name: str, shard: Shard, columns: list[str]) -> pa.Table:
    """The rows of a table whose neurons are in `shard`, however its files are cut.

    `columns` must hold `neuron`.
    """
    parts = [
        folder.read(file, columns)
        for held, file in folder.shards(name)
        if held.start < shard.stop and shard.start < held.stop
    ]
    table = pa.concat_tables(parts)
    neuron = table["neuron"]
    within = pc.and_(pc.greater_equal(neuron, shard.start), pc.less(neuron, shard.stop))
    return table.filter(within)


def list_column(
    column: pa.ChunkedArray | pa.ListArray,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Offsets (rows + 1,) and flat values of a list column; null elements become NaN."""
    array = column
    if isinstance(column, pa.ChunkedArray):
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    offsets = array.offsets.to_numpy()
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    flat = values.to_numpy(zero_copy_only=False)
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    return offsets - offsets[0], flat


def _statistics(row: dict[str, object]) -> Statistics:
    fields = {name: row[name] for name in Statistics.__slots__ if name != "histogram"}
    histogram = np.array(row["histogram"] or [], np.int64)  # null where imported
    return Statistics(**fields, histogram=histogram)  # type: ignore[arg-type]
