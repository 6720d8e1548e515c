"""What simulators share in asking a language model: what they need, what fits, what came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.llm.base import LLM, Capabilities, Feature, Message, require
from neuron_explainer.records import Simulation, Stimulus

Prompt = tuple[Message, ...] | str
Result = TypeVar("Result")

ALTERNATIVES = 20  # at each token; as many as the OpenAI protocol and vLLM allow by default
_WORDS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ "


@dataclass(frozen=True, slots=True)
class Turn:
    """A question as it is put and the answer that it should get."""

    question: str
    answer: str


def at_least(least: int, **options: int) -> None:
    """Raise ConfigError for an option that is below what makes sense."""
    for name, value in options.items():
        if value < least:
            raise ConfigError(f"{name} is {value}; it must be at least {least}")


async def checked(llm: LLM, needs: Sequence[Feature]) -> Capabilities:
    """The model's capabilities. Raises LLMError when it lacks one of `needs`."""
    capabilities = await llm.capabilities()
    require(capabilities, needs, llm.model)
    return capabilities


def conversation(
    chat: bool, system: str, turns: Iterable[Turn], question: str, lead: str = ""
) -> Prompt:
    """The same exchange as chat messages, or as text that ends, with `lead`, where the answer is
    to begin.
    """
    if not chat:
        answered = [f"{turn.question}\n{lead}{turn.answer}" for turn in turns]
        return "\n\n".join([system, *answered, f"{question}\n{lead}"])
    messages = [Message("system", system)]
    for turn in turns:
        messages += [Message("user", turn.question), Message("assistant", turn.answer)]
    return (*messages, Message("user", question))


def fitting(
    make: Callable[[int], Prompt], examples: int, answer: int, capabilities: Capabilities
) -> int:
    """How many of the examples leave room for `answer` tokens; `make(n)` is a prompt with n.

    Examples are dropped by an estimate that errs on the high side. A prompt without any is refused
    only when it cannot fit whatever the tokenizer; what lies between is for the server to say.
    Raises NeuronFailure("context-overflow").
    """
    if capabilities.context is None:
        return examples
    room = capabilities.context - answer
    for number in range(examples, 0, -1):
        if _most_tokens(make(number)) <= room:
            return number
    least = _size(make(0)) // 6
    if least > room:
        raise NeuronFailure(
            "context-overflow",
            f"the prompt has at least {least} tokens without any example and the answer takes up "
            f"to {answer}; the model's context is {capabilities.context}",
        )
    return 0


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "".join(f"{message.content}~~~~~~" for message in prompt)  # what parts messages


def _size(prompt: Prompt) -> int:
    return len(_text(prompt).encode())


def _most_tokens(prompt: Prompt) -> int:
    content = _text(prompt).encode()
    others = len(content.translate(None, _WORDS))
    # 1.8 letters a token: a vocabulary of 512 has that, one of 50,000 more than 4
    return others + (5 * (len(content) - others) + 8) // 9


async def together(jobs: Iterable[Awaitable[Result]]) -> list[Result]:
    """All results. When some fail, the others are waited for first: their replies are paid for."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:  # what concerns every request goes before what concerns this neuron
        raise min(errors, key=lambda error: isinstance(error, NeuronFailure))
    return results  # type: ignore[return-value]


def defined(simulations: list[Simulation], stimuli: Sequence[Stimulus]) -> list[Simulation]:
    """The simulations. Raises NeuronFailure when not one scored position has a prediction."""
    scored = [
        simulation.activations[stimulus.scored]
        for simulation, stimulus in zip(simulations, stimuli, strict=True)
    ]
    if any(part.size for part in scored) and all(np.isnan(part).all() for part in scored):
        raise NeuronFailure(
            "no-valid-number",
            "the model's replies hold no number from 0 to 10 at any token: use one that follows "
            "instructions",
        )
    return simulations
