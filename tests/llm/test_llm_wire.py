"""Replies in the shapes that servers use, whole and broken, without a server."""

import math
from dataclasses import replace
from typing import Any

import orjson
import pytest

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm import schema, wire
from neuron_explainer.llm.base import Message, Request, Usage
from neuron_explainer.llm.failures import Lack, Transient, from_status, retry_after
from neuron_explainer.llm.logprobs import merged, offsets

CHAT = Request((Message("user", "hello"),), 4)
PROMPT = "a\tb\nc"
ECHO = Request(PROMPT, 1, prompt_logprobs=2)
USAGE = {"prompt_tokens": 5, "completion_tokens": 1}


def chat_reply(content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"choices": [{"message": message, "finish_reason": "stop", **more}], "usage": USAGE}


def legacy(tokens: list[str], text: str, start: int = 0) -> dict[str, Any]:
    """An echoed completion as vLLM and llama-cpp-python write it."""
    ends = [start + len("".join(tokens[:place])) for place in range(len(tokens))]
    columns = {
        "tokens": tokens,
        "token_logprobs": [None] + [-1.0] * (len(tokens) - 1),
        "top_logprobs": [None] + [{token: -1.0, "x": -2.0} for token in tokens[1:]],
        "text_offset": ends,
    }
    return {"choices": [{"text": text, "finish_reason": "length", "logprobs": columns}]} | {
        "usage": USAGE
    }


def cause_of(reply: Any, request: Request = CHAT) -> str:
    with pytest.raises(NeuronFailure) as caught:
        wire.answer(reply, request, "server")
    return caught.value.cause


def test_a_body_says_what_was_asked() -> None:
    request = replace(CHAT, seed=3, sample=2, stop=("\n",), n=2, top_logprobs=5)
    assert wire.body(request, "m") == {
        "model": "m",
        "temperature": 0.0,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4,
        "seed": 5,
        "stop": ["\n"],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert "max_completion_tokens" in wire.body(CHAT, "m", "max_completion_tokens")
    assert wire.body(ECHO, "m")["echo"] is True
    assert wire.body(ECHO, "m", form="prompt_logprobs")["prompt_logprobs"] == 2


def test_an_echoed_prompt_is_parted_from_what_was_written() -> None:
    tokens = ["a", "\t", "b", "\n", "c", "!"]
    response = wire.answer(legacy(tokens, PROMPT + "!"), ECHO, "server")
    assert response.text == "!"
    assert response.prompt is not None
    assert response.prompt.tokens == tokens[:5]
    assert response.prompt.top[1] == {"\t": -1.0, "x": -2.0}
    assert response.tokens is None


def test_special_tokens_around_an_echo_do_not_shift_it() -> None:
    tokens = ["<s>", "a", "\t", "b", "\n", "c", "</s>"]
    response = wire.answer(legacy(tokens, PROMPT), ECHO, "server")
    assert response.prompt is not None
    assert "".join(response.prompt.tokens) == PROMPT
    assert response.prompt.offsets is None


def test_tokens_around_parts_of_a_character_are_placed_whatever_the_server_counts() -> None:
    request = replace(ECHO, prompt="é\tb")
    for broken in ("�", ""):
        reply = legacy([" ", broken, broken, "\t", "b", "c"], "é\tbc", start=7)
        prompt = wire.answer(reply, request, "server").prompt
        assert prompt is not None
        assert prompt.tokens == [" ", broken, broken, "\t", "b"]
        assert prompt.offsets is not None
        assert list(prompt.offsets)[3:] == [1, 2]
        assert min(list(prompt.offsets)[:3]) > len("é\tbc")


def test_the_space_before_the_first_word_does_not_shift_an_echo() -> None:
    reply = legacy([" Once", " upon", "!"], "Once upon!", start=0)
    prompt = wire.answer(reply, replace(ECHO, prompt="Once upon"), "server").prompt
    assert prompt is not None
    assert prompt.tokens == ["Once", " upon"]
    assert prompt.offsets is None


def test_an_echo_whose_probabilities_are_shifted_by_a_token_is_found_out() -> None:
    tokens = ["a", "\t", "b", "\n", "c", "!"]
    short = legacy(tokens[:-1], PROMPT + "!")
    with pytest.raises(Lack, match="end one token before"):
        wire.answer(short, ECHO, "server")
    shifted = legacy(tokens, PROMPT + "!")
    shifted["choices"][0]["logprobs"]["top_logprobs"][-1] = {"!": -1.0, "?": -0.1}
    with pytest.raises(Lack, match="shifted by a token"):
        wire.answer(shifted, ECHO, "server")
    assert wire.answer(shifted, replace(ECHO, temperature=1.0), "server").text == "!"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda choice: choice.update(text="!"),
        lambda choice: choice.update(logprobs=None),
        lambda choice: choice["logprobs"].update(top_logprobs=None),
        lambda choice: choice["logprobs"]["top_logprobs"].__setitem__(2, None),
    ],
)
def test_an_echo_without_its_log_probabilities_is_a_lack(spoil: Any) -> None:
    reply = legacy(["a", "\t", "b", "\n", "c", "!"], PROMPT + "!")
    spoil(reply["choices"][0])
    with pytest.raises(Lack) as caught:
        wire.answer(reply, ECHO, "server")
    assert caught.value.feature == "prompt_logprobs"


def vllm_items(tokens: list[str]) -> list[Any]:
    def item(number: int, token: str) -> dict[str, Any]:
        actual = {"logprob": -3.0, "rank": 9, "decoded_token": token}
        likelier = {"logprob": -0.5, "rank": 1, "decoded_token": "0"}
        return {str(number): actual, "77": likelier}

    return [None, *(item(number, token) for number, token in enumerate(tokens))]


def test_vllms_prompt_log_probabilities_are_read() -> None:
    reply = {
        "choices": [
            {
                "text": "!",
                "finish_reason": "length",
                "prompt_logprobs": vllm_items(["\t", "b", "\n", "c"]),
            }
        ]
    }
    prompt = wire.answer(reply, ECHO, "server", "prompt_logprobs").prompt
    assert prompt is not None
    assert "".join(prompt.tokens) == PROMPT
    assert prompt.top[2] == {"b": -3.0, "0": -0.5}
    with_bos = {**reply["choices"][0], "prompt_logprobs": vllm_items(list(PROMPT))}
    prompt = wire.answer({"choices": [with_bos]}, ECHO, "server", "prompt_logprobs").prompt
    assert prompt is not None
    assert prompt.tokens == ["", *PROMPT]


def test_vllms_prompt_log_probabilities_of_a_chat_stand_beside_the_choices() -> None:
    reply = chat_reply("!") | {"prompt_logprobs": vllm_items(["h", "i"])}
    prompt = wire.answer(reply, replace(CHAT, prompt_logprobs=2), "server").prompt
    assert prompt is not None
    assert prompt.tokens == ["", "h", "i"]


def test_offsets_survive_damaged_tokens() -> None:
    text = "aé\tb é"
    tokens = ["a", "�", "�", "\t", "b", " ", "�"]
    beyond = len(text) + 1
    assert offsets(tokens, text) == [0, beyond, beyond, 2, 3, 4, beyond]


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ([], "malformed-reply"),
        ({}, "malformed-reply"),
        ({"choices": []}, "malformed-reply"),
        ({"choices": [None]}, "malformed-reply"),
        ({"choices": [{"finish_reason": "stop"}]}, "malformed-reply"),
        (chat_reply(""), "malformed-reply"),
        (chat_reply(None), "malformed-reply"),
        (chat_reply(["x"]), "malformed-reply"),
        (chat_reply("", finish_reason="error"), "malformed-reply"),
        (chat_reply("", finish_reason="length"), "cut-short"),
        (chat_reply("", finish_reason="content_filter"), "refused"),
        ({"error": {"code": 429, "message": "too many"}}, "rate-limited"),
        ({"error": {"message": "went wrong"}}, "server-error"),
    ],
)
def test_a_broken_reply_has_a_cause(reply: Any, cause: str) -> None:
    assert cause_of(reply) == cause


def test_a_refusal_is_no_answer() -> None:
    reply = chat_reply(None)
    reply["choices"][0]["message"]["refusal"] = "I would rather not"
    assert cause_of(reply) == "refused"


@pytest.mark.parametrize(
    "columns",
    [
        {"content": [{"token": 3, "logprob": -1}]},
        {"content": [{"logprob": -1}]},
        {"content": [{"token": "a", "logprob": None}]},
        {"content": [{"token": "a", "logprob": math.nan}]},
        {"tokens": ["a"], "token_logprobs": [], "top_logprobs": []},
        {"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [["a"]]},
        {"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [{"a": None}]},
        {
            "content": [
                {"token": "a", "logprob": -1, "top_logprobs": [{"token": "a", "logprob": "b"}]}
            ]
        },
    ],
)
def test_broken_log_probabilities_are_malformed(columns: Any) -> None:
    assert cause_of(chat_reply("a", logprobs=columns), replace(CHAT, top_logprobs=1)) == (
        "malformed-reply"
    )


def test_tokens_that_read_the_same_add_their_probabilities() -> None:
    assert merged([("1", math.log(0.25)), ("1", math.log(0.5)), ("2", -math.inf)]) == (
        pytest.approx({"1": math.log(0.75), "2": -9999.0})
    )


def test_infinities_are_read_and_nonsense_is_not() -> None:
    assert wire.decode(b'{"a": -Infinity, "b": NaN}') == {"a": -9999.0, "b": None}
    for nonsense in (b"<html>", b'{"a": "\\ud800"}', b'{"a": "\xff"}', b""):
        with pytest.raises(Transient, match="no JSON"):
            wire.decode(nonsense)


@pytest.mark.parametrize(
    ("status", "detail", "expected"),
    [
        (408, "", "server-error"),
        (409, "", "server-error"),
        (429, "slow down", "rate-limited"),
        (500, "", "server-error"),
        (503, "", "server-error"),
        (400, "maximum context length is 8192 tokens", "context-overflow"),
        (413, "too large", "context-overflow"),
        (403, "input was flagged by moderation", "refused"),
    ],
)
def test_a_status_has_a_cause(status: int, detail: str, expected: str) -> None:
    error = from_status(status, detail, {}, "server")
    assert isinstance(error, NeuronFailure)
    assert error.cause == expected
    assert isinstance(error, Transient) == (expected in ("server-error", "rate-limited"))


@pytest.mark.parametrize(
    ("status", "detail", "advice"),
    [
        (400, "bad", "choose other options"),
        (401, "who are you", "OPENAI_API_KEY"),
        (402, "pay", "add credit"),
        (403, "no", "another key"),
        (404, "no such model", "the model's name"),
        (429, "insufficient_quota", "quota is used up"),
    ],
)
def test_what_stops_everything_says_what_to_do(status: int, detail: str, advice: str) -> None:
    error = from_status(status, detail, {}, "server")
    assert isinstance(error, LLMError)
    assert advice in str(error)


def test_the_servers_wait_is_read_in_all_its_forms() -> None:
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "inf"}) is None
    assert retry_after({"retry-after": "-1"}) is None
    assert retry_after({}) is None


def test_a_schema_is_checked_in_all_its_parts() -> None:
    row = {
        "type": "object",
        "properties": {
            "index": {"type": "integer", "minimum": 0, "maximum": 3},
            "word": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "kind": {"const": "row"},
        },
        "required": ["index"],
        "additionalProperties": False,
    }
    rows = {"type": "array", "items": row, "minItems": 1}
    good = [{"index": 1}, {"index": 2.0, "word": None, "kind": "row"}]
    assert schema.problem(good, rows) is None
    broken: list[Any] = [
        {},
        [],
        [3],
        [{}],
        [{"index": 4}],
        [{"index": -1}],
        [{"index": True}],
        [{"index": 1.5}],
        [{"index": 1, "word": 2}],
        [{"index": 1, "kind": "no"}],
        [{"index": 1, "more": 1}],
    ]
    for bad in broken:
        assert schema.problem(bad, rows), bad


def test_a_reply_that_breaks_its_schema_is_kept_for_repair() -> None:
    request = replace(CHAT, json_schema={"type": "object", "required": ["a"]})
    with pytest.raises(Lack, match="has no 'a'") as caught:
        wire.answer(chat_reply("{}"), request, "server")
    assert caught.value.reply == "{}"
    assert caught.value.usage == Usage(5, 0, 1, 1)


def test_a_key_is_the_whole_request_and_the_model() -> None:
    changes: list[dict[str, Any]] = [
        {"max_tokens": 5},
        {"temperature": 0.5},
        {"seed": 0},
        {"stop": ("a",)},
        {"top_logprobs": 0},
        {"prompt_logprobs": 0},
        {"n": 2},
        {"sample": 1},
        {"prompt": "hello"},
        {"json_schema": {"properties": {"a": {}, "b": {}}}},
        {"json_schema": {"properties": {"b": {}, "a": {}}}},
    ]
    keys = [CHAT.key("m"), CHAT.key("other"), *(replace(CHAT, **one).key("m") for one in changes)]
    assert len(set(keys)) == len(keys)
    assert CHAT.key("m") == Request((Message("user", "hello"),), 4).key("m")
    # a changed key means that everybody pays again: change it knowingly
    assert CHAT.key("m") == "2ea585de2faf073adf9ad1093e85d7bd582ab82bac5adba0965c6a51d8fa63cf"


def test_requests_survive_json() -> None:
    assert orjson.loads(orjson.dumps(CHAT))["prompt"] == [{"role": "user", "content": "hello"}]
