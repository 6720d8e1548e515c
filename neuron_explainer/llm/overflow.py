"""A prompt that a model refuses as too long, and what it tells of the context by that.

    This model's maximum context length is 2048 tokens, however you requested 2801 tokens …
    request (579 tokens) exceeds the available context size (512 tokens) …

Prompts are fitted by an estimate, and some servers do not tell their context beforehand. What a
refusal tells is used for that neuron's next, shorter prompt alone: were it remembered for others,
their prompts would depend on who was asked first.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from neuron_explainer.conversation import Prompt, estimated_tokens
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import LLM, Capabilities, Request, Response

Result = TypeVar("Result")

_LIMIT = re.compile(r"(?:context (?:length|size|window)|n_ctx)[^0-9]{1,40}?(\d{2,9})", re.I)
_TOKENS = re.compile(r"(\d{2,9})(?: input| prompt)? tokens", re.I)


class Overflow(NeuronFailure):
    """A prompt with its answer is too long. `context` is what to fit the next one to."""

    def __init__(self, message: str, context: int | None) -> None:
        super().__init__("context-overflow", message)
        self.context = context


def context_told(detail: str, prompt: Prompt, answer: int) -> int | None:
    """`fitted_context` by the text of a refusal; None when it holds no numbers that say so."""
    limits = [int(found) for found in _LIMIT.findall(detail)]
    asked = [int(found) for found in _TOKENS.findall(detail)]
    if not limits or not asked:
        return None
    return fitted_context(min(limits), max(asked), prompt, answer)


def fitted_context(limit: int, asked: int, prompt: Prompt, answer: int) -> int | None:
    """The context that `conversation.fitting` should take for a model with `limit` tokens.

    `asked` is what the prompt and its answer really took. Where that is more than estimated, the
    context is less than the model's own in that proportion. None when they would have fitted.
    """
    if asked <= limit:
        return None
    return int(limit * min(1.0, (estimated_tokens(prompt) + answer) / asked))


async def fitted_anew(asker: Any, work: Callable[[Any], Awaitable[Result]]) -> Result:
    """`work(asker)`, and again with shorter prompts as long as a refusal tells how short.

    `asker` is an explainer or a simulator, a dataclass that has its model in `llm`.
    """
    while True:
        try:
            return await work(asker)
        except Overflow as overflow:
            known = (await asker.llm.capabilities()).context
            if overflow.context is None or (known is not None and overflow.context >= known):
                raise
            asker = replace(asker, llm=_Narrowed(asker.llm, overflow.context))


class _Narrowed:
    """A model that is said to have less context than it was thought to."""

    def __init__(self, inner: LLM, context: int) -> None:
        self._inner = inner
        self._context = context

    @property
    def model(self) -> str:
        return self._inner.model

    async def capabilities(self) -> Capabilities:
        return replace(await self._inner.capabilities(), context=self._context)

    async def complete(self, request: Request) -> Response:
        return await self._inner.complete(request)

    async def close(self) -> None:
        await self._inner.close()
