"""The OpenAI protocol, spoken with a real server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import live_server
import orjson
import pytest

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import BackendSettings, Message, Request
from neuron_explainer.llm.compose import LLMSettings, Stack, open_llm

pytestmark = pytest.mark.enable_socket
Result = TypeVar("Result")

SECRET = "sk-a-secret-that-must-stay-one"
CHAT = Request((Message("user", "Once upon a time"),), max_tokens=8, seed=1)
TEXT = Request("Once upon a time, there was", max_tokens=8)
SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"enum": ["first", "second"]},
        "fires": {"type": "boolean"},
    },
    "required": ["place", "fires"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[str]:
    with live_server.running(assets) as url:
        yield url


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


async def no_sleep(_: float) -> None:
    """Tests do not wait."""


def use(
    url: str | None, work: Callable[[Stack], Awaitable[Result]], cache: Path | None = None
) -> Result:
    """The result of `work` with a model at `url`."""

    async def run() -> Result:
        settings = LLMSettings(BackendSettings(url), cache)
        llm = open_llm("openai/stories", settings, no_sleep)
        try:
            return await work(llm)
        finally:
            await llm.close()

    return asyncio.run(run())


def test_a_chat_is_answered(server: str) -> None:
    response = use(server, lambda llm: llm.complete(CHAT))
    assert response.text
    assert response.finish_reason == "length"
    assert response.usage.completion_tokens == 8
    assert response.tokens is None


def test_chat_log_probabilities_are_there(server: str) -> None:
    response = use(server, lambda llm: llm.complete(replace(CHAT, top_logprobs=15)))
    assert response.tokens is not None
    assert "".join(response.tokens.tokens) == response.text
    for token, value, top in zip(
        response.tokens.tokens, response.tokens.logprobs, response.tokens.top, strict=True
    ):
        assert value is not None
        assert top is not None
        assert len(top) == 15
        assert top[token] == pytest.approx(value, abs=1e-6)


def test_completions_continue_text_with_log_probabilities(server: str) -> None:
    response = use(server, lambda llm: llm.complete(replace(TEXT, top_logprobs=3)))
    assert response.text.startswith(" a ")
    assert response.tokens is not None
    assert "".join(response.tokens.tokens) == response.text
    assert response.prompt is None


def test_a_schema_holds(server: str) -> None:
    request = replace(CHAT, max_tokens=60, json_schema=SCHEMA)
    reply = orjson.loads(use(server, lambda llm: llm.complete(request)).text)
    assert set(reply) == {"place", "fires"}
    assert reply["place"] in {"first", "second"}


def test_a_reply_cut_by_the_limit_breaks_its_schema_and_fails(server: str) -> None:
    request = replace(CHAT, max_tokens=3, json_schema=SCHEMA)
    with pytest.raises(NeuronFailure, match="cut at 3 tokens") as caught:
        use(server, lambda llm: llm.complete(request))
    assert caught.value.cause == "cut-short"


def test_several_choices_come_back(server: str) -> None:
    response = use(server, lambda llm: llm.complete(replace(CHAT, n=3, temperature=1.0)))
    assert len(response.choices) == 3


def test_equal_seeds_give_equal_samples_and_other_sample_numbers_others(server: str) -> None:
    request = replace(TEXT, temperature=1.0, max_tokens=24, seed=5)
    again = use(server, lambda llm: llm.complete(request))
    first = use(server, lambda llm: llm.complete(request))
    other = use(server, lambda llm: llm.complete(replace(request, sample=1)))
    assert first.text == again.text
    assert first.text != other.text


def test_a_server_that_ignores_echo_is_named_with_what_would_work(server: str) -> None:
    request = replace(TEXT, max_tokens=1, prompt_logprobs=11)
    with pytest.raises(LLMError, match="gives no prompt_logprobs; use simulator one-at-a-time"):
        use(server, lambda llm: llm.complete(request))


def test_a_chat_without_prompt_log_probabilities_is_refused(server: str) -> None:
    with pytest.raises(LLMError, match="gives no prompt_logprobs"):
        use(server, lambda llm: llm.complete(replace(CHAT, prompt_logprobs=5)))


def test_a_prompt_beyond_the_context_fails_for_that_neuron_alone(server: str) -> None:
    long = replace(CHAT, prompt=(Message("user", "Once upon a time " * 900),))
    with pytest.raises(NeuronFailure, match="exceeds the available context") as caught:
        use(server, lambda llm: llm.complete(long))
    assert caught.value.cause == "context-overflow"


def test_the_server_tells_its_context_length(server: str) -> None:
    context = use(server, lambda llm: llm.capabilities()).context
    assert context is not None
    assert context >= 512


def test_a_context_that_the_user_gives_goes_before_the_servers_word() -> None:
    async def asked() -> int | None:
        settings = BackendSettings("http://127.0.0.1:9/v1", context=300)
        llm = open_llm("openai/stories", LLMSettings(settings), no_sleep)
        capabilities = await llm.capabilities()  # nobody listens there
        await llm.close()
        return capabilities.context

    assert asyncio.run(asked()) == 300


def test_sixteen_at_once_equal_one_after_another(server: str) -> None:
    requests = [
        replace(CHAT, prompt=(Message("user", f"Tell of {name}"),), top_logprobs=5)
        for name in ("Tom", "Lily", "a dog", "the sun", "a red ball", "Mum", "rain", "a cat") * 4
    ]

    async def together(llm: Stack) -> list[str]:
        replies = await asyncio.gather(*(llm.complete(request) for request in requests))
        return [reply.text for reply in replies]

    async def in_turn(llm: Stack) -> list[str]:
        return [(await llm.complete(request)).text for request in requests]

    assert use(server, together) == use(server, in_turn)


def test_an_unreachable_server_stops_everything() -> None:
    with pytest.raises(LLMError, match=r"ConnectError.*check --base-url"):
        use("http://127.0.0.1:9/v1", lambda llm: llm.complete(CHAT))


def test_a_wrong_path_stops_everything(server: str) -> None:
    with pytest.raises(LLMError, match=r"404.*--base-url ends in /v1"):
        use(server + "/elsewhere", lambda llm: llm.complete(CHAT))


def test_without_a_key_openai_itself_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(LLMError, match="OPENAI_API_KEY is not set"):
        open_llm("openai/gpt-4o-mini")


def test_the_key_stays_secret(
    server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cache = tmp_path / "replies.sqlite"
    texts: list[Any] = []

    async def work(llm: Stack) -> None:
        texts.append(repr(llm))
        texts.append(await llm.complete(CHAT))
        with pytest.raises(NeuronFailure) as failed:
            await llm.complete(replace(CHAT, prompt=(Message("user", "so long " * 2000),)))
        texts.extend([failed.value, repr(failed.value), vars(failed.value)])

    use(server, work, cache)
    with pytest.raises(LLMError) as stopped:
        use(server + "/elsewhere", lambda llm: llm.complete(CHAT))
    texts.extend([stopped.value, repr(stopped.value)])
    assert caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in " ".join(map(str, texts))
    for file in tmp_path.iterdir():
        assert SECRET.encode() not in file.read_bytes()


@pytest.mark.parametrize("status", ["401 Unauthorized", "500 Oh", "200 OK"])
def test_a_server_that_repeats_the_key_does_not_make_it_known(status: str) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization")
        )
        assert SECRET.encode() in key
        body = orjson.dumps({"error": {"message": f"not this one: {key.decode()}"}})
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def run() -> str:
        listening = await asyncio.start_server(repeat, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        llm = open_llm("openai/m", LLMSettings(BackendSettings(url)), no_sleep)
        with pytest.raises((LLMError, NeuronFailure)) as caught:
            await llm.complete(CHAT)
        await llm.close()
        listening.close()
        return repr(caught.value)

    said = asyncio.run(run())
    assert "not this one" in said
    assert SECRET not in said
