"""The simulate stage: explanations and stimuli in, predicted activations or failures out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from neuron_explainer import registry
from neuron_explainer.config import SimulateSettings
from neuron_explainer.errors import ConfigError, RunMismatch
from neuron_explainer.fits import note_fits
from neuron_explainer.llm.base import LLM
from neuron_explainer.llm.batch_round import Round
from neuron_explainer.llm.compose import Spending, Stack
from neuron_explainer.llm.forecast import Expected, Forecast, expected
from neuron_explainer.llm.overflow import fitted_anew
from neuron_explainer.llm.session import PRICES, opened, round_of, wants_all
from neuron_explainer.prompt_hashes import note_prompts
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import (
    Explanation,
    Failure,
    Highlight,
    NeuronId,
    NeuronRecord,
    Simulation,
    Split,
    Stimulus,
)
from neuron_explainer.runner import (
    Advance,
    Progress,
    Tables,
    count_causes,
    failure_table,
    map_neurons,
    silent,
)
from neuron_explainer.runs import Run, simulation_table
from neuron_explainer.shard_work import Job, Work, settle, to_retry
from neuron_explainer.simulate.base import Simulator, check_sites, predicted_by, sees_highlights
from neuron_explainer.simulate.marking import highlights
from neuron_explainer.store import Folder, Shard, locked

_SAMPLED = 8  # neurons that a forecast looks at


@dataclass(frozen=True, slots=True)
class Simulated:
    """What simulate did."""

    simulator: str
    neurons: int  # simulated now
    failures: Mapping[str, int]
    spending: Spending | None = None  # of the language model, now
    waiting: int = 0  # neurons in shards that are answered in a later round of batch files
    round: Round | None = None
    dropped: Sequence[str] = ()  # from prompts, to fit the model's context


@dataclass(frozen=True)
class _Stage:
    """What all shards of one stage share."""

    run: Run
    folder: Folder
    simulator: Simulator
    settings: SimulateSettings
    llm: Stack | None

    def note_input(self, work: Work) -> None:
        """Remember which explanations a shard was made from, where that has changed."""
        file = work.file("explanations")
        inputs = self.folder.manifest()["inputs"]
        digest = self.run.folder.manifest()["shards"][file]["sha256"]
        if inputs.get(file) != digest:
            self.folder.update({"inputs": inputs | {file: digest}})


async def simulate(
    run: Run,
    name: str,
    settings: SimulateSettings,
    progress: Progress = silent,
    options: Mapping[str, Any] | None = None,
    label: str | None = None,
    forecast: Expected | None = None,
) -> Simulated:
    """Simulate what `run` explains with one simulator, but for the shards that are done.

    `label` is the folder's name under the run, by default the simulator's; that of one split alone
    ends in the split's name, so that another command can simulate the others. A `forecast` is kept
    beside what was spent.
    """
    run.require()
    folder = run.simulations(label or label_of(name, settings))
    async with opened(settings.model, run.workspace.root) as llm:
        simulator: Simulator = registry.make("simulators", name, options or {}, **_given(run, llm))
        check_sites(simulator, run.sites())
        with locked(folder.path):
            stage = _Stage(run, folder, simulator, settings, llm)
            total, waiting = await _simulate_all(stage, progress, forecast)
            dropped = await note_fits(folder, run.sites(), "simulations", llm)
        ended = round_of(llm)
        return Simulated(
            name,
            total - waiting,
            count_causes(folder, run.sites()),
            None if llm is None else llm.spending,
            waiting,
            None if ended is None else ended.report(),
            dropped,
        )


async def _simulate_all(
    stage: _Stage, progress: Progress, forecast: Expected | None
) -> tuple[int, int]:
    """Simulate the shards that are left; how many neurons they have, and how many of them wait."""
    folder, simulator, settings = stage.folder, stage.simulator, stage.settings
    config = {"simulator": simulator.name, "seed": settings.seed, "splits": _splits(settings)}
    if settings.quantile:
        _check_quantile(stage.run, simulator)
        config["quantile"] = True
    folder.open(config | registry.options_of(simulator))
    note_prompts(folder, simulator, f"simulate-{simulator.name}")
    folder.update({"predicts": predicted_by(simulator)})
    settle(folder)
    _note_inputs(stage.run, folder)
    works = _todo(stage.run, folder, settings)
    job = Job(
        f"simulate {simulator.name}", folder, stage.llm, settings.concurrency, stage.note_input
    )
    waiting = await job.do(works, partial(_tables, stage), progress, forecast)
    return sum(work.size for work in works), waiting


def _todo(run: Run, folder: Folder, settings: SimulateSettings) -> list[Work]:
    """The shards that are not simulated, or whose explanations have changed since; and failures."""
    stale = run.changed_since(folder) if folder.exists else []
    works = []
    for site in run.sites():
        again = {work.shard: work for work in to_retry(folder, site, settings.retry)}
        for shard, file in run.folder.shards(f"{site}/explanations"):
            work = Work(site, shard)
            if file in stale or not folder.has(work.file("simulations"), work.file("failures")):
                works.append(work)
            elif shard in again:
                works.append(again[shard])
    return works


async def plan(
    run: Run,
    name: str,
    settings: SimulateSettings,
    options: Mapping[str, Any] | None = None,
    label: str | None = None,
) -> dict[str, object]:
    """What `simulate` would do with the same arguments, and what it would ask of a model."""
    run.require()
    folder = run.simulations(label or label_of(name, settings))
    todo = _todo(run, folder, settings)
    total = sum(work.size for work in todo)
    planned: dict[str, object] = {"run": run.name, "simulator": name, "neurons": total}
    async with opened(settings.model, run.workspace.root) as llm:
        asked = None if llm is None else Forecast(llm, bulk=wants_all(llm))
        simulator: Simulator = registry.make(
            "simulators", name, options or {}, **_given(run, asked)
        )
        check_sites(simulator, run.sites())
        if asked is not None:
            pairs = (
                (explanation, _stimuli(neurons[index], _shown(simulator, neurons[index], settings)))
                for work in todo
                for neurons in [_held_out(_records(run, work.site), work.shard, settings)]
                for index, explanation in _explanations(run, work).items()
                if index in work
            )
            sample = (simulator.simulate(*pair) for pair in islice(pairs, _SAMPLED))
            prices = run.workspace.root / PRICES
            before = folder.manifest().get("spending") if folder.exists else None
            planned["forecast"] = await expected(asked, sample, total, prices, before)
    return planned


def _given(run: Run, llm: LLM | None) -> dict[str, object]:
    """What the stage provides to simulators that ask for it."""
    return {"llm": llm, "prompts": run.workspace.prompts}


def _records(run: Run, site: str) -> RecordSet:
    return RecordSet(run.workspace.data, run.subject, site)


def _explanations(run: Run, work: Work) -> dict[int, Explanation]:
    return run.explanations(work.site, work.file("explanations"))


def _note_inputs(run: Run, folder: Folder) -> None:
    """Remember the digests of the explanations; those of simulated shards that have changed since
    stay as they were until they are simulated again.

    Raises RunMismatch when explanations that are simulated here are gone.
    """
    now = {file: entry["sha256"] for file, entry in run.folder.manifest()["shards"].items()}
    before = folder.manifest().get("inputs", {})
    stale = {file: before[file] for file in run.changed_since(folder)}
    if gone := sorted(stale.keys() - now.keys()):
        raise RunMismatch(
            f"{folder.path} simulates explanations that are no longer there, in "
            f"{run.folder.path / gone[0]}; delete {folder.path} and simulate again"
        )
    folder.update({"inputs": now | stale})


def label_of(simulator: str, settings: SimulateSettings) -> str:
    """The name of a simulator's folder where none is given."""
    return simulator if settings.split is None else f"{simulator}-{settings.split}"


def _splits(settings: SimulateSettings) -> tuple[Split, ...]:
    if settings.split is not None:
        return (settings.split,)
    return ("calibration", "valid", "test") if settings.test else ("calibration", "valid")


async def _tables(stage: _Stage, work: Work, at_once: int, advance: Advance) -> Tables:
    """The simulations and failures of one shard. Raises Deferred."""
    run, simulator = stage.run, stage.simulator
    explanations = _explanations(run, work)
    records = _held_out(_records(run, work.site), work.shard, stage.settings)
    known = sorted(explanations.keys() & records.keys())
    source = simulator.assign(known, stage.settings.seed)
    neurons = [neuron for neuron in known if neuron in work]

    async def one(place: int) -> list[Simulation]:
        neuron = neurons[place]
        explanation: Explanation = explanations[source[neuron]]
        shown = _shown(simulator, records[neuron], stage.settings)
        stimuli = _stimuli(records[neuron], shown)
        made = await fitted_anew(simulator, lambda asking: asking.simulate(explanation, stimuli))
        return [replace(one, highlight=mark) for one, mark in zip(made, shown, strict=True)]

    ids = [NeuronId(run.subject, work.site, neuron) for neuron in neurons]
    results = await map_neurons("simulate", ids, one, at_once, advance)
    advance(work.size - len(neurons))
    done = [(n, r) for n, r in zip(neurons, results, strict=True) if not isinstance(r, Failure)]
    failures = [result for result in results if isinstance(result, Failure)]
    simulations = simulation_table(
        [neuron for neuron, _ in done],
        [records[neuron].records for neuron, _ in done],
        [made for _, made in done],
    )
    return {"simulations": simulations, "failures": failure_table(failures)}


def _held_out(
    record_set: RecordSet, shard: Shard, settings: SimulateSettings
) -> dict[int, NeuronRecord]:
    splits = _splits(settings)
    found = record_set.shard(shard, ["records", "neurons"], None if settings.quantile else splits)
    neurons = (_with_quantile(neuron, splits) for neuron in found) if settings.quantile else found
    return {neuron.neuron.index: neuron for neuron in neurons}


def _with_quantile(neuron: NeuronRecord, splits: Sequence[Split]) -> NeuronRecord:
    """The records of some splits, and each quantile record that is in no split."""
    known = {record.sequence for record in neuron.records if record.split is not None}
    quantile = {record.sequence: record for record in reversed(neuron.of_kind("quantile"))}
    others = [record for sequence, record in quantile.items() if sequence not in known]
    held_out = [record for record in neuron.records if record.split in splits]
    return replace(neuron, records=(*held_out, *reversed(others)))


def _check_quantile(run: Run, simulator: Simulator) -> None:
    """Raise ConfigError when quantile records are of no use, or the explainer has seen them."""
    if predicted_by(simulator) == "sequences":
        raise ConfigError(
            f"{simulator.name} is not scored on quantile records: simulate without --quantile"
        )
    config = run.folder.manifest()["config"]
    if config.get("quantile") or config.get("contrast"):
        raise ConfigError(
            f"run '{run.name}' was explained from quantile records, so they cannot score it: "
            "simulate without --quantile"
        )


def _shown(
    simulator: Simulator, neuron: NeuronRecord, settings: SimulateSettings
) -> Sequence[Highlight | None]:
    """What is highlighted in each of a neuron's records, for a simulator that asks for it."""
    if sees_highlights(simulator):
        return highlights(neuron, settings.seed)
    return [None] * len(neuron.records)


def _stimuli(neuron: NeuronRecord, shown: Sequence[Highlight | None]) -> list[Stimulus]:
    return [
        replace(record.stimulus, highlighted=mark.tokens) if mark else record.stimulus
        for record, mark in zip(neuron.records, shown, strict=True)
    ]
