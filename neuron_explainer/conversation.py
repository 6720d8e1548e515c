"""What a language model is asked to go on with, and how much of it fits the model's context.

A model with chat is asked in turns: system, example questions and answers, the question. One
without continues the same content as plain text, in which a lead stands before each answer.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import Capabilities, Message
from neuron_explainer.records import Fit

Prompt = tuple[Message, ...] | str

# The estimate errs on the high side for byte-pair vocabularies from some 4,000 tokens on: a word
# has a token for every three letters, every other sign or byte is one, a message takes eight for
# its frame.
_LETTERS_A_TOKEN = 3
_LETTERS_A_TOKEN_AT_MOST = 6  # on average, in any text and vocabulary
_FRAME = 8
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question as it is put and the answer that it should get."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt, and how much of what could be shown is in it."""

    prompt: Prompt
    fit: Fit


def conversation(
    chat: bool, system: str, turns: Iterable[Turn], question: str, lead: str = ""
) -> Prompt:
    """The exchange as chat messages, or as text that ends, with `lead`, where the answer begins.

    A space that ends the lead is left out there: it belongs to the answer's first token.
    """
    if not chat:
        answered = [f"{turn.question}\n{lead}{turn.answer}" for turn in turns]
        return "\n\n".join([system, *answered, f"{question}\n{lead.rstrip(' ')}"])
    messages = [Message("system", system)]
    for turn in turns:
        messages += [Message("user", turn.question), Message("assistant", turn.answer)]
    return (*messages, Message("user", question))


def fitting(
    make: Callable[[int, int], Prompt],
    examples: int,
    items: int,
    answer: int,
    capabilities: Capabilities,
    model: str,
) -> Fitted:
    """The fullest prompt that leaves room for `answer` tokens: examples are dropped, then items.

    `make(examples, items)` is the prompt with so many of them; there is always at least one item.
    When not even one item without examples fits by the estimate, it is refused if it cannot fit
    whatever the tokenizer, and else left to the server, which counts exactly.
    Raises NeuronFailure("context-overflow").
    """

    def fitted(shown: int, left: int) -> Fit:
        return Fit(shown, examples - shown, left, items - left)

    if capabilities.context is None:
        return Fitted(make(examples, items), fitted(examples, items))
    everything = ((shown, items) for shown in range(examples, 0, -1))
    without_examples = ((0, shown) for shown in range(items, 0, -1))
    room = capabilities.context - answer
    for parts in chain(everything, without_examples):
        prompt = make(*parts)
        if estimated_tokens(prompt) <= room:
            return Fitted(prompt, fitted(*parts))
    least = sum(map(len, _texts(prompt))) // _LETTERS_A_TOKEN_AT_MOST
    if least > room:
        raise NeuronFailure(
            "context-overflow",
            f"the shortest prompt has at least {least} tokens, the answer up to {answer}, and the "
            f"context of {model} is {capabilities.context}: use a model with more, or lower "
            "max_tokens where that is an option",
        )
    return Fitted(prompt, fitted(*parts))


def estimated_tokens(prompt: Prompt) -> int:
    """How many tokens a prompt has at most, near enough."""
    return sum(_FRAME + _estimated(text) for text in _texts(prompt))


def _texts(prompt: Prompt) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [message.content for message in prompt]


def _estimated(text: str) -> int:
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    in_words = sum(-(-len(word) // _LETTERS_A_TOKEN) for word in words)
    spaces = text.count(" ") - text.count("  ")  # a single space belongs to the word after it
    return in_words + len(text.encode("utf-8", "replace")) - letters - spaces
