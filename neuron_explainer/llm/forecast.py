"""What a stage will ask, found by asking nobody: requests and tokens counted on a few neurons."""

from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm import prices
from neuron_explainer.llm.base import LLM, Capabilities, Masses, Reading, Request, Response, Usage

FORECAST = "forecast"  # the cause of every failure here
_BYTES_PER_TOKEN = 4  # of English text with today's vocabularies
_ENOUGH = 8  # neurons that were done, to expect of others what they took


class Forecast:
    """An LLM that counts what it is asked and answers nothing.

    What follows from a first answer, such as a second try, is not in the count.
    """

    def __init__(self, inner: LLM, *, bulk: bool = False) -> None:
        self._inner = inner
        self.bulk = bulk  # at the price of a batch
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
    measured: bool = False  # on neurons of the same run, rather than estimated from prompts


async def expected(
    forecast: Forecast,
    sample: Iterable[Awaitable[object]],
    neurons: int,
    own_prices: Path,
    before: Mapping[str, Any] | None = None,
) -> Expected:
    """What `neurons` will take: as the run's neurons so far did, whose spending is `before`.

    Where these are too few, the `sample`, neurons asked through `forecast`, is scaled to `neurons`.
    """
    done = (before or {}).get("neurons", 0)
    measured = done >= _ENOUGH
    if measured:
        asked, factor = Usage(**(before or {})["used"]), neurons / done
    else:
        sampled = 0
        for asking in sample:
            sampled += 1
            with suppress(NeuronFailure):
                await asking
        asked, factor = forecast.asked, neurons / max(1, sampled)
    usage = Usage(
        round(asked.prompt_tokens * factor),
        round(asked.cached_tokens * factor),
        round(asked.completion_tokens * factor),
        round(asked.requests * factor),
    )
    cost = prices.load(own_prices).cost(forecast.model, usage, batch=forecast.bulk)
    read, written = usage.prompt_tokens, usage.completion_tokens
    return Expected(usage.requests, read, written, cost, measured)
