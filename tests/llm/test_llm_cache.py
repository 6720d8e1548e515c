"""Replies are saved before they are used, asked for once, and outlive cancelling."""

import asyncio
import random
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuron_explainer.errors import DataError, LLMError, NeuronFailure, WorkspaceError
from neuron_explainer.llm.base import (
    Capabilities,
    Choice,
    Logprobs,
    Message,
    Request,
    Response,
    Usage,
)
from neuron_explainer.llm.cache import Cache, decode, encode


def request(name: str) -> Request:
    return Request((Message("user", name),), 4)


class Counting:
    """Answers with its number of the call, after giving way a few times."""

    def __init__(self, pauses: int = 3) -> None:
        self.model = "m"
        self.calls: Counter[Request] = Counter()
        self.inside: Counter[Request] = Counter()
        self.pauses = pauses
        self.failing = False

    async def capabilities(self) -> Capabilities:
        if self.failing:
            raise LLMError("gone")
        return Capabilities(True, False, context=99)

    async def complete(self, request: Request) -> Response:
        self.calls[request] += 1
        self.inside[request] += 1
        assert self.inside[request] == 1, "asked twice at once"
        try:
            for _ in range(self.pauses):
                await asyncio.sleep(0)
        finally:
            self.inside[request] -= 1
        if self.failing:
            raise NeuronFailure("timeout", "no answer")
        assert not isinstance(request.prompt, str)
        text = f"{request.prompt[0].content} {self.calls[request]}"
        return Response((Choice(text, "stop"),), Usage(1, 0, 1, 1), "m")

    async def close(self) -> None:
        """Nothing is open."""


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "cancel", "pause"]), st.integers(0, 4)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_is_asked_and_cancelled_a_reply_is_asked_for_once_at_a_time(
    steps: list[Step],
) -> None:
    async def play(path: Path) -> None:
        inner = Counting()
        cache = Cache(inner, path)
        tasks: list[tuple[str, asyncio.Task[Response]]] = []
        cancelled: set[asyncio.Task[Response]] = set()
        for step, number in steps:
            if step == "ask":
                name = f"q{number}"
                tasks.append((name, asyncio.create_task(cache.complete(request(name)))))
            elif step == "cancel" and tasks:
                task = tasks[number % len(tasks)][1]
                task.cancel()
                cancelled.add(task)
            else:
                await asyncio.sleep(0)
        replies = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        texts: dict[str, set[str]] = {}
        for (name, task), reply in zip(tasks, replies, strict=True):
            if isinstance(reply, Response):
                assert reply.text.startswith(name + " ")
                texts.setdefault(name, set()).add(reply.text)
            else:
                assert isinstance(reply, asyncio.CancelledError)
                assert task in cancelled
        assert all(len(found) == 1 for found in texts.values())  # the saved one, for all
        before = inner.calls.total()
        for name, found in texts.items():
            assert {(await cache.complete(request(name))).text} == found
        assert inner.calls.total() == before
        await cache.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "cache"))


def test_many_that_ask_the_same_share_one_request(tmp_path: Path) -> None:
    async def run() -> None:
        inner = Counting()
        cache = Cache(inner, tmp_path / "deep" / "cache")
        replies = await asyncio.gather(*(cache.complete(request("a")) for _ in range(50)))
        assert {reply.text for reply in replies} == {"a 1"}
        assert inner.calls.total() == 1
        await cache.close()

    asyncio.run(run())


def test_a_failure_is_shared_and_not_saved(tmp_path: Path) -> None:
    async def run() -> None:
        inner = Counting()
        inner.failing = True
        cache = Cache(inner, tmp_path / "cache")
        waiting = (cache.complete(request("a")) for _ in range(3))
        replies = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(reply, NeuronFailure) for reply in replies)
        assert inner.calls.total() == 1
        inner.failing = False
        assert (await cache.complete(request("a"))).text == "a 2"
        await cache.close()

    asyncio.run(run())


def test_what_arrived_before_a_cancel_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache"

    async def interrupted() -> int:
        inner = Counting(pauses=0)
        slow = Counting(pauses=10**9)
        cache, stuck = Cache(inner, path), Cache(slow, path)
        tasks = [asyncio.create_task(cache.complete(request(str(n)))) for n in range(20)]
        tasks += [asyncio.create_task(stuck.complete(request(f"slow {n}"))) for n in range(5)]
        for _ in range(6):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        await cache.close()
        await stuck.close()
        return sum(isinstance(reply, Response) for reply in replies)

    async def resumed() -> Counting:
        inner = Counting()
        cache = Cache(inner, path)
        for number in range(20):
            await cache.complete(request(str(number)))
        await cache.close()
        return inner

    arrived = asyncio.run(interrupted())
    assert arrived == 20
    assert asyncio.run(resumed()).calls.total() == 0


def test_the_reply_that_was_saved_first_is_used_by_all(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = Counting(3), Counting(9)
        one, other = Cache(first, tmp_path / "cache"), Cache(second, tmp_path / "cache")
        second.calls[request("a")] = 5  # would answer "a 6"
        replies = await asyncio.gather(one.complete(request("a")), other.complete(request("a")))
        assert [reply.text for reply in replies] == ["a 1", "a 1"]
        await one.close()
        await other.close()

    asyncio.run(run())


def test_capabilities_are_remembered_for_when_the_server_is_gone(tmp_path: Path) -> None:
    async def run() -> None:
        inner = Counting()
        cache = Cache(inner, tmp_path / "cache")
        inner.failing = True
        with pytest.raises(LLMError):
            await cache.capabilities()
        inner.failing = False
        known = await cache.capabilities()
        inner.failing = True
        assert await cache.capabilities() == known
        await cache.close()

    asyncio.run(run())


def test_a_response_survives_saving() -> None:
    chance = random.Random(1)
    tokens = [chance.choice(["a", "\t", "é", "�", "\u200b"]) for _ in range(500)]
    columns = Logprobs(
        tokens,
        [None, *(-chance.random() for _ in tokens[1:])],
        [None, *({token: -0.5, "0": -9999.0} for token in tokens[1:])],
        list(range(500)),
    )
    short = Response((Choice("x", "stop"),), Usage(1, 2, 3, 4), "m")
    long = Response((Choice("x", "length", None, columns), Choice("", "stop")), Usage(), "m")
    assert decode(encode(short)) == short
    assert decode(encode(long)) == long
    assert len(encode(long)) < 10_000  # 30,000 uncompressed
    for damaged in (b"", b"{", b"{}", encode(long)[:-9]):
        with pytest.raises(DataError, match="damaged"):
            decode(damaged)


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"no database, but long enough to look at" * 99)
    with pytest.raises(WorkspaceError, match="cache cannot be used"):
        Cache(Counting(), tmp_path / "cache")


def test_the_log_is_copied_into_the_database_when_it_closes(tmp_path: Path) -> None:
    async def run() -> None:
        cache = Cache(Counting(), tmp_path / "cache")
        for number in range(10):
            await cache.complete(request(str(number)))
        await cache.close()

    asyncio.run(run())
    database = sqlite3.connect(f"file:{tmp_path}/cache?immutable=1", uri=True)
    assert database.execute("SELECT count(*) FROM replies").fetchone() == (10,)
    database.close()
