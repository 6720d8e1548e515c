"""Shards × neurons: what is left to do, done with bounded concurrency, failures kept as rows."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

import pyarrow as pa

from neuron_explainer import schemas
from neuron_explainer.errors import Deferred, NeuronFailure
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.store import SHARD_SIZE, Folder, Shard

Result = TypeVar("Result")
Work = TypeVar("Work")
Tables = Mapping[str, pa.Table]
Advance = Callable[[int], None]
TOGETHER = 16  # shards whose requests a backend gets at once that wants all of them


class Progress(Protocol):
    """Shows how far a stage is. Called with what is done and how much there is to do."""

    def __call__(self, label: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A block in which the function it gives is called with each bit of progress."""


def silent(label: str, total: int, unit: str) -> AbstractContextManager[Advance]:
    """No progress at all."""
    del label, total, unit
    return nullcontext(lambda _: None)


def remaining(folder: Folder, table: str, neurons: Iterable[int]) -> list[Shard]:
    """The neurons that `table` does not hold yet, as ranges that stay inside one shard."""
    done = [shard for shard, _ in folder.shards(table)] if folder.exists else []
    left = [index for index in neurons if not any(index in shard for shard in done)]
    shards: list[Shard] = []
    for index in left:
        if shards and shards[-1].stop == index and index % SHARD_SIZE:
            shards[-1] = Shard(shards[-1].start, index + 1)
        else:
            shards.append(Shard(index, index + 1))
    return shards


async def map_neurons(
    stage: str,
    neurons: Sequence[NeuronId],
    function: Callable[[int], Awaitable[Result]],
    concurrency: int,
    advance: Advance,
) -> list[Result | Failure]:
    """`function` of each place in `neurons`, in order; a NeuronFailure becomes a Failure.

    Raises Deferred, once all were asked, when one of them is answered in a later round.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(place: int) -> Result | Failure | Deferred:
        async with gate:
            try:
                return await function(place)
            except NeuronFailure as failure:
                return Failure(neurons[place], stage, failure.cause, str(failure))
            except Deferred as deferred:
                return deferred
            finally:
                advance(1)

    results = await asyncio.gather(*(one(place) for place in range(len(neurons))))
    made = [result for result in results if not isinstance(result, Deferred)]
    if len(made) < len(results):
        raise Deferred(f"{len(results) - len(made)} neurons wait for an answer")
    return made


async def fill(
    works: Sequence[Work],
    make: Callable[[Work], Awaitable[Tables]],
    write: Callable[[Work, Tables], None],
    at_once: int = 1,
) -> list[Work]:
    """Make and write the tables of each shard; gives the shards that wait for a later round.

    A shard of which one neuron waits is left as it was: its other replies are in the cache.
    """
    waiting: list[Work] = []

    async def one(work: Work) -> None:
        try:
            write(work, await make(work))
        except Deferred:
            waiting.append(work)

    for start in range(0, len(works), at_once):
        group = (one(work) for work in works[start : start + at_once])
        for ended in await asyncio.gather(*group, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
    return waiting


def failure_table(failures: Sequence[Failure]) -> pa.Table:
    """Failures as they are stored."""
    rows = [
        {
            "neuron": failure.neuron.index,
            "stage": failure.stage,
            "cause": failure.cause,
            "message": failure.message,
        }
        for failure in failures
    ]
    return pa.Table.from_pylist(rows, schema=schemas.FAILURES)


def count_causes(folder: Folder, sites: Iterable[str]) -> dict[str, int]:
    """How many failures of each cause a run's folder holds."""
    causes: dict[str, int] = {}
    for site in sites if folder.exists else ():
        for _, file in folder.shards(f"{site}/failures"):
            for cause in folder.read(file, ["cause"])["cause"].to_pylist():
                causes[cause] = causes.get(cause, 0) + 1
    return dict(sorted(causes.items()))
