"""What a stage will ask, found by asking nobody: requests and tokens counted on a few neurons."""

from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm import prices
from neuron_explainer.llm.base import LLM, Capabilities, Masses, Reading, Request, Response, Usage

FORECAST = "forecast"  # the cause of every failure here
_BYTES_PER_TOKEN = 4  # of English text with today's vocabularies


class Forecast:
    """An LLM that counts what it is asked and answers nothing.

    What follows from a first answer, such as a second try, is not in the count.
    """

    def __init__(self, inner: LLM) -> None:
        self._inner = inner
        self.asked = Usage()

    @property
    def model(self) -> str:
        """The model that would be asked."""
        return self._inner.model

    async def capabilities(self) -> Capabilities:
        """The model's own."""
        return await self._inner.capabilities()

    async def complete(self, request: Request) -> Response:
        """Counts the request. Raises NeuronFailure, always."""
        text = request.prompt
        if not isinstance(text, str):
            text = "".join(message.content for message in text)
        read = len(text.encode()) // _BYTES_PER_TOKEN
        self.asked += Usage(read, 0, request.max_tokens * request.n, 1)
        raise NeuronFailure(FORECAST, "nothing was sent")

    async def read(self, reading: Reading) -> Masses:
        """As `complete`; every text counts whole, as in `Usage`."""
        shared = len((reading.prefixes[0] + reading.head).encode())
        read = sum(shared + len(body.encode()) for body in reading.bodies) // _BYTES_PER_TOKEN
        self.asked += Usage(read, 0, 0, 1)
        raise NeuronFailure(FORECAST, "nothing was read")

    async def close(self) -> None:
        """Let go of connections and files."""
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class Expected:
    """A stage's forecast, scaled from the sampled neurons to all."""

    requests: int
    prompt_tokens: int
    completion_tokens: int  # at most: as many as the requests allow
    cost: float | None  # US dollars, at most; None: no price is known


async def expected(
    forecast: Forecast, sample: Iterable[Awaitable[object]], neurons: int, own_prices: Path
) -> Expected:
    """Run the `sample`, neurons asked through `forecast`, and scale what they ask to `neurons`."""
    sampled = 0
    for asking in sample:
        sampled += 1
        with suppress(NeuronFailure):
            await asking
    factor = neurons / max(1, sampled)
    asked = forecast.asked
    usage = Usage(
        round(asked.prompt_tokens * factor),
        0,
        round(asked.completion_tokens * factor),
        round(asked.requests * factor),
    )
    cost = prices.load(own_prices).cost(forecast.model, usage)
    return Expected(usage.requests, usage.prompt_tokens, usage.completion_tokens, cost)
