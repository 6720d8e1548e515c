"""Shards × neurons: what is left to do, done with bounded concurrency, failures kept as rows."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

import pyarrow as pa

from neuron_explainer import schemas
from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.store import SHARD_SIZE, Folder, Shard

Result = TypeVar("Result")
Advance = Callable[[int], None]
_RANGE = re.compile(r"(?P<first>[0-9]{1,12})(-(?P<last>[0-9]{1,12}))?")


class Progress(Protocol):
    """Shows how far a stage is. Called with what is done and how much there is to do."""

    def __call__(self, label: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A block in which the function it gives is called with each bit of progress."""


def silent(label: str, total: int, unit: str) -> AbstractContextManager[Advance]:
    """No progress at all."""
    del label, total, unit
    return nullcontext(lambda _: None)


def parse_neurons(text: str | None, width: int) -> list[int]:
    """`0-99,512` as sorted indices; None means all of them. Raises ConfigError."""
    if text is None:
        return list(range(width))
    chosen: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"'{text}' is no list of neurons: write for example 0-99,512")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first:
            raise ConfigError(f"'{part.strip()}' runs backwards: write {last}-{first}")
        if last >= width:
            raise ConfigError(
                f"there is no neuron {max(first, width)}: the site has 0 to {width - 1}"
            )
        chosen.update(range(first, last + 1))
    return sorted(chosen)


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
    """`function` of each place in `neurons`, in order; a NeuronFailure becomes a Failure."""
    gate = asyncio.Semaphore(concurrency)

    async def one(place: int) -> Result | Failure:
        async with gate:
            try:
                return await function(place)
            except NeuronFailure as failure:
                return Failure(neurons[place], stage, failure.cause, str(failure))
            finally:
                advance(1)

    return await asyncio.gather(*(one(place) for place in range(len(neurons))))


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
    for site in sites:
        for _, file in folder.shards(f"{site}/failures"):
            for cause in folder.read(file, ["cause"])["cause"].to_pylist():
                causes[cause] = causes.get(cause, 0) + 1
    return dict(sorted(causes.items()))
