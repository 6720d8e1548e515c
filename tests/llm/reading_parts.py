"""What tests of readings share: sequences that hurt, and a backend without its reading."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.llm.base import LLM, Capabilities, Request, Response
from neuron_explainer.records import Explanation, NeuronId, Stimulus
from neuron_explainer.simulate.all_at_once import AllAtOnceSimulator

EVERY = 5000  # alternatives: all there are
TOKENS: tuple[tuple[bytes, ...], ...] = (
    (b" Once", b" upon", b" a", b"\t", b"\n", b"<start>", b"\xc3"),
    (b"<start>\n", b"\n<end>", b"\t unknown\n"),
    (b" ten", b" 1", b"0", b" Lily", b" and"),
    (b" e", "\u0301".encode(), "\u00e9".encode(), b"</s>", b"\\n", b"unknown"),
)


def stimuli(sequences: Sequence[Sequence[bytes]] = TOKENS) -> list[Stimulus]:
    """All positions scored."""
    return [Stimulus(tuple(some), np.ones(len(some), np.bool_)) for some in sequences]


def explained(text: str) -> Explanation:
    """Of no neuron in particular."""
    return Explanation(NeuronId("tiny", "blocks.0.mlp.hook_post", 0), "test", text)


class Unread:
    """A backend without its reading: every prompt goes whole, as to a server."""

    def __init__(self, inner: LLM) -> None:
        self.inner = inner

    @property
    def model(self) -> str:
        """The backend's."""
        return self.inner.model

    async def capabilities(self) -> Capabilities:
        """The backend's, but for reading."""
        return replace(await self.inner.capabilities(), reading=False, top_logprobs=EVERY)

    async def complete(self, request: Request) -> Response:
        """The backend's answer."""
        return await self.inner.complete(request)

    async def close(self) -> None:
        """Nothing is open."""


def simulated(
    llm: LLM,
    texts: Sequence[Stimulus],
    *explanations: str,
    few_shot: int = 0,
    alternatives: int = EVERY,
) -> list[NDArray[np.float64]]:
    """What `all-at-once` makes of sequences with each explanation in turn. Closes the model."""

    async def run() -> list[NDArray[np.float64]]:
        simulator = AllAtOnceSimulator(llm, few_shot=few_shot, alternatives=alternatives)
        try:
            made = [await simulator.simulate(explained(text), texts) for text in explanations]
        finally:
            await llm.close()
        return [one.activations.astype(np.float64) for some in made for one in some]

    return asyncio.run(run())
