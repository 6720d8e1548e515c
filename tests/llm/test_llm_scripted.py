"""Replies from a file."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from neuron_explainer.errors import ConfigError, LLMError, NeuronFailure
from neuron_explainer.llm.base import Message, Request, Response
from neuron_explainer.llm.compose import open_llm

PROMPT = {"tokens": ["a", "b"], "logprobs": [None, -1.0], "top": [None, {"b": -1.0, "c": -2.0}]}
RULES: list[dict[str, Any]] = [
    {"match": "hello", "reply": ["one", "two", "three"]},
    {"match": "level", "reply": "7", "logprobs": [{"7": -0.1, "8": -2.4}]},
    {"match": "ab", "reply": "c", "prompt_logprobs": PROMPT},
    {"match": "broken", "failure": "timeout"},
    {"pattern": "^tell .* dog", "reply": "woof"},
]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, RULES)) + b"\n")
    return path


def ask(script: Path, text: str, **options: Any) -> Response:
    async def run() -> Response:
        llm = open_llm(f"scripted/{script}")
        request = Request((Message("system", "be brief"), Message("user", text)), 9, **options)
        try:
            return await llm.complete(request)
        finally:
            await llm.close()

    return asyncio.run(run())


def test_the_last_message_chooses_the_reply(script: Path) -> None:
    assert ask(script, "hello").text == "one"
    assert ask(script, "tell me\nof a dog").text == "woof"
    assert ask(script, "hello").usage.prompt_tokens == 3


def test_samples_and_choices_take_replies_in_turn(script: Path) -> None:
    assert ask(script, "hello", sample=1).text == "two"
    both = ask(script, "hello", sample=1, n=2)
    assert [choice.text for choice in both.choices] == ["three", "one"]


def test_log_probabilities_come_where_they_are_asked_for(script: Path) -> None:
    assert ask(script, "level").tokens is None
    tokens = ask(script, "level", top_logprobs=2).tokens
    assert tokens is not None
    assert tokens.tokens == ["7"]
    assert tokens.logprobs == [-0.1]
    assert tokens.top == [{"7": -0.1, "8": -2.4}]
    prompt = ask(script, "ab", prompt_logprobs=2).prompt
    assert prompt is not None
    assert prompt.tokens == ["a", "b"]


def test_a_rule_may_fail(script: Path) -> None:
    with pytest.raises(NeuronFailure) as caught:
        ask(script, "broken")
    assert caught.value.cause == "timeout"


def test_what_no_rule_matches_is_shown(script: Path) -> None:
    with pytest.raises(LLMError, match="matches 'goodbye': add one"):
        ask(script, "goodbye")


def test_the_models_name_changes_with_the_script(script: Path) -> None:
    before = open_llm(f"scripted/{script}").model
    script.write_bytes(orjson.dumps(RULES[:2]))
    assert open_llm(f"scripted/{script}").model != before
    assert ask(script, "hello").text == "one"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON"),
        (b"[3]", "either match or pattern"),
        (b'{"reply": "a"}', "either match or pattern"),
        (b'{"match": "a", "pattern": "b", "reply": "c"}', "either match or pattern"),
        (b'{"match": "a"}', "has no reply"),
        (b'{"match": "a", "reply": []}', "has no reply"),
        (b'{"match": "a", "reply": "b", "logprob": []}', "unknown key 'logprob'"),
        (b'{"pattern": "(", "reply": "b"}', "no regular expression"),
    ],
)
def test_a_script_with_a_mistake_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        open_llm(f"scripted/{path}")


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match="no script at"):
        open_llm(f"scripted/{tmp_path}/none.json")


def test_names_of_models_are_checked() -> None:
    for wrong, message in {
        "gpt-4o": "names no language model",
        "openai/": "names no language model",
        "opnai/gpt-4o": "did you mean 'openai'",
    }.items():
        with pytest.raises(ConfigError, match=message):
            open_llm(wrong)
