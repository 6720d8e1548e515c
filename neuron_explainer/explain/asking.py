"""How explainers ask a language model: one prompt that fits, one reply that is a label.

A model with chat is asked in turns: system, example questions and answers, the question. One
without continues the same content as plain text, in which `Explanation:` stands before each answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.explain.replies import Asked, label
from neuron_explainer.llm.base import LLM, Capabilities, Message, Request, lacking

LEAD_IN = "Explanation:"
_PLAIN_STOP = ("\n",)

# The estimate errs on the high side for byte-pair vocabularies of common size: a word has a token
# for every three letters, every other sign or byte is one, a message takes eight for its frame.
_LETTERS_A_TOKEN = 3
_LETTERS_A_TOKEN_AT_MOST = 6  # on average, in any text and vocabulary
_FRAME = 8
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Example:
    """A question and the answer that it should have got."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """All that an explainer wants to ask about one neuron, and what may be left out of it."""

    system: str
    examples: tuple[Example, ...]
    about: Callable[[int], str]  # the question that shows only the first so many items
    items: int  # records or tokens that it can show, at least 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answer is drawn."""

    max_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt, and how much of the question is in it."""

    prompt: tuple[Message, ...] | str
    examples: int
    items: int


async def ask(llm: LLM, question: Question, sampling: Sampling) -> str:
    """The label that `llm` gives. Raises NeuronFailure, or LLMError when it cannot be asked."""
    fitted = fit(question, await llm.capabilities(), sampling.max_tokens, llm.model)
    response = await llm.complete(
        Request(
            fitted.prompt,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
            stop=_PLAIN_STOP if isinstance(fitted.prompt, str) else (),
        )
    )
    answers = tuple(example.answer for example in question.examples[: fitted.examples])
    asked = Asked(question.system, question.about(fitted.items), answers)
    return label(response.text, response.finish_reason, asked)


def fit(question: Question, capabilities: Capabilities, max_tokens: int, model: str) -> Fitted:
    """The fullest prompt that leaves room for the answer: examples are dropped, then items.

    When not even one item without examples fits by the estimate, it is refused if it cannot fit
    whatever the tokenizer, and else left to the server, which counts exactly.
    Raises NeuronFailure("context-overflow").
    """
    full = len(question.examples), question.items
    if capabilities.context is None:
        return Fitted(as_prompt(question, *full, capabilities, model), *full)
    everything = ((examples, question.items) for examples in range(full[0], 0, -1))
    without_examples = ((0, items) for items in range(question.items, 0, -1))
    room = capabilities.context - max_tokens
    for examples, items in chain(everything, without_examples):
        prompt = as_prompt(question, examples, items, capabilities, model)
        if estimated_tokens(prompt) <= room:
            return Fitted(prompt, examples, items)
    least = sum(map(len, _texts(prompt))) // _LETTERS_A_TOKEN_AT_MOST
    if least > room:
        raise NeuronFailure(
            "context-overflow",
            f"the shortest prompt has at least {least} tokens, the answer up to {max_tokens}, and "
            f"the context of {model} is {capabilities.context}: lower max_tokens or use a model "
            "with more",
        )
    return Fitted(prompt, 0, 1)


def as_prompt(
    question: Question, examples: int, items: int, capabilities: Capabilities, model: str
) -> tuple[Message, ...] | str:
    """Chat messages where the model has chat, else the same as plain text. Raises LLMError."""
    shown, last = question.examples[:examples], question.about(items)
    if capabilities.chat:
        turns = [
            turn
            for example in shown
            for turn in (Message("user", example.question), Message("assistant", example.answer))
        ]
        return (Message("system", question.system), *turns, Message("user", last))
    if not capabilities.completions:
        raise lacking("chat", model)
    answered = [f"{example.question}\n{LEAD_IN} {example.answer}" for example in shown]
    return "\n\n".join([question.system, *answered, f"{last}\n{LEAD_IN}"])


def estimated_tokens(prompt: tuple[Message, ...] | str) -> int:
    """How many tokens a prompt has at most, near enough."""
    return sum(_FRAME + _estimated(text) for text in _texts(prompt))


def _texts(prompt: tuple[Message, ...] | str) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [message.content for message in prompt]


def _estimated(text: str) -> int:
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    in_words = sum(-(-len(word) // _LETTERS_A_TOKEN) for word in words)
    spaces = text.count(" ") - text.count("  ")  # a single space belongs to the word after it
    return in_words + len(text.encode("utf-8", "replace")) - letters - spaces


def check_option(name: str, value: float, least: float) -> None:
    """Raise ConfigError when an option is below what makes sense."""
    if value < least:
        raise ConfigError(f"{name} is {value}; it must be at least {least}")
