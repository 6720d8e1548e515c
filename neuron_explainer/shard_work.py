"""What a stage does to the shards of its folder: those that are missing, and those made anew.

A finished shard is made anew when failed neurons are asked again, or when what it was made from has
changed. Its tables are replaced together: written beside the old ones, made valid by one write of
the manifest, then given the old ones' names. After a kill all of them are the old ones or the new.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from neuron_explainer.errors import Deferred
from neuron_explainer.llm.compose import Stack
from neuron_explainer.llm.forecast import Expected
from neuron_explainer.llm.session import accounted, round_of, wants_all
from neuron_explainer.parquet import serialise
from neuron_explainer.runner import TOGETHER, Advance, Progress, Tables, fill
from neuron_explainer.store import SHARD_SIZE, Folder, Shard, replace_file, replacement_of


@dataclass(frozen=True, slots=True)
class Work:
    """One shard to do: all of it, or `only` those neurons of a finished one."""

    site: str
    shard: Shard
    only: frozenset[int] | None = None

    @property
    def size(self) -> int:
        """How many neurons are asked about."""
        return self.shard.stop - self.shard.start if self.only is None else len(self.only)

    def __contains__(self, neuron: int) -> bool:
        return neuron in self.shard if self.only is None else neuron in self.only

    def file(self, table: str) -> str:
        """The name of this shard's file in a table."""
        return f"{self.site}/{self.shard.file(table)}"


class Make(Protocol):
    """Makes the tables of one shard, by name, with some neurons at once. Raises Deferred."""

    async def __call__(self, work: Work, at_once: int, advance: Advance) -> Tables: ...


@dataclass(frozen=True)
class Job:
    """A stage at work in its folder."""

    label: str
    folder: Folder
    llm: Stack | None
    at_once: int  # neurons
    written: Callable[[Work], None] = lambda _: None  # called after each shard

    async def do(
        self,
        works: Sequence[Work],
        make: Make,
        progress: Progress,
        forecast: Expected | None = None,
    ) -> int:
        """Make and write the tables of all; how many neurons wait for a later round."""
        all_at_once = wants_all(self.llm)
        neurons, shards = (SHARD_SIZE, TOGETHER) if all_at_once else (self.at_once, 1)
        with progress(self.label, sum(work.size for work in works), "neurons") as advance:
            left = await fill(works, lambda work: make(work, neurons, advance), self._write, shards)
        if not left:
            self.folder.update({"complete": True})
        if self.llm is not None:
            # of a round that has left some waiting, nobody's replies can be told apart
            done = 0 if left else sum(work.size for work in works if work.only is None)
            before = self.folder.manifest().get("spending", {})
            spent = accounted(before, self.llm.spending, done, forecast)
            self.folder.update({"spending": spent})
        return sum(work.size for work in left)

    def _write(self, work: Work, tables: Tables) -> None:
        ended = round_of(self.llm)
        if ended is not None and ended.holds_back:
            raise Deferred("this round only gathers requests")
        files = {work.file(name): table for name, table in tables.items()}
        if not self.folder.has(*files):
            self.folder.write(files)
        elif work.only is None:
            rewrite(self.folder, files)
        else:
            old = {file: self.folder.read(file) for file in files}
            rewrite(
                self.folder,
                {file: merged(old[file], table, work.only) for file, table in files.items()},
            )
        self.written(work)


def to_retry(
    folder: Folder, site: str, causes: Collection[str], chosen: Collection[int] | None = None
) -> Iterator[Work]:
    """The finished shards of `site` in which neurons failed for one of `causes`."""
    if not causes or not folder.exists:
        return
    for shard, file in folder.shards(f"{site}/failures"):
        rows = folder.read(file, ["neuron", "cause"]).to_pylist()
        failed = {row["neuron"] for row in rows if row["cause"] in causes}
        if only := frozenset(failed if chosen is None else failed.intersection(chosen)):
            yield Work(site, shard, only)


def merged(old: pa.Table, new: pa.Table, neurons: Collection[int]) -> pa.Table:
    """`old` with the rows of `neurons` as `new` has them, in order of neurons."""
    known = pc.is_in(old["neuron"], pa.array(sorted(neurons), pa.int32()))
    # a file names the items of its lists otherwise, which would show in the bytes
    kept = old.filter(pc.invert(known)).cast(new.schema)
    both = pa.concat_tables([kept, new])
    return both.take(pc.sort_indices(both["neuron"])).combine_chunks()


def rewrite(folder: Folder, tables: Tables) -> None:
    """Replace finished tables of one shard together; what was derived from them is no longer done.

    Nothing is written when nothing has changed.
    """
    made = {file: serialise(table) for file, table in tables.items()}
    entries = {
        file: {"rows": tables[file].num_rows, "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in made.items()
    }
    shards = folder.manifest()["shards"]
    if all(shards.get(file) == entry for file, entry in entries.items()):
        return
    for file, content in made.items():
        replace_file(replacement_of(folder.path / file), content)
    derived = set(_of_the_same_shard(shards, tables))
    kept = {file: entry for file, entry in shards.items() if file not in derived}
    folder.update({"shards": kept | entries, "moving": sorted(tables)})
    for file in derived:
        (folder.path / file).unlink(missing_ok=True)
    settle(folder)


def _of_the_same_shard(listed: Collection[str], tables: Collection[str]) -> Iterator[str]:
    ends = {_place_of(file) for file in tables}
    yield from (file for file in listed if file not in tables and _place_of(file) in ends)


def _place_of(file: str) -> tuple[str, str]:
    """The site and the range of neurons in a shard's name."""
    site, _, name = file.rpartition("/")
    return site, "-".join(name.split("-")[-2:])


def settle(folder: Folder) -> None:
    """Finish a replacement in which a process was killed, forward or back."""
    moving = folder.manifest().get("moving", ())
    for file in moving:
        path = folder.path / file
        if (waiting := replacement_of(path)).is_file():
            waiting.replace(path)
    if moving:
        folder.update({"moving": None})
    for stray in folder.path.rglob(".*.next"):
        stray.unlink(missing_ok=True)
