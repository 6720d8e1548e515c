"""A model in this process, against the same weights behind a server."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import live_server
import pytest
import torch

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import BackendSettings, Message, Request, Response
from neuron_explainer.llm.compose import LLMSettings, open_llm
from neuron_explainer.llm.local import Local
from neuron_explainer.llm.token_text import texts_and_offsets

TEXT = Request("Once upon a time, there was", 24)
CHAT = Request((Message("user", "Once upon a time"),), 12)


@pytest.fixture(scope="module")
def local(assets: Path) -> Local:
    return Local(str(assets / "stories260K" / "hf"), BackendSettings())


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[str]:
    with live_server.running(assets) as url:
        yield url


def ask(model: Local, request: Request) -> Response:
    return asyncio.run(model.complete(request))


def served(url: str, request: Request) -> Response:
    async def run() -> Response:
        llm = open_llm("openai/stories", LLMSettings(BackendSettings(url)))
        try:
            return await llm.complete(request)
        finally:
            await llm.close()

    return asyncio.run(run())


@pytest.mark.enable_socket
@pytest.mark.parametrize("request_", [TEXT, CHAT])
def test_the_model_writes_what_its_server_writes(
    local: Local, server: str, request_: Request
) -> None:
    asked = replace(request_, top_logprobs=5)
    mine, theirs = ask(local, asked), served(server, asked)
    assert mine.text == theirs.text
    assert mine.usage.prompt_tokens == theirs.usage.prompt_tokens
    assert mine.tokens is not None
    assert theirs.tokens is not None
    assert mine.tokens.logprobs == pytest.approx(theirs.tokens.logprobs, abs=0.01)


def test_prompt_log_probabilities_are_those_of_a_plain_forward_pass(local: Local) -> None:
    text = 'Lily said, "É\tunknown\n'
    prompt = ask(local, Request(text, 1, prompt_logprobs=20)).prompt
    assert prompt is not None
    ids = local.tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        rows = torch.log_softmax(local.network(ids).logits[0].float(), -1)
    expected = [float(rows[place, token]) for place, token in enumerate(ids[0, 1:])]
    assert prompt.logprobs == [None, *(pytest.approx(value, abs=1e-4) for value in expected)]
    # the first word's own text lacks the space that the tokenizer puts before it
    for place, token in enumerate(prompt.tokens[2:], 2):
        top = prompt.top[place]
        assert top is not None
        assert len(top) >= 15
        assert top[token] >= expected[place - 1] - 1e-4


def test_written_tokens_continue_the_prompts_distribution(local: Local) -> None:
    written = ask(local, replace(TEXT, max_tokens=8, top_logprobs=3))
    both = ask(local, Request(str(TEXT.prompt) + written.text, 1, prompt_logprobs=3)).prompt
    assert written.tokens is not None
    assert both is not None
    assert list(both.tokens)[-8:] == list(written.tokens.tokens)
    assert list(both.logprobs)[-8:] == pytest.approx(list(written.tokens.logprobs), abs=1e-4)


def test_seeds_repeat_and_samples_differ(local: Local) -> None:
    drawn = replace(TEXT, temperature=1.0, seed=3)
    assert ask(local, drawn).text == ask(local, drawn).text
    assert ask(local, drawn).text != ask(local, replace(drawn, sample=1)).text
    several = ask(local, replace(drawn, n=3))
    assert len({choice.text for choice in several.choices}) == 3
    assert several.choices[0].text == ask(local, drawn).text
    assert several.usage.completion_tokens == 72


def test_writing_ends_at_a_stop(local: Local) -> None:
    whole = ask(local, TEXT).text
    word = whole.split()[3]
    response = ask(local, replace(TEXT, stop=(word,)))
    assert response.text == whole[: whole.index(word)]
    assert response.finish_reason == "stop"


def test_what_does_not_fit_is_refused_with_the_numbers(local: Local) -> None:
    with pytest.raises(NeuronFailure, match=r"tokens and 600 more .* 512") as caught:
        ask(local, replace(TEXT, max_tokens=600))
    assert caught.value.cause == "context-overflow"


def test_a_smaller_context_can_be_given(assets: Path) -> None:
    model = str(assets / "stories260K" / "hf")
    assert Local(model, BackendSettings(context=100)).context == 100


def test_what_it_cannot_do_is_refused_with_what_would_work(local: Local, assets: Path) -> None:
    with pytest.raises(LLMError, match=r"gives no json_schema; use .*schema=false"):
        ask(local, replace(CHAT, json_schema={"type": "object"}))
    without_template = Local(str(assets / "gpt2-tiny-local"), BackendSettings())
    with pytest.raises(LLMError, match="use a model with a chat template"):
        ask(without_template, CHAT)
    assert ask(without_template, TEXT).text


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match="cannot be used as a language model"):
        open_llm(f"local/{tmp_path}")


def test_a_dtype_that_is_none_is_named(assets: Path) -> None:
    settings = LLMSettings(BackendSettings(dtype="float33"))
    with pytest.raises(LLMError, match="no dtype"):
        open_llm(f"local/{assets}/stories260K/hf", settings)


def test_half_precision_is_another_model_with_about_the_same_probabilities(
    local: Local, assets: Path
) -> None:
    half = Local(str(assets / "stories260K" / "hf"), BackendSettings(dtype="bfloat16"))
    assert half.model != local.model
    asked = replace(TEXT, max_tokens=1, top_logprobs=5)
    exact, rough = ask(local, asked).tokens, ask(half, asked).tokens
    assert exact is not None
    assert rough is not None
    assert rough.logprobs[0] == pytest.approx(exact.logprobs[0], abs=0.1)


def test_cancelling_stops_the_writing(local: Local) -> None:
    async def run() -> None:
        task = asyncio.create_task(local.complete(replace(TEXT, max_tokens=400)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_tokens_that_part_characters_are_placed() -> None:
    texts, offsets = texts_and_offsets([b"<s>", b" a", b"\xc3", b"\xa9", b"\t", b"b"], "aé\tb")
    assert texts == ["", "a", "�", "�", "\t", "b"]
    assert offsets == [0, 0, 1, 5, 2, 3]
    assert texts_and_offsets([b"<s>", b" a", "é".encode()], "aé") == (["", "a", "é"], None)
