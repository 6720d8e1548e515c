"""The simulate stage behind a server that spoils its replies, under a cap, and killed 20 times.

Needs ../shared/assets (see CONTRIBUTING) and xllamacpp. See README.md here.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from signal import SIGKILL
from textwrap import fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "llm"))

import live_server
from collect import Line, report
from fault_proxy import FaultProxy
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

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, default=512)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    number: int = options.neurons
    with tempfile.TemporaryDirectory() as folder, live_server.running(ASSETS, 1, NUMBERS) as server:
        here = prepared(Path(folder) / STEADY, number, number // 4)
        _, proxy = asyncio.run(behind_faults(here, server, STEADY, 0.0))
        values = len(Outcome.of(here, STEADY).values)
        report(
            f"{number} neurons, without faults",
            [
                Line("requests", f"{sum(proxy.asked.values()):,}"),
                Line("tokens", f"{sum(proxy.tokens):,}", f"at most {max(proxy.tokens)} a request"),
                Line("neurons with values", f"{values}", "", f"= {number}", values == number),
            ],
        )
        for share in (0.3, 0.7):
            spoiled(copied(here, Path(folder) / str(share)), server, number, share)
        capped(copied(here, Path(folder) / "capped"), server, number, proxy.tokens)
        kills: int = options.kills
        survived(copied(here, Path(folder) / KILLED), server, kills, len(proxy.asked))


def outcome_lines(here: Workspace, label: str, neurons: int) -> list[Line]:
    """What became of the neurons, next to what they are without faults."""
    found = Outcome.of(here, label)
    equal, other = found.against(Outcome.of(here, STEADY))
    lost = neurons - len(found.values.keys() | found.causes.keys())
    causes = ", ".join(
        f"{cause} {count}" for cause, count in Counter(found.causes.values()).items()
    )
    return [
        Line("neurons with the same values", f"{equal}"),
        Line("neurons with a failure row", f"{len(found.causes)}", causes),
        Line("neurons with other values, or none and no cause", f"{len(other)}, {lost}", "", "0, 0",
             not other and not lost),
    ]  # fmt: skip


def mended_line(here: Workspace, server: str, label: str) -> Line:
    """Whether asking the failed neurons again, without faults, makes the files the same."""
    causes = tuple(set(Outcome.of(here, label).causes.values()))
    if causes:
        asyncio.run(behind_faults(here, server, label, 0.0, retry=causes))
    same = same_files(here, label)
    return Line("files once the failed are asked again", _sameness(same), "", "the same", same)


def _sameness(same: bool) -> str:
    return "the same" if same else "others"


def fault_lines(proxy: FaultProxy) -> list[Line]:
    """What was sent and what was spoiled."""
    sent = sum(proxy.asked.values())
    return [
        Line("requests sent", f"{sent:,}", f"of {len(proxy.asked):,} different ones"),
        Line("spoiled", f"{sent - proxy.met['none']:,}"),
    ]


def show_faults(proxy: FaultProxy) -> None:
    """How often each fault was met."""
    faults = sorted((fault, count) for fault, count in proxy.met.items() if fault != "none")
    line = ", ".join(f"{fault} {count}" for fault, count in faults)
    print(fill(line, 100, break_on_hyphens=False), end="\n\n")


def spoiled(here: Workspace, server: str, neurons: int, share: float) -> None:
    """Some of the requests meet a fault."""
    _, proxy = asyncio.run(behind_faults(here, server, "spoiled", share))
    lines = [*fault_lines(proxy), *outcome_lines(here, "spoiled", neurons)]
    report(f"{share:.0%} of requests spoiled", [*lines, mended_line(here, server, "spoiled")])
    show_faults(proxy)


def capped(here: Workspace, server: str, neurons: int, tokens: list[int]) -> None:
    """A cap of two thirds of the tokens that the stage needs, with faults."""
    cap, most = sum(tokens) * 2 // 3, CONCURRENCY * max(tokens)
    done, _ = asyncio.run(behind_faults(here, server, "capped", 0.3, cap))
    assert done.spending is not None
    used = done.spending.usage.tokens
    within = cap <= used < cap + most
    lines = [
        Line("tokens used", f"{used:,}", f"cap {cap:,}", f"< cap + {most:,}", within),
        *outcome_lines(here, "capped", neurons),
        mended_line(here, server, "capped"),
    ]
    report("30% spoiled, with a cap on tokens", lines)


def survived(here: Workspace, server: str, kills: int, requests: int) -> None:
    """Killed again and again, with faults."""
    came = asyncio.run(killed(here, server, 0.3, kills, requests))
    each = came.sent_again[:-1]
    strays = len(set(came.proxy.again) - came.proxy.unsettled)
    most, same = max(each), same_files(here, KILLED)
    done = came.codes.count(-SIGKILL)
    lines = [
        *fault_lines(came.proxy),
        Line("processes killed", f"{done}", "", f"= {kills}", done == kills),
        Line("sent again after each kill", " ".join(map(str, each)), f"{sum(each)} in all",
             f"≤ {CONCURRENCY} each", most <= CONCURRENCY),
        Line("sent again, but not in flight at a kill", f"{strays}", "", "0", strays == 0),
        Line("files", _sameness(same), "", "the same", same),
    ]  # fmt: skip
    report("30% spoiled, killed by SIGKILL", lines)
    show_faults(came.proxy)


if __name__ == "__main__":
    main()
