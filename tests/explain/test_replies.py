"""Replies become labels by rule or are refused with a cause."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.explain.replies import LONGEST, Asked, label

ASKED = Asked(
    "Find out from the excerpts what it fires on. Answer with one phrase of at most 25 words.",
    "The boat«9: drifted» down to the old harbour and\\nthe men«8: rowed» home before dark .",
    ("verbs for speaking quietly, such as “whispered”", "speaking quietly"),
)


def cause_of(reply: str, finish_reason: str = "stop") -> str:
    with pytest.raises(NeuronFailure) as caught:
        label(reply, finish_reason, ASKED)
    return caught.value.cause


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("words for tea", "words for tea"),
        ("  words for tea \n", "words for tea"),
        ("Explanation: words for tea", "words for tea"),
        ("**Explanation:** words for tea", "words for tea"),
        ("Label: “words for tea”", "words for tea"),
        ("The explanation is: words for tea", "words for tea"),
        ("Sure! Here is the explanation:\n\nwords for tea", "words for tea"),
        ("```text\nwords for tea\n```", "words for tea"),
        ('"words for tea"', "words for tea"),
        ("**words for tea**", "words for tea"),
        ("words for **tea**", "words for tea"),
        ("This neuron mainly fires on words for tea", "words for tea"),
        ("words for tea\n\nThe marked words are all hot drinks.", "words for tea"),
        ("words for tea,\nand for milk", "words for tea, and for milk"),
        ("- words for tea\n- kinds of rope", "words for tea; kinds of rope"),
        ("<think>tea? milk?</think>\nwords for tea", "words for tea"),
        ("words such as «9: tea» and «milk»", "words such as “tea” and “milk”"),
        ("“tea” and “milk”", "“tea” and “milk”"),
        ("words\tfor\x00 tea", "words for tea"),
        ('{"explanation": "words for tea"}', "words for tea"),
        ('```json\n{\n  "label": "words for tea"\n}\n```', "words for tea"),
        ('{"a": 1, …} and other JSON', '{"a": 1, …} and other JSON'),
    ],
)
def test_what_surrounds_a_label_is_taken_away(reply: str, expected: str) -> None:
    assert label(reply, "stop", ASKED) == expected


@pytest.mark.parametrize(
    "reply",
    [
        "“I'm sorry” and other apologies",
        "the phrase “as an AI” in chats",
        "adverbs of regret such as unfortunately",
        "unknown people and places",
        "headings such as “User:” in a transcript",
        "tags of HTML such as <div> and <span>",
        "boats and oars",
        "verbs for speaking loudly, such as “shouted”",
        "the names of file systems: “ext4” and “zfs”",
    ],
)
def test_labels_that_only_look_like_trouble_are_kept(reply: str) -> None:
    assert label(reply, "stop", ASKED) == reply


@pytest.mark.parametrize("reply", ["", " \n ", "…", "```\n```", "Explanation:", '""', "**  **"])
def test_nothing_is_no_label(reply: str) -> None:
    assert cause_of(reply) == "empty-reply"


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot see a pattern.",
        "As an AI language model, I do not have access to neurons.",
        "Explanation: I cannot determine what it fires on.",
        "There is no clear pattern in these words.",
        "It could be boats, but there is not enough information.",
        "Unknown.",
        "N/A",
    ],
)
def test_a_refusal_is_no_label(reply: str) -> None:
    assert cause_of(reply) == "refused"


@pytest.mark.parametrize(
    "reply",
    [
        "Answer with one phrase of at most 25 words.",
        "what it fires on",
        "verbs for speaking quietly, such as “whispered”",
        "Verbs for speaking quietly, such as whispered; also rivers",
        "speaking quietly",
        "The boat drifted down to the old harbour and the men rowed home",
        "words for tea <end>",
        "words for tea <|im_end|>",
        "words for tea Explanation: words for milk",
        "words for tea\nUser: what is this?",
        "tea\t10\nmilk\t9",
    ],
)
def test_text_of_the_prompt_is_no_label(reply: str) -> None:
    assert cause_of(reply) == "prompt-leak"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Words for tea. They are often foll", "Words for tea."),
        ("Words for tea, e.g. Assam. They are", "Words for tea, e.g. Assam."),
        ("Words for tea.", "Words for tea."),
        ("words for tea\n\nThe marked words are a", "words for tea"),
    ],
)
def test_a_cut_reply_keeps_its_whole_sentences(reply: str, expected: str) -> None:
    assert label(reply, "length", ASKED) == expected


@pytest.mark.parametrize(
    "reply", ["words for tea and", "<think>tea? or milk", "titles such as Mr."]
)
def test_a_reply_cut_inside_its_only_sentence_is_no_label(reply: str) -> None:
    assert cause_of(reply, "length") == "cut-off"


@pytest.mark.parametrize("reply", ['{"a": "tea", "b": "milk"}', "[]", '{"tea": 10}'])
def test_json_that_holds_no_single_text_is_no_label(reply: str) -> None:
    assert cause_of(reply) in {"malformed-reply", "empty-reply"}


def test_a_long_reply_ends_with_the_last_sentence_that_fits() -> None:
    sentence = "Words for tea and for milk."
    kept = label(" ".join([sentence] * 40), "stop", ASKED)
    assert LONGEST - len(sentence) <= len(kept) <= LONGEST
    assert kept.endswith(sentence)
    assert cause_of("tea and milk, " * 40) == "too-long"


@given(st.text(max_size=600), st.sampled_from(["stop", "length"]))
def test_any_reply_is_one_line_of_bounded_length_or_a_failure(reply: str, reason: str) -> None:
    with suppress(NeuronFailure):  # anything else would be an error of ours
        check_label(label(reply, reason, ASKED))


def check_label(text: str) -> None:
    assert 0 < len(text) <= LONGEST
    assert text.isprintable()
    assert text == text.strip()
