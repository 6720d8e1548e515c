"""Concurrency that adapts, caps that hold, prices that a user can edit."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.llm import prices
from neuron_explainer.llm.base import Capabilities, Choice, Message, Request, Response, Usage
from neuron_explainer.llm.failures import Transient, Unusable
from neuron_explainer.llm.limits import Caps, Gate, Limits
from neuron_explainer.llm.prices import Price, Prices

CHAT = Request((Message("user", "hello"),), 4)
USAGE = Usage(60, 10, 40, 1)
PRICES = Prices({"m": Price(input=10.0, output=20.0, cached=1.0)}, batch=0.5)


@dataclass
class Busy:
    """Answers after giving way, and knows how many were inside at once."""

    failure: NeuronFailure | None = None
    model: str = "m"
    inside: int = 0
    most: int = 0
    calls: int = 0

    async def capabilities(self) -> Capabilities:
        return Capabilities(True, True)

    async def complete(self, request: Request) -> Response:
        del request
        self.inside += 1
        self.calls += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        if self.failure:
            raise self.failure
        return Response((Choice("hi", "stop"),), USAGE, "m")

    async def close(self) -> None:
        """Nothing is open."""


def ask(limits: Limits, times: int) -> list[Response | BaseException]:
    async def run() -> list[Response | BaseException]:
        waiting = (limits.complete(CHAT) for _ in range(times))
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(run())


def test_concurrency_grows_to_its_bound_while_all_is_well() -> None:
    inner = Busy()
    ask(Limits(inner, PRICES, concurrency=20), 2000)
    assert inner.most == 20


def test_concurrency_halves_once_for_each_round_of_refusals() -> None:
    gate = Gate(64)
    before = gate.width
    gate.narrow(0)
    gate.narrow(0)
    assert gate.width == before // 2
    gate.narrow(1)
    assert gate.width == before // 4
    for entered in range(2, 20):
        gate.narrow(entered)
    assert gate.width == 1


def test_a_server_that_is_overrun_is_asked_by_one_at_a_time_in_the_end() -> None:
    inner = Busy(Transient("rate-limited", "slow down"))
    limits = Limits(inner, PRICES, concurrency=32)
    ask(limits, 100)
    inner.most = 0
    ask(limits, 5)
    assert inner.most == 1


def test_a_cancelled_wait_gives_its_place_to_the_next() -> None:
    async def run() -> list[str]:
        gate, done = Gate(1), []

        async def enter(name: str) -> None:
            async with gate.pass_through():
                await asyncio.sleep(0)
                done.append(name)

        tasks = {name: asyncio.create_task(enter(name)) for name in "abcd"}
        await asyncio.sleep(0)
        tasks["b"].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks["c"].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await asyncio.wait_for(enter("e"), 5)
        return done

    done = asyncio.run(run())
    assert done[0] == "a"
    assert done[-1] == "e"
    assert "d" in done
    assert "b" not in done


def test_the_cap_on_tokens_is_passed_by_no_more_than_is_in_flight() -> None:
    inner = Busy()
    limits = Limits(inner, PRICES, Caps(tokens=1000), concurrency=4)
    replies = ask(limits, 60)
    assert 1000 <= limits.spent.tokens <= 1000 + 4 * USAGE.tokens
    refused = [reply for reply in replies if isinstance(reply, NeuronFailure)]
    assert {reply.cause for reply in refused} == {"budget"}
    assert len(refused) + inner.calls == 60


def test_the_cap_on_cost_holds() -> None:
    each = PRICES.cost("m", USAGE)
    assert each is not None
    limits = Limits(Busy(), PRICES, Caps(cost=5 * each), concurrency=2)
    ask(limits, 40)
    assert limits.cost is not None
    assert 5 * each <= limits.cost <= 7 * each


def test_failed_replies_count_too() -> None:
    limits = Limits(Busy(Unusable("cut-short", "cut", usage=USAGE)), PRICES)
    ask(limits, 3)
    assert limits.spent == USAGE + USAGE + USAGE


def test_a_cap_on_cost_without_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no price is known for m.*--max-tokens"):
        Limits(Busy(), Prices(), Caps(cost=1.0))
    assert Limits(Busy(), Prices()).cost is None


def test_cached_tokens_have_their_own_price() -> None:
    assert PRICES.cost("m", Usage(1_000_000, 400_000, 100_000, 1)) == pytest.approx(
        0.6 * 10 + 0.4 * 1 + 0.1 * 20
    )
    assert PRICES.cost("m", Usage(1_000_000), batch=True) == pytest.approx(5.0)
    assert PRICES.cost("unheard-of", USAGE) is None
    assert PRICES.cost("local/gpt2", USAGE) == 0.0


def test_a_table_of_the_users_own_goes_before_the_shipped_one(tmp_path: Path) -> None:
    shipped = prices.load(tmp_path / "none.toml")
    assert all(price.input > 0 and price.output > 0 for price in shipped.models.values())
    own = tmp_path / "prices.toml"
    own.write_text('[models."gpt-4o-mini"]\ninput = 9\noutput = 9\n')
    both = prices.load(own)
    assert both.models["gpt-4o-mini"] == Price(9.0, 9.0)
    assert both.models["gpt-4o"] == shipped.models["gpt-4o"]
    assert both.batch == shipped.batch


@pytest.mark.parametrize(
    "content",
    ["models = ", "else = 1", '[models."m"]\ninput = 1.0', '[models."m"]\ninput = "a"\noutput = 1'],
)
def test_a_damaged_table_is_named(content: str, tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(content)
    with pytest.raises(ConfigError, match=r"prices\.toml"):
        prices.load(own)
