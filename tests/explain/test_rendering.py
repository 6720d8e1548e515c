"""Records in prompts: nothing that a token holds breaks a line, and the text is got back."""

import asyncio
import re
from dataclasses import replace

import pytest
from canned_llm import CannedLLM, neuron, record, rivers, rows, text_of
from hypothesis import given, settings
from hypothesis import strategies as st

from neuron_explainer import registry
from neuron_explainer.explain.asking import as_prompt
from neuron_explainer.explain.highlight import Highlight, marked
from neuron_explainer.explain.max_act_logits import MaxActLogits, Place, places
from neuron_explainer.explain.shown import Shown, ShownRecord, choose
from neuron_explainer.explain.token_activation import TokenActivation
from neuron_explainer.explain.token_space import Lists, TokenSpace
from neuron_explainer.token_text import read

HOSTILE = (
    *(b"\t", b"\n", b"\r\n", b"\x0b\x85", b"\x00", b"\xe2\x82", b"\xac", b"\xff", b"\\", b"\\n"),
    *("«".encode(), "»".encode(), "«9:".encode(), "\u200b".encode(), "\u2028".encode(), b"\t5"),
    *(b'"', "”".encode(), b"<start>", b"<end>", b"\n<end>", b"{records}", b"<|im_end|>", b" "),
)
tokens = st.one_of(st.binary(min_size=1, max_size=6), st.sampled_from(HOSTILE), st.just(b" tea"))
pairs = st.lists(st.tuples(tokens, st.integers(0, 10)), min_size=1, max_size=30)


def shown(entries: list[tuple[bytes, int]]) -> ShownRecord:
    return ShownRecord(tuple(token for token, _ in entries), tuple(level for _, level in entries))


def last_question(prompt: object) -> str:
    assert isinstance(prompt, tuple)
    content: str = prompt[-1].content
    return content


@given(pairs, st.integers(1, 10))
def test_marked_text_is_one_line_from_which_text_and_marks_come_back(
    entries: list[tuple[bytes, int]], threshold: int
) -> None:
    line = marked(shown(entries), threshold)
    assert len(line.splitlines()) <= 1
    parts = re.split(r"(?<!\\)((?:\\\\)*)(«\d+:|»)", line)
    text = "".join(part for place, part in enumerate(parts) if place % 3 != 2)
    assert read(text) == b"".join(token for token, _ in entries)
    strong = [level >= threshold for _, level in entries]
    stretches = sum(
        now and not before for before, now in zip([False, *strong], strong, strict=False)
    )
    assert parts[2::3].count("»") == stretches


def test_neighbouring_strong_tokens_share_a_mark_with_the_higher_strength() -> None:
    record_ = shown([(b"The", 0), (b" Dan", 4), (b"ube", 9), (b" and", 2), (b" Elbe", 3)])
    assert marked(record_, 3) == "The«9: Danube» and«3: Elbe»"


def test_a_character_parted_between_two_tokens_is_whole_unless_a_mark_parts_it() -> None:
    euro = ["€".encode()[:2], "€".encode()[2:]]
    assert marked(shown([(euro[0], 0), (euro[1], 0)]), 3) == "€"
    assert marked(shown([(euro[0], 0), (euro[1], 8)]), 3) == "\\xe2\\x82«8:\\xac»"


@given(pairs)
@settings(deadline=None)
def test_every_token_of_a_list_has_one_line_from_which_it_comes_back(
    entries: list[tuple[bytes, int]],
) -> None:
    explainer = TokenActivation(llm=CannedLLM())
    question = explainer.question(Shown((shown(entries),))).about(1)
    block = question.split("<start>\n")[1].split("\n<end>")[0]
    written = [line.split("\t") for line in block.split("\n")]
    assert block.splitlines() == block.split("\n")
    assert [(read(token), int(level)) for token, level in written] == entries


@given(pairs)
@settings(deadline=None)
def test_every_place_has_one_line_of_three_columns(entries: list[tuple[bytes, int]]) -> None:
    explainer = MaxActLogits(llm=CannedLLM(), places=99)
    question = explainer.question(Shown((shown(entries),)))
    lines = question.about(99).split("\n")[1:] if question.items else []
    assert len(lines) == question.items
    assert all(line.count("\t") == 2 for line in lines)


@given(st.lists(tokens, min_size=1, max_size=30))
@settings(deadline=None)
def test_every_promoted_token_has_one_line_from_which_it_comes_back(texts: list[bytes]) -> None:
    labels = MaxActLogits(llm=CannedLLM(), promoted=99)
    shown_ = choose(rivers(), 2)
    effects = tuple((token, 1.0) for token in texts)
    space = TokenSpace(llm=CannedLLM())
    for question in (
        labels.question(shown_, effects),
        space.question(Lists((), texts)),
    ):
        listed = question.about(99).split("Promoted:\n")[1]
        assert listed.splitlines() == listed.split("\n")
        assert [read(line) for line in listed.split("\n")] == texts


@given(pairs, st.sampled_from(["token-activation", "highlight", "max-act-logits", "token-space"]))
@settings(deadline=None)
def test_any_tokens_can_be_asked_about_and_sent(
    entries: list[tuple[bytes, int]], name: str
) -> None:
    levels = [10.0, *(float(level) for _, level in entries)]
    texts = [b" tea", *(token for token, _ in entries)]
    table = rows(*((token, 1.0, 9) for token in dict.fromkeys(texts)))
    effects = tuple((token, 1.0) for token in texts)
    about = neuron(record(texts, levels), rows=table)
    llm = CannedLLM()
    options = {"source": "both"} if name == "token-space" else {}
    explainer = registry.make("explainers", name, options, llm=llm)
    asyncio.run(explainer.explain(replace(about, promoted=effects, suppressed=effects)))
    assert len(llm.requests[0].key("canned")) == 64
    assert text_of(llm.requests[0].prompt).encode()


def test_tokens_above_zero_are_repeated_when_few_are_and_only_then() -> None:
    llm = CannedLLM()
    sparse = neuron(record([" a", " b", " c", " d", " e", " f"], [0, 0, 7, 0, 0, 0.1]))
    dense = neuron(record([" a", " b", " c", " d"], [0, 0, 7, 0.8]))
    for about in (sparse, dense):
        asyncio.run(TokenActivation(llm=llm, few_shot=0).explain(about))
    first, second = (last_question(request.prompt) for request in llm.requests)
    assert first.endswith("without the tokens at 0:\n\n<start>\n c\t10\n<end>")
    assert second.endswith("<start>\n a\t0\n b\t0\n c\t10\n d\t1\n<end>")


def test_a_fifth_above_zero_is_not_few() -> None:
    question = TokenActivation(llm=CannedLLM(), few_shot=0).question
    fifth = shown([(b"a", 10), (b"b", 0), (b"c", 0), (b"d", 0), (b"e", 0)])
    assert "without" not in question(Shown((fifth,))).about(1)


def test_places_are_the_strong_ones_each_sort_once_strongest_first() -> None:
    again = [(b" tea", 6), (b" and", 0), (b" cake", 1)]
    found = places(Shown((shown(again), shown([(b" tea", 9), *again[1:]]), shown([(b"x", 4)]))), 1)
    assert found == [Place(9, b" tea", b" and")]
    assert places(Shown((shown([(b"end", 7)]),)), 4) == [Place(7, b"end", b"")]


@pytest.mark.parametrize("threshold", [1, 3, 11])
def test_the_threshold_says_what_is_marked(threshold: int) -> None:
    explainer = Highlight(llm=CannedLLM(), few_shot=0, threshold=threshold)
    question = explainer.question(choose(rivers(), 2))
    text = text_of(as_prompt(question, 0, 2, True))
    assert text.split("=== user")[1].count("»") == {1: 5, 3: 3, 11: 0}[threshold]
