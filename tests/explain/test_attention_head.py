"""What a language model is asked about an attention head."""

import asyncio
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from canned_llm import CHAT, PLAIN, CannedLLM, neuron, record
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer import prompts, registry, workspace
from neuron_explainer.conversation import estimated_tokens
from neuron_explainer.errors import NeuronFailure, PromptError
from neuron_explainer.explain.attention_head import AttentionHead
from neuron_explainer.llm.base import Message
from neuron_explainer.pair_text import marked
from neuron_explainer.records import NeuronRecord, Record

BRACKETS = {"(": ")", "[": "]"}


def _pair(text: str, pair: tuple[int, int], activation: float) -> Record:
    tokens = [word if not place else f" {word}" for place, word in enumerate(text.split())]
    activations = [activation if place == pair[0] else 0.0 for place in range(len(tokens))]
    return replace(record(tokens, activations), pair=pair)


def _head() -> NeuronRecord:
    weak, strong = _pair("cats purr", (1, 1), 2.0), _pair("dogs often bark", (2, 0), 5.0)
    return neuron(weak, strong, replace(_pair("held out", (1, 0), 9.0), split="valid"))


def _asked(llm: CannedLLM, **options: int) -> str:
    made: AttentionHead = registry.make("explainers", "attention-head", options, llm=llm)
    explained = asyncio.run(made.explain(_head()))
    assert explained.text == "from a verb to its subject"
    assert explained.explainer == "attention-head"
    prompt = llm.requests[0].prompt
    return prompt if isinstance(prompt, str) else prompt[-1].content


@pytest.mark.parametrize("able", [CHAT, PLAIN])
def test_the_train_pairs_are_shown_with_query_and_key_the_strongest_first(able: object) -> None:
    llm = CannedLLM("from a verb to its subject")
    llm.able = PLAIN if able is PLAIN else CHAT
    asked = _asked(llm)
    expected = "Excerpts:\n«key:dogs» often«query: bark»\ncats«query and key: purr»"
    assert expected in asked
    assert "held out" not in asked


def test_options_choose_how_many_pairs_and_examples_are_shown() -> None:
    llm = CannedLLM("from a verb to its subject")
    asked = _asked(llm, records=1, few_shot=0)
    assert "purr" not in asked
    assert len(llm.requests[0].prompt) == 2
    whole = CannedLLM("from a verb to its subject")
    _asked(whole)
    prompt = whole.requests[0].prompt
    assert len(prompt) == 6
    assert estimated_tokens(prompt) < 700
    assert isinstance(prompt[1], Message)
    assert "«key: (»late again«query:)»" in prompt[1].content


def test_the_first_position_is_left_out() -> None:
    llm = CannedLLM("a phrase")
    shown = replace(_pair("BOS one two", (2, 1), 1.0))
    shown.scored[0] = False
    made: AttentionHead = registry.make("explainers", "attention-head", {}, llm=llm)
    asyncio.run(made.explain(neuron(shown)))
    assert llm.requests[0].prompt[-1].content == "Excerpts:\n«key: one»«query: two»"  # type: ignore[union-attr]


def test_a_silent_head_and_records_of_neurons_are_failures() -> None:
    made: AttentionHead = registry.make("explainers", "attention-head", {}, llm=CannedLLM())
    with pytest.raises(NeuronFailure, match="no train pair"):
        asyncio.run(made.explain(neuron(_pair("a b", (1, 0), 0.0))))
    with pytest.raises(NeuronFailure, match="not those of an attention head"):
        asyncio.run(made.explain(neuron(record(["a"], [1.0]))))


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_any_text_is_one_line_with_its_places_marked_once(
    tokens: list[bytes], data: st.DataObject
) -> None:
    query = data.draw(st.integers(0, len(tokens) - 1))
    key = data.draw(st.integers(0, query))
    line = marked(tokens, (query, key))
    assert len(line.splitlines()) == 1
    assert line.count("«") == line.count("»") == (1 if query == key else 2)


def test_the_example_heads_do_what_their_explanations_say() -> None:
    file = workspace.shipped() / "prompts" / "attention-head" / "examples.toml"
    brackets, same = tomllib.loads(file.read_text("utf-8"))["heads"]
    for head in (brackets, same):
        for shown in head["records"]:
            assert 0 <= shown["key"] < shown["query"] < len(shown["tokens"])
    for shown in brackets["records"]:
        opening, closing = (shown["tokens"][shown[role]].strip() for role in ("key", "query"))
        assert BRACKETS[opening] == closing
        between = shown["tokens"][shown["key"] + 1 : shown["query"]]
        assert not {token.strip() for token in between} & {*BRACKETS, *BRACKETS.values()}
    for shown in same["records"]:
        before = [token.strip().lower() for token in shown["tokens"][: shown["query"]]]
        assert before.index(shown["tokens"][shown["query"]].strip().lower()) == shown["key"]


def test_the_example_heads_are_among_the_files_whose_change_is_noticed() -> None:
    assert "attention-head/examples.toml" in prompts.files("attention-head")


def test_damaged_examples_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "attention-head").mkdir()
    (tmp_path / "attention-head" / "examples.toml").write_text("heads = 3")
    made = AttentionHead(llm=CannedLLM(), prompts=tmp_path)
    with pytest.raises(PromptError, match="holds no example heads"):
        asyncio.run(made.explain(_head()))
