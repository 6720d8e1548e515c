"""A real server behind a proxy that spoils 30 % of what is sent; processes killed half way."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import live_server
import pytest
from fault_proxy import FAULTS, FaultProxy, spoiling

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import BackendSettings, Message, Request, Response
from neuron_explainer.llm.compose import LLMSettings, Stack, open_llm
from neuron_explainer.llm.limits import Caps

pytestmark = pytest.mark.enable_socket

REQUESTS = [
    Request((Message("user", f"Story {number} of a dog"),), 6, top_logprobs=5)
    for number in range(320)
]
CAUSES = {"rate-limited", "server-error", "connection", "malformed-reply", "timeout"}


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[str]:
    with live_server.running(assets) as url:
        yield url


async def no_sleep(_: float) -> None:
    """Tests do not wait."""


def opened(url: str, cache: Path | None = None, **settings: object) -> Stack:
    backend = BackendSettings(url, timeout=60.0)
    made = replace(LLMSettings(backend, cache, concurrency=16), **settings)  # type: ignore[arg-type]
    return open_llm("openai/stories", made, no_sleep)


async def ask(llm: Stack, requests: Sequence[Request]) -> list[Response | BaseException]:
    """All the answers, failures in their places."""
    waiting = (llm.complete(request) for request in requests)
    replies = await asyncio.gather(*waiting, return_exceptions=True)
    await llm.close()
    return list(replies)


@pytest.fixture(scope="module")
def truth(server: str) -> dict[Request, Response]:
    """The answers without faults. Asked under the same conditions, but for the proxy."""

    async def run() -> list[Response | BaseException]:
        return await ask(opened(server), REQUESTS)

    answers: dict[Request, Response] = {}
    for request, reply in zip(REQUESTS, asyncio.run(run()), strict=True):
        assert isinstance(reply, Response), reply
        answers[request] = reply
    return answers


def assert_same(reply: Response, expected: Response) -> None:
    """Equal texts and, but for the server's rounding, equal log probabilities."""
    assert reply.text == expected.text
    assert reply.tokens is not None
    assert expected.tokens is not None
    assert list(reply.tokens.tokens) == list(expected.tokens.tokens)
    assert reply.tokens.logprobs == pytest.approx(expected.tokens.logprobs, abs=1e-3)


def test_every_request_ends_as_without_faults_or_with_a_cause(
    server: str, truth: dict[Request, Response], tmp_path: Path
) -> None:
    async def run() -> tuple[FaultProxy, list[Response | BaseException]]:
        async with spoiling(server, seed=1) as proxy:
            return proxy, await ask(opened(proxy.url, tmp_path / "cache"), REQUESTS)

    proxy, replies = asyncio.run(run())
    right = 0
    for request, reply in zip(REQUESTS, replies, strict=True):
        if isinstance(reply, Response):
            assert_same(reply, truth[request])
            right += 1
        else:
            assert isinstance(reply, NeuronFailure), repr(reply)
            assert reply.cause in CAUSES
    assert right >= 0.99 * len(REQUESTS)
    assert set(proxy.met) == {*FAULTS, "none"}
    assert proxy.most_inside <= 16


def test_hopeless_faults_end_with_their_causes_and_never_with_an_empty_reply(server: str) -> None:
    async def run(fault: str) -> list[Response | BaseException]:
        async with spoiling(server, share=1.0, faults=(fault,)) as proxy:
            llm = opened(proxy.url)
            return await ask(llm, REQUESTS[:4])

    expected = {
        "429-retry-after": "rate-limited",
        "502": "server-error",
        "half-body": "connection",
        "wrong-json": "malformed-reply",
        "no-choice": "malformed-reply",
        "null-content": "malformed-reply",
    }
    for fault, cause in expected.items():
        replies = asyncio.run(run(fault))
        if fault == "null-content":  # without log probabilities too, and so never seen
            assert all(isinstance(reply, LLMError) for reply in replies), replies
            continue
        for reply in replies:
            assert isinstance(reply, NeuronFailure), (fault, reply)
            assert reply.cause == cause


def test_missing_log_probabilities_stop_everything_and_name_what_would_work(server: str) -> None:
    async def run() -> list[Response | BaseException]:
        async with spoiling(server, share=1.0, faults=("no-logprobs",)) as proxy:
            return await ask(opened(proxy.url), REQUESTS[:2])

    for reply in asyncio.run(run()):
        assert isinstance(reply, LLMError)
        assert "gives no top_logprobs; use simulator numbers" in str(reply)


@pytest.mark.parametrize("drips", [False, True])
def test_a_server_that_never_ends_its_reply_is_left(drips: bool) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            if drips:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not writer.is_closing():
                if drips:
                    writer.write(b" ")
                await asyncio.sleep(0.01)
        finally:
            writer.close()

    async def run() -> list[Response | BaseException]:
        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        backend = BackendSettings(url, timeout=0.2)
        replies = await ask(opened(url, backend=backend, attempts=2), REQUESTS[:2])
        server.close()
        await asyncio.sleep(0.1)  # the handlers see that the client has gone
        return replies

    for reply in asyncio.run(run()):
        assert isinstance(reply, NeuronFailure)
        assert reply.cause == "timeout"
        assert "within 0.2 s (after 2 tries)" in str(reply)


def test_nothing_that_was_saved_is_asked_again(server: str, tmp_path: Path) -> None:
    async def run() -> tuple[int, int, int]:
        async with spoiling(server, seed=2) as proxy:
            cache = tmp_path / "cache"
            twice = REQUESTS[:40] + REQUESTS[:40]
            await ask(opened(proxy.url, cache), twice)
            first = sum(proxy.asked.values())
            again = opened(proxy.url, cache)
            replies = await ask(again, twice)
            assert all(isinstance(reply, Response) for reply in replies)
            return first, sum(proxy.asked.values()), again.spending.cache_hits

    first, second, hits = asyncio.run(run())
    assert second == first
    assert hits == 80


def test_the_cap_on_tokens_is_passed_by_no_more_than_what_is_in_flight(server: str) -> None:
    async def run() -> tuple[Stack, list[Response | BaseException]]:
        async with spoiling(server, seed=3) as proxy:
            llm = opened(proxy.url, caps=Caps(tokens=600))
            return llm, await ask(llm, REQUESTS[:120])

    llm, replies = asyncio.run(run())
    largest = max(reply.usage.tokens for reply in replies if isinstance(reply, Response))
    assert 600 <= llm.spending.usage.tokens <= 600 + 16 * largest
    refused = [reply for reply in replies if isinstance(reply, NeuronFailure)]
    assert refused
    assert {reply.cause for reply in refused} == {"budget"}


_CHILD = """
import asyncio, signal, sys
from pathlib import Path
from neuron_explainer.llm.base import BackendSettings, Message, Request
from neuron_explainer.llm.compose import LLMSettings, open_llm

async def main(url, cache):
    settings = LLMSettings(BackendSettings(url), Path(cache), concurrency=4)
    llm = open_llm("openai/stories", settings)
    requests = [Request((Message("user", f"Tale {n}"),), 4) for n in range(120)]
    await asyncio.gather(*(llm.complete(request) for request in requests))
    await llm.close()

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_only_what_was_in_flight_is_sent_again(
    server: str, tmp_path: Path, end: signal.Signals
) -> None:
    chance = random.Random(4)
    cache = str(tmp_path / "cache")

    async def run() -> FaultProxy:
        async with spoiling(server, share=0.0) as proxy:
            for kill in range(4):
                child = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, proxy.url, cache], stderr=subprocess.DEVNULL
                )
                target = sum(proxy.asked.values()) + chance.randint(4, 25) if kill < 3 else None
                while child.poll() is None:
                    if target is not None and sum(proxy.asked.values()) >= target:
                        child.send_signal(end)
                        target = None
                    await asyncio.sleep(0.002)
                await proxy.left()
                assert (child.returncode == 0) == (kill == 3)
            return proxy

    proxy = asyncio.run(run())
    assert len(proxy.asked) == 120
    assert set(proxy.again) <= proxy.unsettled
    sent_again = Counter(life for life, _ in proxy.again)  # by the process that it was lost with
    assert sent_again.keys() <= {0, 1, 2}
    assert max(sent_again.values(), default=0) <= 4  # the concurrency


def test_two_processes_share_a_cache(server: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")

    async def run() -> int:
        async with spoiling(server, share=0.0) as proxy:
            command = [sys.executable, "-c", _CHILD, proxy.url, cache]
            both = [await asyncio.create_subprocess_exec(*command) for _ in range(2)]
            assert [await child.wait() for child in both] == [0, 0]
            before = sum(proxy.asked.values())
            third = await asyncio.create_subprocess_exec(*command)
            assert await third.wait() == 0
            assert len(proxy.asked) == 120
            return sum(proxy.asked.values()) - before

    assert asyncio.run(run()) == 0
