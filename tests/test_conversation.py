"""One exchange as chat or as text, and what of it fits a context."""

from pathlib import Path
from typing import Any

import pytest

from neuron_explainer.conversation import Turn, conversation, estimated_tokens, fitting
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import Capabilities

GOLDEN = sorted(Path(__file__).parent.glob("*/golden/*.txt"))
TURNS = (Turn("2 + 2", "4"), Turn("2 + 3", "5"))
ITEM = "some text of six words\n"


def made(examples: int, items: int) -> str:
    return "example " * 10 * examples + ITEM * items


def fitted(context: int | None, examples: int = 3, items: int = 4) -> tuple[int, int]:
    able = Capabilities(chat=False, completions=True, context=context)
    found = fitting(made, examples, items, 20, able, "small")
    fit = found.fit
    kept = fit.items or 0
    assert found.prompt == made(fit.examples, kept)
    assert (fit.examples_dropped, fit.items_dropped) == (examples - fit.examples, items - kept)
    return fit.examples, kept


def test_a_chat_has_a_message_for_every_turn() -> None:
    messages = conversation(True, "Add.", TURNS, "3 + 3", "Sum: ")
    assert isinstance(messages, tuple)
    assert [(message.role, message.content) for message in messages] == [
        ("system", "Add."),
        *(("user", "2 + 2"), ("assistant", "4"), ("user", "2 + 3"), ("assistant", "5")),
        ("user", "3 + 3"),
    ]


@pytest.mark.parametrize(
    ("lead", "end"), [("Sum: ", "Sum:"), ("Sum:\n", "Sum:\n"), ("Sum\t", "Sum\t")]
)
def test_plain_text_ends_where_the_answer_is_to_begin_without_the_answers_own_space(
    lead: str, end: str
) -> None:
    text = conversation(False, "Add.", TURNS[:1], "3 + 3", lead)
    assert text == f"Add.\n\n2 + 2\n{lead}4\n\n3 + 3\n{end}"


def test_examples_are_dropped_first_and_then_items_but_never_the_last() -> None:
    sizes = [estimated_tokens(made(*parts)) + 20 for parts in ((3, 4), (1, 4), (0, 4), (0, 2))]
    assert fitted(None) == (3, 4)
    assert [fitted(size) for size in sizes] == [(3, 4), (1, 4), (0, 4), (0, 2)]
    assert fitted(sizes[0] - 1) == (2, 4)


def test_what_may_fit_is_left_to_the_server_and_what_cannot_is_refused() -> None:
    assert fitted(20 + len(ITEM) // 6) == (0, 1)
    with pytest.raises(NeuronFailure, match=r"least 3 tokens, .* 20, .* small is 22") as caught:
        fitted(22)
    assert caught.value.cause == "context-overflow"


@pytest.fixture(scope="module")
def tokenizers(assets: Path) -> list[Any]:
    """Of 50,257 and of 4,096 tokens."""
    from transformers import AutoTokenizer, GPT2Tokenizer

    folder = assets / "gpt2-bpe"
    return [
        GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")),
        AutoTokenizer.from_pretrained(str(assets / "gpt2-local")),
    ]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_estimate_errs_on_the_high_side_for_every_prompt(
    path: Path, tokenizers: list[Any]
) -> None:
    text = path.read_text("utf-8")
    for tokenizer in tokenizers:
        exact = len(tokenizer(text).input_ids)
        assert exact <= estimated_tokens(text) <= 1.8 * exact
