"""A simulate stage of many neurons against a real server behind a proxy that spoils its replies.

Used by test_hostile_stage.py at a moderate size and by benchmarks/hostile_server.py at full size.
"""

import asyncio
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import hostile_child
import numpy as np
from fake_subject import SITE, FakeSubject, collect_from, table_lookup, write_documents
from fault_proxy import FAULTS, FaultProxy, spoiling
from hostile_child import RUN, simulated

from neuron_explainer import workspace
from neuron_explainer.config import ExplainSettings
from neuron_explainer.explain.stage import explain
from neuron_explainer.runs import Run
from neuron_explainer.simulate.stage import Simulated
from neuron_explainer.workspace import Workspace

VOCABULARY, TOKENS = 50, 2
# The model follows no instructions, but after a dollar sign it gives numbers.
NUMBERS = "{% for message in messages %}{{ message.content }} {% endfor %}$"
STEADY, KILLED = "steady", "killed"  # the simulations that met no fault; in processes
TABLES = ("simulations", "failures")
# One that is sent twice spoils the next request on its connection, which nobody could tell from one
# that is sent again for nothing.
COUNTABLE = tuple(fault for fault in FAULTS if fault != "duplicate")
Values = list[bytes]  # of one neuron: the activations of each record, as they are stored


def prepared(root: Path, neurons: int, shard: int) -> Workspace:
    """A workspace with two records of two tokens of each of some neurons, explained in shards."""
    made = workspace.init(root)
    numbers = np.random.default_rng(0)
    table = numbers.exponential(size=(VOCABULARY, neurons)).astype(np.float32)
    documents = numbers.integers(2, VOCABULARY, (300, TOKENS)).tolist()
    corpus = write_documents(root / "corpus.jsonl", documents)
    subject = FakeSubject({SITE: table_lookup(table)}, VOCABULARY)
    shape = {"excerpt_tokens": TOKENS, "top": 4, "random": 3, "per_band": 0}
    collect_from(made.data, corpus, subject, **shape)
    brief = made.prompts / "simulate-one-at-a-time" / "system.txt"
    brief.parent.mkdir(parents=True)
    brief.write_text(
        "Guess.\n", encoding="utf-8"
    )  # to read all of it takes the model four times as long
    for stop in range(shard, neurons + 1, shard):
        settings = ExplainSettings("token-lookup", RUN, f"0-{stop - 1}", {"table_size": 2})
        asyncio.run(explain(made, "fake", [SITE], settings))
    return made


def copied(here: Workspace, root: Path) -> Workspace:
    """The workspace without what its language model has answered."""
    ignored = shutil.ignore_patterns(".cache")
    return Workspace(Path(shutil.copytree(here.root, root, ignore=ignored)))


async def behind_faults(
    here: Workspace,
    server: str,
    label: str,
    share: float,
    max_tokens: int | None = None,
    retry: tuple[str, ...] = (),
) -> tuple[Simulated, FaultProxy]:
    """The stage in this process with a share of its requests spoiled."""
    async with spoiling(server, share=share, seed=5) as proxy:
        return await simulated(here, proxy.url, label, max_tokens, retry), proxy


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage made of its neurons."""

    values: dict[int, Values]
    causes: dict[int, str]  # of the neurons without values

    @classmethod
    def of(cls, here: Workspace, label: str) -> "Outcome":
        """What is on disk."""
        folder = Run(here, RUN).simulations(label)
        values: dict[int, Values] = {}
        for row in folder.read_all(f"{SITE}/simulations").to_pylist():
            activations = np.array(row["activations"], np.float32)
            values.setdefault(row["neuron"], []).append(activations.tobytes())
        failures = folder.read_all(f"{SITE}/failures").to_pylist()
        return cls(values, {row["neuron"]: row["cause"] for row in failures})

    def against(self, steady: "Outcome") -> tuple[int, list[int]]:
        """How many neurons have the same values as without faults, and which have others."""
        other = [
            number for number, made in self.values.items() if made != steady.values.get(number)
        ]
        return len(self.values) - len(other), other


def same_files(here: Workspace, label: str) -> bool:
    """Whether the tables of a stage are those without faults, byte for byte."""
    one, other = (Run(here, RUN).simulations(name) for name in (STEADY, label))
    for table in TABLES:
        files = [file for _, file in one.shards(f"{SITE}/{table}")]
        if files != [file for _, file in other.shards(f"{SITE}/{table}")]:
            return False
        if any(
            (one.path / file).read_bytes() != (other.path / file).read_bytes() for file in files
        ):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of a stage that was killed again and again."""

    proxy: FaultProxy
    codes: list[int]  # of each process

    @property
    def sent_again(self) -> list[int]:
        """For each process how many of its requests came again though they met no fault."""
        counts = Counter(life for life, _ in self.proxy.again)
        return [counts[life] for life in range(len(self.codes))]


async def killed(here: Workspace, server: str, share: float, kills: int, requests: int) -> Killed:
    """The stage in processes, each killed once the proxy has seen a seeded number of requests.

    `requests` is how many different ones there are; the last process is left to finish.
    """
    chance = random.Random(6)
    last = requests - 4 * hostile_child.CONCURRENCY
    command = [sys.executable, hostile_child.__file__, str(here.root)]
    codes = []
    async with spoiling(server, share=share, seed=7, faults=COUNTABLE) as proxy:
        for target in [*sorted(chance.sample(range(1, last), kills)), None]:
            before = sum(proxy.asked.values())
            child = subprocess.Popen([*command, proxy.url, KILLED])
            while child.poll() is None:
                begun = sum(proxy.asked.values()) > before
                if target is not None and begun and len(proxy.asked) >= target:
                    child.kill()
                    child.wait()
                await asyncio.sleep(0.002)
            await proxy.left()
            codes.append(child.returncode)
        return Killed(proxy, codes)
