"""How explainers ask a language model: one prompt that fits, one reply that is a label."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from neuron_explainer.conversation import Fitted, Prompt, Turn, conversation, fitting
from neuron_explainer.errors import ConfigError
from neuron_explainer.explain.replies import Asked, label
from neuron_explainer.llm.base import LLM, Capabilities, Request, lacking
from neuron_explainer.records import Explanation, NeuronId

_LEAD = "Explanation: "
_PLAIN_STOP = ("\n",)


@dataclass(frozen=True, slots=True)
class Question:
    """All that an explainer wants to ask about one neuron, and what may be left out of it."""

    system: str
    examples: tuple[Turn, ...]
    about: Callable[[int], str]  # the question that shows only the first so many items
    items: int  # records or tokens that it can show, at least 1


class Asking(Protocol):
    """An explainer that asks a model: whom, and how the answer is drawn."""

    @property
    def name(self) -> str:
        """As in the registry."""

    @property
    def llm(self) -> LLM:
        """Whom it asks."""

    @property
    def max_tokens(self) -> int:
        """Of the answer, at most."""

    @property
    def temperature(self) -> float:
        """0: the likeliest answer."""

    @property
    def seed(self) -> int:
        """Where the temperature is above 0."""


async def ask(explainer: Asking, neuron: NeuronId, question: Question) -> Explanation:
    """The model's label. Raises NeuronFailure, or LLMError when it cannot be asked."""
    llm = explainer.llm
    fitted = fit(question, await llm.capabilities(), explainer.max_tokens, llm.model)
    response = await llm.complete(
        Request(
            fitted.prompt,
            max_tokens=explainer.max_tokens,
            temperature=explainer.temperature,
            seed=explainer.seed,
            stop=_PLAIN_STOP if isinstance(fitted.prompt, str) else (),
        )
    )
    shown = fitted.fit
    answers = tuple(example.answer for example in question.examples[: shown.examples])
    asked = Asked(question.system, question.about(shown.items or 0), answers)
    text = label(response.text, response.finish_reason, asked)
    return Explanation(neuron, explainer.name, text, fit=shown)


def fit(question: Question, capabilities: Capabilities, max_tokens: int, model: str) -> Fitted:
    """The fullest prompt that leaves room for the answer.

    Raises NeuronFailure("context-overflow"), LLMError when the model cannot be asked.
    """
    if not capabilities.chat and not capabilities.completions:
        raise lacking("chat", model)
    return fitting(
        lambda examples, items: as_prompt(question, examples, items, capabilities.chat),
        len(question.examples),
        question.items,
        max_tokens,
        capabilities,
        model,
    )


def as_prompt(question: Question, examples: int, items: int, chat: bool) -> Prompt:
    """The prompt that shows so many examples and items."""
    shown = question.examples[:examples]
    return conversation(chat, question.system, shown, question.about(items), _LEAD)


def check_option(name: str, value: float, least: float) -> None:
    """Raise ConfigError when an option is below what makes sense."""
    if value < least:
        raise ConfigError(f"{name} is {value}; it must be at least {least}")
