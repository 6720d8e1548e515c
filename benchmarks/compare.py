"""What comparing two runs costs: seconds of processor time and memory, on one thread.

Example: python benchmarks/compare.py
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from neuron_explainer.compare.results import compare
from neuron_explainer.compare.stage import write
from neuron_explainer.compare.statistics import Resampling
from neuron_explainer.compare.table import Budget, Method, Table


@dataclass(frozen=True)
class Case:
    """A comparison with its aims."""

    neurons: int
    layers: int
    seconds: float
    gigabytes: float

    @property
    def name(self) -> str:
        """How it is called on the command line of the child process."""
        return f"{self.neurons}-{self.layers}"


CASES = (Case(6_400, 1, 10, 2), Case(307_200, 48, 120, 2), Case(307_200, 1, 120, 2))


def table(case: Case) -> Table:
    """Two runs, their nulls and a lookup; one score in fifty undefined, as a table is read."""
    rng = np.random.default_rng(0)
    hardness = rng.beta(1.2, 3.0, case.neurons)

    def method(name: str, lift: float) -> Method:
        values = hardness * lift + rng.normal(0, 0.1, case.neurons)
        values[rng.random(case.neurons) < 0.02] = np.nan
        undefined = {"prediction is constant": int(np.isnan(values).sum())}
        return Method(name, values[:, None], undefined, 0, None, Budget(1000.0, 0.01))

    a, b = method("a", 1.0), method("b", 1.02)
    width = case.neurons // case.layers
    return Table(
        metric="correlation_top_and_random",
        keys=np.arange(case.neurons),
        labels=[f"{key // width}/{key % width}" for key in range(case.neurons)],
        layers=np.arange(case.neurons) // width,
        methods=(a, b),
        nulls={"a": method("shuffled, a", 0.0), "b": method("shuffled, b", 0.0)},
        lookup=method("token lookup", 1.5),
        facts={"split": "valid"},
    )


def measure(case: Case) -> None:
    """Compare and write the report, and print seconds and gigabytes; in a process of its own."""
    made = table(case)
    started = time.process_time()
    found = compare(made, Resampling(resamples=10_000))
    compared = time.process_time()
    with TemporaryDirectory() as folder:
        write(Path(folder), found, made)
    written = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(compared - started, written - compared, memory)


def main() -> None:
    """Print a line for each case, with whether its aim is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args().case
    if asked is not None:
        measure(next(case for case in CASES if case.name == asked))
        return
    print("| neurons | layers | compare, s | report, s | memory, GB | aim | |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        command = [sys.executable, __file__, "--case", case.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        compared, written, memory = map(float, done.stdout.split())
        met = compared + written <= case.seconds and memory <= case.gigabytes
        aim = f"≤ {case.seconds:g} s, ≤ {case.gigabytes:g} GB"
        print(
            f"| {case.neurons:,} | {case.layers} | {compared:.1f} | {written:.1f} | {memory:.2f} "
            f"| {aim} | {'ok' if met else 'over'} |"
        )


if __name__ == "__main__":
    main()
