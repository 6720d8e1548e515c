"""What the explainers ask a language model, and what they make of its reply.

The prompts lie in golden/*.txt. When one is changed on purpose, run
`UPDATE_GOLDEN=1 pytest tests/explain/test_llm_explainers.py` and read the difference.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from canned_llm import CHAT, PLAIN, CannedLLM, neuron, record, rivers, text_of, writing_rivers

from neuron_explainer import registry
from neuron_explainer.conversation import estimated_tokens
from neuron_explainer.errors import ConfigError, LLMError, NeuronFailure
from neuron_explainer.explain.base import Explainer
from neuron_explainer.explain.max_act_logits import MaxActLogits
from neuron_explainer.explain.shown import choose
from neuron_explainer.few_shot import load_few_shot
from neuron_explainer.llm.base import Capabilities, Message
from neuron_explainer.records import Explanation, Fit, NeuronRecord

NAMES = ("token-activation", "highlight", "token-space", "max-act-logits")
WITH_RECORDS = ("token-activation", "highlight", "max-act-logits")
GOLDEN = Path(__file__).parent / "golden"
CASES: Mapping[str, tuple[str, Capabilities, Mapping[str, Any]]] = {
    "token-activation": ("token-activation", CHAT, {"few_shot": 1}),
    "token-activation-contrast": ("token-activation", CHAT, {"few_shot": 0, "contrast": 1}),
    "highlight": ("highlight", CHAT, {}),
    "highlight-contrast": ("highlight", CHAT, {"few_shot": 0, "contrast": 2}),
    "highlight-quantile": ("highlight", CHAT, {"few_shot": 0, "quantile": 1}),
    "highlight-plain": ("highlight", PLAIN, {"few_shot": 2}),
    "token-space": ("token-space", CHAT, {"few_shot": 2}),
    "max-act-logits": ("max-act-logits", CHAT, {"few_shot": 2}),
    "token-space-both": ("token-space", CHAT, {"few_shot": 1, "source": "both"}),
    "token-space-promoted": ("token-space", PLAIN, {"few_shot": 2, "source": "promoted"}),
    "max-act-logits-promoted": ("max-act-logits", CHAT, {"few_shot": 3}),
    "max-act-logits-plain": ("max-act-logits", PLAIN, {"few_shot": 1}),
}

WITH_EFFECTS = ("token-space-both", "token-space-promoted", "max-act-logits-promoted")


def make(name: str, llm: CannedLLM, **options: Any) -> Explainer:
    made: Explainer = registry.make("explainers", name, options, llm=llm)
    return made


def explain(name: str, llm: CannedLLM, about: NeuronRecord, **options: Any) -> Explanation:
    return asyncio.run(make(name, llm, **options).explain(about))


@pytest.mark.parametrize("case", CASES)
def test_prompts_are_the_golden_ones(case: str) -> None:
    name, able, options = CASES[case]
    llm = CannedLLM(able=able)
    about = writing_rivers() if case in WITH_EFFECTS else rivers()
    explain(name, llm, about, **options)
    file = GOLDEN / f"{case}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text_of(llm.requests[0].prompt) + "\n", "utf-8")
    assert text_of(llm.requests[0].prompt) + "\n" == file.read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_reply_becomes_the_explanation(name: str) -> None:
    explained = explain(name, CannedLLM("“names of rivers”"), rivers())
    assert explained == Explanation(rivers().neuron, name, "names of rivers")


@pytest.mark.parametrize("name", NAMES)
def test_equal_neurons_are_asked_about_in_equal_words(name: str) -> None:
    llm = CannedLLM()
    for _ in range(2):
        explain(name, llm, rivers(), temperature=0.7, seed=4)
    assert llm.requests[0] == llm.requests[1]
    assert llm.requests[0].temperature == 0.7
    assert llm.requests[0].sampling_seed == 4


@pytest.mark.parametrize("name", NAMES)
def test_plain_text_says_the_same_as_a_chat(name: str) -> None:
    chat, plain = CannedLLM(), CannedLLM(able=PLAIN)
    explain(name, chat, rivers())
    explain(name, plain, rivers())
    messages, text = chat.requests[0].prompt, plain.requests[0].prompt
    assert isinstance(messages, tuple)
    assert isinstance(text, str)
    assert all(message.content in text for message in messages)
    assert text.endswith("\nExplanation:")
    assert plain.requests[0].stop == ("\n",)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_can_neither_chat_nor_continue_is_refused_unasked(name: str) -> None:
    llm = CannedLLM(able=Capabilities(chat=False, completions=False))
    with pytest.raises(LLMError, match="gives no chat"):
        explain(name, llm, rivers())
    assert not llm.requests


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("reply", "reason", "cause"),
    [
        ("", "stop", "empty-reply"),
        ("I'm sorry, but I cannot help with that.", "stop", "refused"),
        ("the names of rivers in the middle of Eur", "length", "cut-off"),
        (load_few_shot()[0].explanation, "stop", "prompt-leak"),
    ],
)
def test_a_reply_that_is_no_label_is_a_failure(
    name: str, reply: str, reason: str, cause: str
) -> None:
    if name == "max-act-logits" and cause == "prompt-leak":
        reply = load_few_shot()[0].label  # its examples are short
    with pytest.raises(NeuronFailure) as caught:
        explain(name, CannedLLM(reply, reason), rivers())
    assert caught.value.cause == cause


@pytest.mark.parametrize("name", WITH_RECORDS)
def test_a_neuron_that_never_fires_is_not_asked_about(name: str) -> None:
    llm = CannedLLM()
    with pytest.raises(NeuronFailure) as caught:
        explain(name, llm, neuron(record(["a", "b"], [-1.0, 0.0])))
    assert caught.value.cause == "never-active"
    assert not llm.requests


@pytest.mark.parametrize(
    ("about", "cause"),
    [
        (replace(rivers(), token_rows=None), "no-token-table"),
        (replace(rivers(), token_rows=rivers().token_rows), None),
    ],
)
def test_token_space_needs_a_token_table(about: NeuronRecord, cause: str | None) -> None:
    if cause is None:
        assert explain("token-space", CannedLLM(), about).text
        return
    with pytest.raises(NeuronFailure) as caught:
        explain("token-space", CannedLLM(), about)
    assert caught.value.cause == cause


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"few_shot": -1}, {"temperature": -0.1}])
def test_an_option_that_makes_no_sense_is_refused(name: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="at least"):
        make(name, CannedLLM(), **options)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_explainer_needs_of_a_model_can_be_asked_before_it_is_used(name: str) -> None:
    assert registry.resolve("explainers", name).needs == ()


def fitted(name: str, context: int | None, **options: Any) -> tuple[Message, ...]:
    llm = CannedLLM(able=replace(CHAT, context=context))
    explain(name, llm, rivers(), **options)
    prompt = llm.requests[0].prompt
    assert isinstance(prompt, tuple)
    return prompt


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_dropped_before_records_and_the_answer_keeps_its_room(name: str) -> None:
    full = fitted(name, None, max_tokens=30)
    whole = estimated_tokens(full) + 30
    assert fitted(name, whole, max_tokens=30) == full
    fewer = fitted(name, whole - 1, max_tokens=30)
    assert fewer == (*full[:-3], full[-1])
    none = fitted(name, estimated_tokens((full[0], full[-1])) + 30, max_tokens=30)
    assert none == (full[0], full[-1])


def test_a_label_shows_what_is_promoted_where_that_is_known_and_asked_for() -> None:
    asked = {}
    for case, about, options in (
        ("known", writing_rivers(), {}),
        ("unknown", rivers(), {}),
        ("unwanted", writing_rivers(), {"promoted": 0}),
        ("few", writing_rivers(), {"promoted": 2}),
    ):
        llm = CannedLLM()
        explain("max-act-logits", llm, about, few_shot=9, **options)
        prompt = llm.requests[0].prompt
        assert isinstance(prompt, tuple)
        asked[case] = [message.content for message in prompt]
    assert asked["known"][-1].endswith("\n\nPromoted:\n flows\nbank\n\\n")
    assert asked["few"][-1].endswith("\n\nPromoted:\n flows\nbank")
    assert asked["unwanted"] == asked["unknown"]
    assert not any("romote" in text for text in asked["unknown"])
    for case in ("known", "few"):
        examples = asked[case][1:-1:2]
        assert len(examples) == len(load_few_shot())
        assert all("\n\nPromoted:\n" in example for example in examples)


def test_promoted_tokens_are_dropped_before_places() -> None:
    whole = MaxActLogits(llm=CannedLLM()).question(choose(rivers(), 2), writing_rivers().promoted)
    without = MaxActLogits(llm=CannedLLM()).question(choose(rivers(), 2))
    assert whole.items == without.items + 3
    assert whole.about(without.items) == without.about(without.items)
    assert whole.about(without.items + 1).endswith("Promoted:\n flows")
    assert whole.about(1) == without.about(1)


def test_records_are_dropped_from_the_weakest_on_and_never_the_last() -> None:
    options = {"few_shot": 0, "contrast": 1, "max_tokens": 100}
    question = fitted("highlight", None, **options)
    room = estimated_tokens(question) + 100
    fewer = fitted("highlight", room - 1, **options)[-1].content
    assert "hardly" in question[-1].content
    assert "hardly" not in fewer
    assert "Oder" in fewer
    for missing in (40, 80):  # the estimate is high: the last record is left to the server
        least = fitted("highlight", room - missing, **options)[-1].content
        assert "Danube" in least
        assert "Oder" not in least


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_fit_whatever_the_tokenizer_is_refused_with_the_numbers(name: str) -> None:
    llm = CannedLLM(able=replace(CHAT, context=100))
    with pytest.raises(
        NeuronFailure, match=r"least \d+ tokens, .* context of canned is 100"
    ) as caught:
        explain(name, llm, rivers())
    assert caught.value.cause == "context-overflow"
    assert not llm.requests


def test_an_explanation_says_what_was_dropped_to_fit_the_context() -> None:
    llm = CannedLLM(able=CHAT)
    whole = explain("highlight", llm, rivers()).fit
    assert whole == Fit(4, 0, 2, 0)
    room = estimated_tokens(llm.requests[0].prompt) + 100
    shorter = explain("highlight", CannedLLM(able=replace(CHAT, context=room - 1)), rivers()).fit
    assert shorter == Fit(3, 1, 2, 0)
    bare = explain("highlight", CannedLLM(able=replace(CHAT, context=330)), rivers()).fit
    assert bare is not None
    assert (bare.examples, bare.examples_dropped) == (0, 4)
