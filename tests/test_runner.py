"""What is left to do, and doing it for many neurons at once."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer import schemas
from neuron_explainer.errors import ConfigError, Deferred, NeuronFailure
from neuron_explainer.neuron_list import parse_neurons
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.runner import (
    count_causes,
    failure_table,
    fill,
    map_neurons,
    remaining,
    silent,
)
from neuron_explainer.store import SHARD_SIZE, Folder, Shard

WIDTH = 4 * SHARD_SIZE


def _ids(number: int) -> list[NeuronId]:
    return [NeuronId("tiny", "blocks.0.mlp.hook_post", index) for index in range(number)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, list(range(10))),
        ("3", [3]),
        ("0-2,7", [0, 1, 2, 7]),
        (" 7 , 0-1", [0, 1, 7]),
        ("1-3,2-4,2", [1, 2, 3, 4]),
        ("4-4", [4]),
        ("09", [9]),
    ],
)
def test_neurons_are_written_as_numbers_and_ranges(text: str | None, expected: list[int]) -> None:
    assert parse_neurons(text, 10) == expected


@pytest.mark.parametrize("text", ["", ",", "a", "1-", "-1", "1-2-3", "1.5", "²", "٣", "0x1", "1 2"])
def test_what_is_no_list_of_neurons_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="write for example 0-99,512"):
        parse_neurons(text, 10)


@pytest.mark.parametrize(("text", "first"), [("10", 10), ("0-10", 10), ("12-20", 12)])
def test_the_first_neuron_that_does_not_exist_is_named(text: str, first: int) -> None:
    with pytest.raises(ConfigError, match=f"there is no neuron {first}: the site has 0 to 9"):
        parse_neurons(text, 10)


def test_a_range_that_runs_backwards_is_turned_round_in_the_message() -> None:
    with pytest.raises(ConfigError, match="'5-3' runs backwards: write 3-5"):
        parse_neurons("1,5-3", 10)


def test_a_huge_range_is_refused_without_being_counted_out() -> None:
    with pytest.raises(ConfigError, match="there is no neuron 10"):
        parse_neurons("0-999999999999", 10)


class _Finished(Folder):
    """A folder in which some shards are done."""

    def __init__(self, shards: list[Shard]) -> None:
        super().__init__(Path("nowhere"))
        self._done = shards

    @property
    def exists(self) -> bool:
        return True

    def shards(self, name: str) -> list[tuple[Shard, str]]:
        return [(shard, shard.file(name)) for shard in self._done]


@st.composite
def _shards(draw: st.DrawFn) -> list[Shard]:
    edges = sorted(draw(st.sets(st.integers(0, WIDTH), max_size=8)))
    return [Shard(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]


@given(st.sets(st.integers(0, WIDTH - 1), max_size=30), _shards(), st.booleans())
def test_done_and_remaining_neurons_are_those_asked_for_and_share_none(
    asked: set[int], done: list[Shard], everything: bool
) -> None:
    asked = set(range(WIDTH)) if everything else asked
    left = remaining(_Finished(done), "explanations", sorted(asked))
    covered = [index for shard in left for index in range(shard.start, shard.stop)]
    already = {index for shard in done for index in range(shard.start, shard.stop)}
    assert covered == sorted(asked - already)
    for shard in left:
        assert shard.start // SHARD_SIZE == (shard.stop - 1) // SHARD_SIZE


def test_everything_remains_where_nothing_was_written(tmp_path: Path) -> None:
    left = remaining(Folder(tmp_path / "none"), "explanations", range(SHARD_SIZE + 1))
    assert left == [Shard(0, SHARD_SIZE), Shard(SHARD_SIZE, SHARD_SIZE + 1)]


def test_results_keep_the_order_of_the_neurons_whatever_finishes_first() -> None:
    async def slow_first(place: int) -> int:
        for _ in range(20 - place):
            await asyncio.sleep(0)
        return place

    progress: list[int] = []
    results = asyncio.run(map_neurons("explain", _ids(20), slow_first, 20, progress.append))
    assert results == list(range(20))
    assert sum(progress) == 20


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_no_more_neurons_are_worked_on_at_once_than_allowed(concurrency: int) -> None:
    running = highest = 0

    async def counted(place: int) -> int:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0)
        running -= 1
        return place

    asyncio.run(map_neurons("explain", _ids(30), counted, concurrency, lambda _: None))
    assert highest == min(30, concurrency)


def test_a_neuron_that_fails_becomes_a_failure_and_the_others_go_on() -> None:
    async def odd_ones_fail(place: int) -> int:
        if place % 2:
            raise NeuronFailure("never-active", f"neuron {place} is silent")
        return place

    neurons, progress = _ids(4), list[int]()
    results = asyncio.run(map_neurons("explain", neurons, odd_ones_fail, 2, progress.append))
    assert results[::2] == [0, 2]
    assert results[3] == Failure(neurons[3], "explain", "never-active", "neuron 3 is silent")
    assert sum(progress) == 4


def test_all_neurons_are_asked_before_one_that_waits_holds_them_up() -> None:
    asked: list[int] = []

    async def second_waits(place: int) -> int:
        asked.append(place)
        if place == 1:
            raise Deferred("a later round")
        return place

    with pytest.raises(Deferred, match="1 neurons wait"):
        asyncio.run(map_neurons("explain", _ids(4), second_waits, 1, lambda _: None))
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_shards_that_wait_are_given_back_and_the_others_written(at_once: int) -> None:
    written: list[int] = []
    running = highest = 0

    async def make(work: int) -> dict[str, pa.Table]:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0)
        running -= 1
        if work % 2:
            raise Deferred("a later round")
        return {}

    waiting = asyncio.run(fill(range(5), make, lambda work, _: written.append(work), at_once))
    assert (sorted(waiting), sorted(written)) == ([1, 3], [0, 2, 4])
    assert highest == min(5, at_once)


@pytest.mark.parametrize("error", [KeyError("a bug"), ConfigError("a typo"), MemoryError()])
def test_every_other_error_ends_the_run(error: Exception) -> None:
    async def broken(place: int) -> int:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(map_neurons("explain", _ids(3), broken, 2, lambda _: None))


def test_no_neurons_are_no_work() -> None:
    function: Callable[[int], Awaitable[int]] = pytest.fail  # type: ignore[assignment]
    assert asyncio.run(map_neurons("explain", [], function, 1, lambda _: None)) == []


def test_failures_are_stored_and_counted_by_cause(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run")
    folder.open({})
    failures = [
        Failure(neuron, "explain", cause, "why")
        for neuron, cause in zip(_ids(3), ["timeout", "never-active", "timeout"], strict=True)
    ]
    table = failure_table(failures)
    assert table.schema == schemas.FAILURES
    site = "blocks.0.mlp.hook_post"
    folder.write({f"{site}/{Shard(0, 3).file('failures')}": table})
    assert count_causes(folder, [site]) == {"never-active": 1, "timeout": 2}
    assert failure_table([]).schema == schemas.FAILURES
    assert isinstance(table, pa.Table)


def test_silent_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with silent("explain", 3, "neurons") as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
