"""When a request is tried again, for how long, and what the end says."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import pytest

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import Capabilities, Choice, Message, Request, Response, Usage
from neuron_explainer.llm.failures import Lack, Rejected, Transient, malformed
from neuron_explainer.llm.retry import Retry

CHAT = Request((Message("user", "hello"),), 4)
ANSWER = Response((Choice("hi", "stop"),), Usage(3, 0, 1, 1), "m")
LIMITED = Transient("rate-limited", "slow down")


@dataclass
class Playing:
    """Raises or answers what it is told to, in turn; the last one for ever."""

    turns: Sequence[Exception | Response]
    model: str = "m"
    calls: int = 0
    waits: list[float] = field(default_factory=list)

    async def capabilities(self) -> Capabilities:
        await self.complete(CHAT)
        return Capabilities(True, True)

    async def complete(self, request: Request) -> Response:
        del request
        turn = self.turns[min(self.calls, len(self.turns) - 1)]
        self.calls += 1
        if isinstance(turn, Exception):
            raise turn
        return turn

    async def close(self) -> None:
        """Nothing is open."""

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def retried(self, attempts: int = 4, seconds: float = 600.0) -> Retry:
        return Retry(self, attempts, seconds, self.sleep)


def run(work: Awaitable[Response]) -> Response:
    async def wait() -> Response:
        return await work

    return asyncio.run(wait())


def test_a_transient_failure_is_forgotten_after_a_good_try() -> None:
    inner = Playing([LIMITED, malformed("half"), ANSWER])
    assert run(inner.retried().complete(CHAT)) is ANSWER
    assert inner.calls == 3


def test_waits_grow_and_are_never_the_same_for_all() -> None:
    inner = Playing([LIMITED] * 3 + [ANSWER])
    run(inner.retried(8).complete(CHAT))
    for wait, longest in zip(inner.waits, (0.5, 1.0, 2.0), strict=True):
        assert longest / 2 <= wait <= longest
    assert len(set(inner.waits)) == 3


def test_a_server_that_says_how_long_to_wait_is_obeyed() -> None:
    inner = Playing([Transient("rate-limited", "slow down", retry_after=7.0), ANSWER])
    run(inner.retried().complete(CHAT))
    assert 7.0 <= inner.waits[0] <= 7.1


def test_a_wait_beyond_the_time_is_not_begun() -> None:
    inner = Playing([Transient("rate-limited", "slow down", retry_after=900.0), ANSWER])
    with pytest.raises(NeuronFailure, match="after 1 tries") as caught:
        run(inner.retried(seconds=600).complete(CHAT))
    assert caught.value.cause == "rate-limited"
    assert inner.waits == []


def test_tries_are_counted_and_the_cause_is_kept() -> None:
    inner = Playing([Transient("timeout", "no answer within 5 s")])
    with pytest.raises(NeuronFailure, match=r"no answer within 5 s \(after 4 tries\)") as caught:
        run(inner.retried(4).complete(CHAT))
    assert caught.value.cause == "timeout"
    assert not isinstance(caught.value, Transient)
    assert inner.calls == 4


@pytest.mark.parametrize(
    "final",
    [NeuronFailure("context-overflow", "too long"), LLMError("401"), KeyError("our own mistake")],
)
def test_what_will_not_go_well_is_not_tried_again(final: Exception) -> None:
    inner = Playing([final, ANSWER])
    with pytest.raises(type(final)):
        run(inner.retried().complete(CHAT))
    assert inner.calls == 1


def test_a_feature_that_no_reply_ever_had_stops_everything_after_three_tries() -> None:
    inner = Playing([Lack("top_logprobs", "none there", usage=None)])
    with pytest.raises(LLMError, match="m gives no top_logprobs"):
        run(inner.retried(8).complete(CHAT))
    assert inner.calls == 3


def test_a_feature_that_replies_have_had_fails_one_neuron() -> None:
    asked = Request((Message("user", "hello"),), 4, top_logprobs=5)
    inner = Playing([ANSWER, Lack("top_logprobs", "none there", usage=None)])
    retry = inner.retried(4)

    async def twice() -> Response:
        await retry.complete(asked)
        return await retry.complete(asked)

    with pytest.raises(NeuronFailure) as caught:
        run(twice())
    assert caught.value.cause == "malformed-reply"
    assert inner.calls == 5


def test_a_rejected_request_stops_everything_only_while_none_went_well() -> None:
    with pytest.raises(LLMError):
        run(Playing([Rejected("400")]).retried().complete(CHAT))
    retry = Playing([ANSWER, Rejected("400")]).retried()

    async def twice() -> Response:
        await retry.complete(CHAT)
        return await retry.complete(CHAT)

    with pytest.raises(NeuronFailure) as caught:
        run(twice())
    assert caught.value.cause == "refused"


def test_a_server_that_cannot_be_reached_at_first_stops_everything() -> None:
    gone = Transient("connection", "the connection failed", unreachable=True)
    with pytest.raises(LLMError, match="check --base-url"):
        run(Playing([gone]).retried().complete(CHAT))


def test_capabilities_are_tried_again_too() -> None:
    inner = Playing([LIMITED, ANSWER])
    assert asyncio.run(inner.retried().capabilities()).chat
    with pytest.raises(LLMError, match="m cannot be had: slow down"):
        asyncio.run(Playing([LIMITED]).retried().capabilities())


def test_overlapping_requests_do_not_share_their_counts() -> None:
    class Failing(Playing):
        async def complete(self, request: Request) -> Response:
            del request
            self.calls += 1
            await asyncio.sleep(0)
            raise LIMITED

    inner = Failing([ANSWER])
    retry = inner.retried(5)

    async def together() -> list[Response | BaseException]:
        waiting = (retry.complete(CHAT) for _ in range(7))
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert all("after 5 tries" in str(reply) for reply in asyncio.run(together()))
    assert inner.calls == 35
