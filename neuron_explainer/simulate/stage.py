"""The simulate stage: explanations and stimuli in, predicted activations or failures out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from neuron_explainer import registry
from neuron_explainer.config import SimulateSettings
from neuron_explainer.errors import RunMismatch
from neuron_explainer.llm.base import LLM
from neuron_explainer.llm.compose import Spending
from neuron_explainer.llm.forecast import Forecast, expected
from neuron_explainer.llm.session import PRICES, accounted, opened
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, Failure, NeuronId, Record, Simulation, Split
from neuron_explainer.runner import (
    Advance,
    Progress,
    count_causes,
    failure_table,
    map_neurons,
    silent,
)
from neuron_explainer.runs import Run, simulation_table
from neuron_explainer.simulate.base import Simulator
from neuron_explainer.store import Folder, Shard, locked

_SAMPLED = 8  # neurons that a forecast looks at


@dataclass(frozen=True, slots=True)
class Simulated:
    """What simulate did."""

    simulator: str
    neurons: int  # simulated now
    failures: Mapping[str, int]
    spending: Spending | None = None  # of the language model, now


@dataclass(frozen=True)
class _Work:
    """One shard of explanations to simulate."""

    run: Run
    folder: Folder
    simulator: Simulator
    settings: SimulateSettings
    site: str
    shard: Shard
    file: str

    @property
    def targets(self) -> tuple[str, str]:
        return tuple(  # type: ignore[return-value]
            f"{self.site}/{self.shard.file(table)}" for table in ("simulations", "failures")
        )


async def simulate(
    run: Run,
    name: str,
    settings: SimulateSettings,
    progress: Progress = silent,
    options: Mapping[str, Any] | None = None,
    label: str | None = None,
) -> Simulated:
    """Simulate what `run` explains with one simulator, but for the shards that are done.

    `label` is the folder's name under the run, by default the simulator's.
    """
    run.require()
    folder = run.simulations(label or name)
    async with opened(settings.model, run.workspace.root) as llm:
        simulator: Simulator = registry.make("simulators", name, options or {}, **_given(run, llm))
        with locked(folder.path):
            total = await _simulate_all(run, folder, simulator, settings, progress)
            if llm is not None:
                spent = accounted(folder.manifest().get("spending", {}), llm.spending)
                folder.update({"spending": spent})
        spending = None if llm is None else llm.spending
    return Simulated(name, total, count_causes(folder, run.sites()), spending)


async def _simulate_all(
    run: Run, folder: Folder, simulator: Simulator, settings: SimulateSettings, progress: Progress
) -> int:
    """Simulate the shards that are left; how many neurons they have."""
    config = {"simulator": simulator.name, "seed": settings.seed, "splits": _splits(settings)}
    folder.open(config | registry.options_of(simulator))
    _check_inputs(run, folder)
    works = [
        _Work(run, folder, simulator, settings, site, shard, file)
        for site in run.sites()
        for shard, file in run.folder.shards(f"{site}/explanations")
    ]
    todo = [work for work in works if not folder.has(*work.targets)]
    total = sum(work.shard.stop - work.shard.start for work in todo)
    with progress(f"simulate {simulator.name}", total, "neurons") as advance:
        for work in todo:
            await _simulate_shard(work, advance)
    folder.update({"complete": True})
    return total


async def plan(
    run: Run,
    name: str,
    settings: SimulateSettings,
    options: Mapping[str, Any] | None = None,
    label: str | None = None,
) -> dict[str, object]:
    """What `simulate` would do with the same arguments, and what it would ask of a model."""
    run.require()
    folder = run.simulations(label or name)
    todo = [
        (site, shard, file)
        for site in run.sites()
        for shard, file in run.folder.shards(f"{site}/explanations")
        if not folder.has(f"{site}/{shard.file('simulations')}")
    ]
    total = sum(shard.stop - shard.start for _, shard, _ in todo)
    planned: dict[str, object] = {"run": run.name, "simulator": name, "neurons": total}
    async with opened(settings.model, run.workspace.root) as llm:
        asked = None if llm is None else Forecast(llm)
        simulator: Simulator = registry.make(
            "simulators", name, options or {}, **_given(run, asked)
        )
        if asked is not None:
            pairs = (
                (explanation, [record.stimulus for record in records[neuron]])
                for site, shard, file in todo
                for records in [_held_out(_records(run, site), shard, _splits(settings))]
                for neuron, explanation in run.explanations(site, file).items()
            )
            sample = (simulator.simulate(*pair) for pair in islice(pairs, _SAMPLED))
            prices = run.workspace.root / PRICES
            planned["forecast"] = await expected(asked, sample, total, prices)
    return planned


def _given(run: Run, llm: LLM | None) -> dict[str, object]:
    """What the stage provides to simulators that ask for it."""
    return {"llm": llm, "prompts": run.workspace.prompts}


def _records(run: Run, site: str) -> RecordSet:
    return RecordSet(run.workspace.data, run.subject, site)


def _check_inputs(run: Run, folder: Folder) -> None:
    """Remember the digests of the explanations; refuse to go on when one was made anew since."""
    now = {file: entry["sha256"] for file, entry in run.folder.manifest()["shards"].items()}
    before = folder.manifest().get("inputs", {})
    if changed := [file for file, digest in before.items() if now.get(file) != digest]:
        raise RunMismatch(
            f"{folder.path} simulates other explanations than those now in "
            f"{run.folder.path / changed[0]}; delete {folder.path} and simulate again"
        )
    folder.update({"inputs": now})


def _splits(settings: SimulateSettings) -> tuple[Split, ...]:
    return ("calibration", "valid", "test") if settings.test else ("calibration", "valid")


async def _simulate_shard(work: _Work, advance: Advance) -> None:
    subject = work.run.subject
    explanations = work.run.explanations(work.site, work.file)
    held_out = _records(work.run, work.site)
    records = _held_out(held_out, work.shard, _splits(work.settings))
    neurons = sorted(explanations.keys() & records.keys())
    source = work.simulator.assign(neurons, work.settings.seed)

    async def one(place: int) -> list[Simulation]:
        neuron = neurons[place]
        explanation: Explanation = explanations[source[neuron]]
        stimuli = [record.stimulus for record in records[neuron]]
        return await work.simulator.simulate(explanation, stimuli)

    ids = [NeuronId(subject, work.site, neuron) for neuron in neurons]
    results = await map_neurons("simulate", ids, one, work.settings.concurrency, advance)
    advance(work.shard.stop - work.shard.start - len(neurons))
    done = [(n, r) for n, r in zip(neurons, results, strict=True) if not isinstance(r, Failure)]
    failures = [result for result in results if isinstance(result, Failure)]
    simulations = simulation_table(
        [neuron for neuron, _ in done],
        [records[neuron] for neuron, _ in done],
        [made for _, made in done],
    )
    tables = (simulations, failure_table(failures))
    work.folder.write(dict(zip(work.targets, tables, strict=True)))


def _held_out(
    record_set: RecordSet, shard: Shard, splits: Sequence[Split]
) -> dict[int, tuple[Record, ...]]:
    neurons = record_set.shard(shard, ["records"], splits)
    return {neuron.neuron.index: neuron.records for neuron in neurons}
