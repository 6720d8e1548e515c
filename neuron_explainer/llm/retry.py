"""Another try for what may go well the next time; an end for what will not.

Waits grow and are spread at random; a server that says how long to wait is obeyed. Tries are
bounded by count and by time. What no request ever got (a connection, a feature of the protocol) is
tried three times and then stops everything, for it would fail for every neuron.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import (
    LLM,
    Capabilities,
    Feature,
    Masses,
    Reading,
    Request,
    Response,
    lacking,
    needs,
    reader,
)
from neuron_explainer.llm.failures import Lack, Rejected, Transient, Unusable

Result = TypeVar("Result")
Sleep = Callable[[float], Awaitable[Any]]

_TRIES_OF_THE_NEVER_SEEN = 3
_FIRST_WAIT = 0.5  # seconds
_LONGEST_WAIT = 60.0


class Retry:
    """An LLM that tries another one again. `sleep` is a parameter so that tests need not wait."""

    def __init__(
        self,
        inner: LLM,
        attempts: int = 8,
        seconds: float = 600.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._inner = inner
        self._attempts = attempts
        self._seconds = seconds  # a wait that would end later than this is not begun
        self._sleep = sleep
        self._seen: set[Feature] = set()  # what some reply has had

    @property
    def model(self) -> str:
        """The wrapped model's name."""
        return self._inner.model

    async def capabilities(self) -> Capabilities:
        """The wrapped model's, with as many tries as a request."""
        try:
            return await self._tried(self._inner.capabilities)
        except NeuronFailure as failure:
            raise LLMError(f"{self.model} cannot be had: {failure}") from failure

    async def complete(self, request: Request) -> Response:
        """The answer of the first try that succeeds."""
        try:
            response = await self._tried(lambda: self._inner.complete(request))
        except Rejected as error:
            if self._seen:  # the server works, so it is this request
                raise NeuronFailure("refused", str(error)) from error
            raise
        self._seen.update(needs(request))
        return response

    async def read(self, reading: Reading) -> Masses:
        """The masses of the first try that succeeds."""
        inner = reader(self._inner)
        return await self._tried(lambda: inner.read(reading))

    async def close(self) -> None:
        """Close the wrapped model."""
        await self._inner.close()

    async def _tried(self, call: Callable[[], Awaitable[Result]]) -> Result:
        # One object a call: tenacity keeps an attempt's state in it, and calls overlap.
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            stop=self._enough,
            wait=_wait,
            sleep=self._sleep,
            retry_error_callback=self._give_up,
        )

        async def attempt() -> Result:  # tenacity awaits only what is declared async
            return await call()

        result: Result = await retrying(attempt)
        return result

    def _enough(self, state: RetryCallState) -> bool:
        failure = _failure(state)
        if self._never_seen(failure) and state.attempt_number >= _TRIES_OF_THE_NEVER_SEEN:
            return True
        late = (state.seconds_since_start or 0.0) + state.upcoming_sleep > self._seconds
        return late or stop_after_attempt(self._attempts)(state)

    def _never_seen(self, failure: Transient) -> bool:
        if isinstance(failure, Lack):
            return failure.feature not in self._seen
        return failure.unreachable and not self._seen

    def _give_up(self, state: RetryCallState) -> Any:
        failure = _failure(state)
        if self._never_seen(failure):
            if isinstance(failure, Lack):
                raise LLMError(f"{lacking(failure.feature, self.model)} ({failure})") from failure
            raise LLMError(
                f"{failure}: check --base-url and that the server is running"
            ) from failure
        tried = f"{failure} (after {state.attempt_number} tries)"
        raise Unusable(failure.cause, tried, usage=failure.usage, reply=failure.reply) from failure


async def persist(call: Callable[[], Awaitable[Result]], attempts: int, sleep: Sleep) -> Result:
    """The result of a call that belongs to no single request, tried again while it is Transient."""

    async def attempt() -> Result:
        return await call()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Transient),
        stop=stop_after_attempt(attempts),
        wait=_wait,
        sleep=sleep,
        reraise=True,
    )
    result: Result = await retrying(attempt)
    return result


def _failure(state: RetryCallState) -> Transient:
    failure = state.outcome.exception() if state.outcome else None
    if not isinstance(failure, Transient):
        raise TypeError(f"{failure!r} is not worth another try")
    return failure


def _wait(state: RetryCallState) -> float:
    failure = _failure(state)
    if failure.retry_after is not None:
        return failure.retry_after + random.uniform(0, 0.1)  # not all at the same moment
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (state.attempt_number - 1))
    return random.uniform(longest / 2, longest)
