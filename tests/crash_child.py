"""Runs the pipeline in forks that kill themselves at a given file-system event.

Reads lines of JSON {"workspace", "settings", "kill_at"} from standard input and answers each with
one of {"signal", "code", "events"}. A fork imports nothing heavy again, which makes a run short.
"""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers.models.gpt2.modeling_gpt2  # imported once, before any fork

from neuron_explainer import pipeline
from neuron_explainer.collect import stage as collect_stage
from neuron_explainer.config import Settings, load
from neuron_explainer.explain import lookup as explain_lookup
from neuron_explainer.explain import stage as explain_stage
from neuron_explainer.score import stage as score_stage
from neuron_explainer.simulate import lookup as simulate_lookup
from neuron_explainer.simulate import stage as simulate_stage
from neuron_explainer.subjects import huggingface, sparse
from neuron_explainer.workspace import Workspace

IMPORTED_FOR_FORKS = (
    collect_stage,
    explain_lookup,
    explain_stage,
    huggingface,
    score_stage,
    simulate_lookup,
    simulate_stage,
    sparse,
    transformers.models.gpt2.modeling_gpt2,
)
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def settings_of(file: Path) -> Settings:
    """What is in a run.toml, for a few neurons in two shards of each site."""
    settings = load(file)
    return replace(settings, explain=replace(settings.explain, neurons="0-3,100"))


def _count_events(root: Path, kill_at: int) -> Callable[[], int]:
    """Count what changes files under `root`; die at the event of that number, before it happens."""
    count = 0

    def happened() -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in _EVENTS or (event == "open" and arguments[2] & _WRITING)
        if writes and str(arguments[0]).startswith(str(root)):
            happened()

    def synced(fd: object) -> None:
        happened()  # a file is written and still has its temporary name; the kernel outlives us

    sys.addaudithook(hook)
    os.fsync = synced
    return lambda: count


def _child(order: dict[str, Any], answer: int) -> None:
    root = Path(order["workspace"])
    events = _count_events(root, order["kill_at"])
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pipeline.run_all(Workspace(root), settings_of(Path(order["settings"])))
    os.write(answer, str(events()).encode())


def _run(order: dict[str, Any]) -> dict[str, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            _child(order, writing)
        except BaseException:  # noqa: BLE001  a fork must never go on as its parent
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        events = pipe.read()
    _, status = os.waitpid(child, 0)
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "code": os.waitstatus_to_exitcode(status),
        "events": int(events or 0),
    }


def main() -> None:
    """Answer orders until there are no more."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
