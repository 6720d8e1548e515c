"""A whole stage against faults, a cap and kills: every neuron as without them, or with its cause.

Here with some neurons; `python benchmarks/hostile_server.py` does it with 512 and 20 kills.
"""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import live_server
import pytest
from fault_proxy import FAULTS
from hostile_child import CONCURRENCY
from hostile_stage import (
    KILLED,
    NUMBERS,
    STEADY,
    Outcome,
    behind_faults,
    copied,
    killed,
    prepared,
    same_files,
)

from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket

NEURONS, SHARD, KILLS = 40, 20, 2
CAUSES = {"rate-limited", "server-error", "connection", "malformed-reply"}


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[str]:
    """A real server that answers the same request always the same."""
    with live_server.running(assets, 1, NUMBERS) as url:
        yield url


@pytest.fixture(scope="module")
def steady(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[int]]:
    """A workspace in which the stage has run without faults, and the tokens of each request."""
    here = prepared(tmp_path_factory.mktemp("steady") / "here", NEURONS, SHARD)
    _, proxy = asyncio.run(behind_faults(here, server, STEADY, 0.0))
    assert set(proxy.asked.values()) == {1}
    assert len(Outcome.of(here, STEADY).values) == NEURONS
    return here, proxy.tokens


@pytest.mark.parametrize(("share", "right"), [(0.3, 0.98), (0.7, 0.2)])
def test_every_neuron_ends_as_without_faults_or_with_a_cause(
    server: str, steady: tuple[Workspace, list[int]], tmp_path: Path, share: float, right: float
) -> None:
    here = copied(steady[0], tmp_path / "here")
    _, proxy = asyncio.run(behind_faults(here, server, "spoiled", share))
    assert set(proxy.met) == {*FAULTS, "none"}
    found = Outcome.of(here, "spoiled")
    equal, other = found.against(Outcome.of(here, STEADY))
    assert not other
    assert equal >= right * NEURONS
    assert sorted([*found.values, *found.causes]) == list(range(NEURONS))
    assert set(found.causes.values()) <= CAUSES
    assert found.causes or share < 0.5
    asyncio.run(behind_faults(here, server, "spoiled", 0.0, retry=tuple(CAUSES)))
    assert same_files(here, "spoiled")


def test_a_cap_on_tokens_holds_within_the_requests_in_flight(
    server: str, steady: tuple[Workspace, list[int]], tmp_path: Path
) -> None:
    here, tokens = copied(steady[0], tmp_path / "here"), steady[1]
    cap = sum(tokens) * 2 // 3
    done, proxy = asyncio.run(behind_faults(here, server, "capped", 0.3, cap))
    assert done.spending is not None
    assert cap <= done.spending.usage.tokens < cap + CONCURRENCY * max(tokens)
    assert proxy.most_inside <= CONCURRENCY
    found = Outcome.of(here, "capped")
    equal, other = found.against(Outcome.of(here, STEADY))
    assert not other
    assert 0 < equal < NEURONS
    assert sorted([*found.values, *found.causes]) == list(range(NEURONS))
    assert set(found.causes.values()) == {"budget"}
    asyncio.run(behind_faults(here, server, "capped", 0.3, retry=("budget",)))
    assert same_files(here, "capped")


def test_after_kills_the_files_are_the_same_and_only_what_was_in_flight_is_sent_again(
    server: str, steady: tuple[Workspace, list[int]], tmp_path: Path
) -> None:
    here, tokens = copied(steady[0], tmp_path / "here"), steady[1]
    came = asyncio.run(killed(here, server, 0.3, KILLS, len(tokens)))
    assert came.codes == [-signal.SIGKILL] * KILLS + [0]
    assert same_files(here, KILLED)
    assert len(came.proxy.asked) == len(tokens)
    assert sum(came.sent_again) > 0
    assert max(came.sent_again[:-1]) <= CONCURRENCY
    assert came.sent_again[-1] == 0
    assert set(came.proxy.again) <= came.proxy.unsettled
