"""The Batch API, against a local stand-in for it whose lines a real server answers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import live_server
import orjson
import pytest
from batch_server import BatchServer, batches

from neuron_explainer.errors import LLMError, NeuronFailure, RunLocked
from neuron_explainer.llm import batch_files
from neuron_explainer.llm.base import BackendSettings, Message, Request, Response, Usage
from neuron_explainer.llm.batch import Batch
from neuron_explainer.llm.batch_files import ReplyFiles
from neuron_explainer.llm.compose import LLMSettings, Stack, open_llm, wrap
from neuron_explainer.llm.prices import Price, Prices

pytestmark = pytest.mark.enable_socket

CHATS = [Request((Message("user", f"Tale {n}"),), 4, top_logprobs=2) for n in range(12)]
TEXTS = [Request(f"Once {n}", 4) for n in range(4)]


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[str]:
    with live_server.running(assets) as url:
        yield url


async def no_sleep(_: float) -> None:
    """Tests do not wait."""


def settings(url: str, folder: Path) -> BackendSettings:
    return BackendSettings(url, folder=folder, gather=0.02, poll=0.01)


def opened(url: str, tmp_path: Path) -> Stack:
    made = LLMSettings(settings(url, tmp_path / "batches"), cache=tmp_path / "cache")
    return open_llm("batch/stories", made, no_sleep)


async def ask(llm: Stack, requests: list[Request]) -> list[Response | BaseException]:
    waiting = (llm.complete(request) for request in requests)
    return list(await asyncio.gather(*waiting, return_exceptions=True))


async def live(url: str, requests: list[Request]) -> list[str]:
    llm = open_llm("openai/stories", LLMSettings(BackendSettings(url)))
    replies = await ask(llm, requests)
    await llm.close()
    assert all(isinstance(reply, Response) for reply in replies)
    return [reply.text for reply in replies if isinstance(reply, Response)]


def assert_texts(replies: list[Response | BaseException], expected: list[str]) -> None:
    texts = [reply.text if isinstance(reply, Response) else repr(reply) for reply in replies]
    assert texts == expected


def once(api: BatchServer) -> bool:
    """Whether no line was answered, and so paid, twice."""
    return set(api.lines.values()) == {1}


def test_requests_become_one_batch_an_endpoint_and_get_the_live_answers(
    server: str, tmp_path: Path
) -> None:
    async def run() -> None:
        async with batches(server) as api:
            llm = opened(api.url, tmp_path)
            replies = await ask(llm, CHATS + TEXTS)
            await llm.close()
            assert_texts(replies, await live(server, CHATS + TEXTS))
            endpoints = sorted(batch["endpoint"] for batch in api.batches.values())
            assert endpoints == ["/v1/chat/completions", "/v1/completions"]
            assert once(api)

    asyncio.run(run())


def test_a_batch_outlives_the_process_that_sent_it(server: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with batches(server, looks=10**9) as api:
            first = opened(api.url, tmp_path)
            asking = asyncio.create_task(ask(first, CHATS))
            while not api.batches or not next(iter(api.batches.values()))["looks"]:
                await asyncio.sleep(0.005)
            asking.cancel()
            await first.close()
            api.looks = 0
            second = opened(api.url, tmp_path)
            replies = await ask(second, CHATS)
            await second.close()
            assert_texts(replies, await live(server, CHATS))
            assert len(api.batches) == 1
            third = Batch("stories", settings(api.url, tmp_path / "batches"))
            again = [await third.complete(request) for request in CHATS]  # from the folder
            await third.close()
            assert_texts(list(again), await live(server, CHATS))
            assert len(api.batches) == 1
            assert once(api)

    asyncio.run(run())


def test_a_batch_whose_creation_was_not_confirmed_is_found_and_not_sent_again(
    server: str, tmp_path: Path
) -> None:
    async def run() -> None:
        async with batches(server, drop_creations=1) as api:
            llm = opened(api.url, tmp_path)
            replies = await ask(llm, CHATS)
            await llm.close()
            assert all(isinstance(reply, Response) for reply in replies)
            assert len(api.batches) == 1
            assert once(api)

    asyncio.run(run())


def test_lines_that_failed_are_sent_again_and_no_others(server: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with batches(server, failing_lines=5) as api:
            llm = opened(api.url, tmp_path)
            replies = await ask(llm, CHATS)
            await llm.close()
            assert_texts(replies, await live(server, CHATS))
            sizes = [
                len(api.files[batch["input_file_id"]].splitlines())
                for batch in api.batches.values()
            ]
            assert sizes == [12, 5]
            assert once(api)

    asyncio.run(run())


def test_what_an_expired_batch_left_is_sent_again(server: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with batches(server, answers=7) as api:
            llm = opened(api.url, tmp_path)
            replies = await ask(llm, CHATS)
            await llm.close()
            assert_texts(replies, await live(server, CHATS))
            assert len(api.batches) == 2
            assert once(api)

    asyncio.run(run())


def test_a_refused_batch_stops_everything_and_can_be_sent_again(
    server: str, tmp_path: Path
) -> None:
    async def run() -> None:
        async with batches(server, refusal="token_limit_exceeded") as api:
            llm = opened(api.url, tmp_path)
            replies = await ask(llm, CHATS)
            assert all(isinstance(reply, LLMError) for reply in replies)
            assert "token_limit_exceeded" in str(replies[0])
            replies = await ask(llm, CHATS)
            await llm.close()
            assert all(isinstance(reply, Response) for reply in replies)

    asyncio.run(run())


def test_batches_keep_to_the_limits_on_requests_and_bytes(server: str, tmp_path: Path) -> None:
    class Small(Batch):
        most_requests = 5

    async def run() -> None:
        async with batches(server) as api:
            llm = Small("stories", settings(api.url, tmp_path))
            await asyncio.gather(*(llm.complete(request) for request in CHATS))
            await llm.close()
            assert len(api.batches) == 3

    asyncio.run(run())
    lines = [batch_files.request_line(request, "m") for request in CHATS]
    most = 3 * len(lines[0]) + 10
    made = list(batch_files.parts(lines, 100, most))
    assert all(len(part.content) <= most for part in made)
    assert b"".join(part.content for part in made) == b"".join(lines)


def test_a_batch_costs_its_share(server: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with batches(server) as api:
            backend = Batch("stories", settings(api.url, tmp_path))
            prices = Prices({"stories": Price(1.0, 1.0)}, batch=0.5)
            llm = wrap(backend, prices=prices)
            await ask(llm, CHATS)
            await llm.close()
            spent = llm.spending
            assert spent.cost == pytest.approx(spent.usage.tokens * 0.5 / 1e6)

    asyncio.run(run())


def test_one_process_at_a_time_owns_a_folder_of_batches(tmp_path: Path) -> None:
    async def run() -> None:
        first = Batch("stories", settings("http://127.0.0.1:9", tmp_path))
        with pytest.raises(RunLocked):
            Batch("stories", settings("http://127.0.0.1:9", tmp_path))
        await first.close()

    asyncio.run(run())


def test_a_good_line_goes_before_a_failed_one(tmp_path: Path) -> None:
    body = {
        "choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]
    }
    key = "k"
    good = {"custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}
    bad = {"custom_id": key, "response": None, "error": {"code": "batch_expired"}}
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps(good) + b"\n" + orjson.dumps(bad) + b"\n")
    files = ReplyFiles()
    files.add(tmp_path / "a.jsonl")
    request = Request((Message("user", "hello"),), 4)
    response = batch_files.answer_line(files.line(key), request, "server")
    assert response.text == "yes"
    assert response.usage == Usage(requests=1)
    files.forget(key)
    assert key not in files


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ({"response": None, "error": {"code": "batch_expired"}}, "timeout"),
        ({"response": None, "error": {"code": "batch_cancelled"}}, "cancelled"),
        ({"response": None, "error": None}, "malformed-reply"),
        ({"response": {"status_code": 429, "body": {}}}, "rate-limited"),
        ({"response": {"status_code": 200, "body": {"choices": []}}}, "malformed-reply"),
    ],
)
def test_a_line_without_an_answer_has_a_cause(line: object, cause: str) -> None:
    with pytest.raises(NeuronFailure) as caught:
        batch_files.answer_line(orjson.dumps(line), CHATS[0], "server")
    assert caught.value.cause == cause
