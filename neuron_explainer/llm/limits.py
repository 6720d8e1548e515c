"""How many requests run at once, and how much they may cost in all.

Concurrency grows by one for each round of requests that goes well and halves when the server says
that there are too many. The caps on cost and tokens are looked at before a request is sent, so they
are passed by no more than the requests in flight. What a failed reply took counts too.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.llm.base import (
    LLM,
    Capabilities,
    Masses,
    Reading,
    Request,
    Response,
    Usage,
    reader,
)
from neuron_explainer.llm.failures import Transient, Unusable
from neuron_explainer.llm.prices import Prices

Answer = TypeVar("Answer", Response, Masses)

_START = 8


@dataclass(frozen=True, slots=True)
class Caps:
    """Where a run stops. None: nowhere."""

    cost: float | None = None  # US dollars
    tokens: int | None = None  # read and written


class Gate:
    """Lets a number of tasks in that adapts, at most `most`."""

    def __init__(self, most: int, first: int = _START) -> None:
        self._most = most
        self._width = float(min(first, most))
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._round = 0  # one more at each halving

    @property
    def width(self) -> int:
        """How many may be inside now."""
        return int(self._width)

    @asynccontextmanager
    async def pass_through(self) -> AsyncIterator[int]:
        """Wait until there is room; gives the round, for `narrow`."""
        await self._enter()
        try:
            yield self._round
        finally:
            self._inside -= 1
            self._admit()

    async def _enter(self) -> None:
        if self._inside < self.width and not self._waiting:
            self._inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted and cancelled at once
                self._inside -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._inside < self.width:
            turn = self._waiting.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)

    def widen(self) -> None:
        """A request went well."""
        self._width = min(float(self._most), self._width + 1.0 / self._width)
        self._admit()

    def narrow(self, entered: int) -> None:
        """There are too many. Requests of the same round say so only once."""
        if entered == self._round:
            self._round += 1
            self._width = max(1.0, self._width / 2)


class Limits:
    """An LLM that keeps another one within its limits, and counts what was spent."""

    def __init__(
        self,
        inner: LLM,
        prices: Prices,
        caps: Caps = Caps(),
        concurrency: int = 32,
        *,
        bulk: bool = False,
    ) -> None:
        if caps.cost is not None and prices.cost(inner.model, Usage()) is None:
            raise ConfigError(
                f"no price is known for {inner.model}, so --max-cost cannot be kept: "
                "add it to prices.toml, or use --max-tokens"
            )
        self._inner = inner
        self._prices = prices
        self._caps = caps
        self._bulk = bulk  # all requests at once, at the batch price
        self._gate = Gate(concurrency, concurrency if bulk else _START)
        self.spent = Usage()

    @property
    def model(self) -> str:
        """The wrapped model's name."""
        return self._inner.model

    @property
    def backend(self) -> LLM:
        """The wrapped model."""
        return self._inner

    @property
    def cost(self) -> float | None:
        """US dollars spent, or None when no price is known."""
        return self.cost_of(self.spent)

    def cost_of(self, usage: Usage) -> float | None:
        """US dollars, or None when no price is known."""
        return self._prices.cost(self.model, usage, batch=self._bulk)

    async def capabilities(self) -> Capabilities:
        """The wrapped model's."""
        return await self._inner.capabilities()

    async def complete(self, request: Request) -> Response:
        """The answer, once there is room; NeuronFailure("budget") once a cap is reached."""
        return await self._admitted(lambda: self._inner.complete(request))

    async def read(self, reading: Reading) -> Masses:
        """As `complete`."""
        inner = reader(self._inner)
        return await self._admitted(lambda: inner.read(reading))

    async def _admitted(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        async with self._gate.pass_through() as entered:
            self._check_caps()
            try:
                answer = await call()
            except NeuronFailure as failure:
                self.spent += failure.usage if isinstance(failure, Unusable) else Usage(requests=1)
                if isinstance(failure, Transient) and failure.slow_down:
                    self._gate.narrow(entered)
                raise
            self.spent += answer.usage
            self._gate.widen()
            return answer

    async def close(self) -> None:
        """Close the wrapped model."""
        await self._inner.close()

    def _check_caps(self) -> None:
        if self._caps.tokens is not None and self.spent.tokens >= self._caps.tokens:
            raise NeuronFailure(
                "budget", f"--max-tokens {self._caps.tokens} is reached ({self.spent.tokens} used)"
            )
        cost = self.cost
        if self._caps.cost is not None and cost is not None and cost >= self._caps.cost:
            raise NeuronFailure("budget", f"--max-cost {self._caps.cost} is reached ({cost:.4f} $)")
