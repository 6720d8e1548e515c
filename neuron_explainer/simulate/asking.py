"""What simulators share in asking a language model: what they need, what fits, what came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from neuron_explainer.conversation import Prompt, Turn, conversation, fitting
from neuron_explainer.errors import ConfigError, Deferred, NeuronFailure
from neuron_explainer.llm.base import LLM, Capabilities, Feature, require
from neuron_explainer.records import Fit, Simulation, Stimulus

Result = TypeVar("Result")

ALTERNATIVES = 20  # at each token; as many as the OpenAI protocol and vLLM allow by default


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


def fitted(
    llm: LLM,
    capabilities: Capabilities,
    make: Callable[[int], Prompt],
    examples: int,
    answer: int,
) -> Fit:
    """How many of the examples leave room for `answer` tokens; `make(n)` is a prompt with n.

    Raises NeuronFailure("context-overflow").
    """
    made = fitting(lambda number, _: make(number), examples, 1, answer, capabilities, llm.model)
    return replace(made.fit, items=None, items_dropped=None)


def asking(
    llm: LLM,
    capabilities: Capabilities,
    system: str,
    turns: Sequence[Turn],
    questions: Sequence[str],
    answer: int,
    lead: str,
) -> tuple[Callable[[str], Prompt], Fit]:
    """Question → prompt, with the examples that leave room for the longest of `questions`.

    Raises NeuronFailure("context-overflow").
    """

    def prompt(number: int, question: str) -> Prompt:
        return conversation(capabilities.chat, system, turns[:number], question, lead)

    longest = max(questions, key=len, default="")
    fit = fitted(llm, capabilities, lambda n: prompt(n, longest), len(turns), answer)
    return partial(prompt, fit.examples), fit


async def together(jobs: Iterable[Awaitable[Result]]) -> list[Result]:
    """All results. When some fail, the others are waited for first: their replies are paid for."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:  # what concerns every request goes before what concerns this neuron
        raise min(errors, key=_rank)
    return results  # type: ignore[return-value]


def _rank(error: BaseException) -> int:
    if isinstance(error, NeuronFailure):
        return 2
    return int(isinstance(error, Deferred))  # as long as one answer is to come, nothing is settled


def defined(
    simulations: list[Simulation], stimuli: Sequence[Stimulus], fit: Fit | None = None
) -> list[Simulation]:
    """The simulations, made by prompts that fit so; None: what was fitted is not known.

    Raises NeuronFailure when not one scored position has a prediction.
    """
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
    return [replace(simulation, fit=fit) for simulation in simulations]
