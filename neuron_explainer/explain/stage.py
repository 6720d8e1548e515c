"""The explain stage: records in, one explanation or failure a neuron out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from neuron_explainer import registry
from neuron_explainer.config import ExplainSettings
from neuron_explainer.errors import DataError
from neuron_explainer.explain.base import Explainer, check_sites
from neuron_explainer.fits import note_fits
from neuron_explainer.llm.batch_round import Round
from neuron_explainer.llm.compose import Spending, Stack
from neuron_explainer.llm.forecast import Expected, Forecast, expected
from neuron_explainer.llm.overflow import fitted_anew
from neuron_explainer.llm.session import PRICES, opened, round_of, wants_all
from neuron_explainer.prompt_hashes import note_prompts
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, Failure, NeuronRecord
from neuron_explainer.runner import (
    Advance,
    Progress,
    Tables,
    count_causes,
    failure_table,
    map_neurons,
    remaining,
    silent,
)
from neuron_explainer.runs import Run, explanation_table
from neuron_explainer.shard_work import Job, Work, settle, to_retry
from neuron_explainer.store import Folder, locked
from neuron_explainer.workspace import Workspace

_CONCURRENCY = 64
_SAMPLED = 8  # neurons that a forecast looks at


@dataclass(frozen=True, slots=True)
class Explained:
    """What explain did."""

    run: Run
    neurons: int  # explained now
    failures: Mapping[str, int]  # all of the run's, by cause
    spending: Spending | None = None  # of the language model, now
    waiting: int = 0  # neurons in shards that are answered in a later round of batch files
    round: Round | None = None
    dropped: Sequence[str] = ()  # from prompts, to fit the model's context


@dataclass(frozen=True)
class _Stage:
    """What all shards of one stage share."""

    run: Run
    record_sets: Mapping[str, RecordSet]
    explainer: Explainer
    llm: Stack | None


async def explain(
    workspace: Workspace,
    subject: str,
    sites: Sequence[str],
    settings: ExplainSettings,
    progress: Progress = silent,
    forecast: Expected | None = None,
) -> Explained:
    """Explain the neurons of `sites` that the run does not hold yet.

    A `forecast` is kept beside what was spent.
    """
    run = Run(workspace, settings.run or f"{subject}-{settings.explainer}")
    record_sets = {site: RecordSet(workspace.data, subject, site) for site in sites}
    for record_set in record_sets.values():
        record_set.require_complete()
    chosen = {site: record_set.chosen(settings.neurons) for site, record_set in record_sets.items()}
    folder = run.folder
    async with opened(settings.model, workspace.root) as llm:
        explainer: Explainer = registry.make(
            "explainers", settings.explainer, settings.options, llm=llm, prompts=workspace.prompts
        )
        check_sites(explainer, sites)
        stage = _Stage(run, record_sets, explainer, llm)
        with locked(folder.path):
            total, waiting = await _explain_all(stage, chosen, settings, progress, forecast)
            dropped = await note_fits(
                folder, run.sites() if folder.exists else (), "explanations", llm
            )
        causes = count_causes(folder, run.sites() if folder.exists else ())
        ended = round_of(llm)
        return Explained(
            run,
            total - waiting,
            causes,
            None if llm is None else llm.spending,
            waiting,
            None if ended is None else ended.report(),
            dropped,
        )


async def _explain_all(
    stage: _Stage,
    chosen: Mapping[str, Sequence[int]],
    settings: ExplainSettings,
    progress: Progress,
    forecast: Expected | None,
) -> tuple[int, int]:
    """Explain what is left of `chosen`; how many neurons that were, and how many of them wait."""
    folder = stage.run.folder
    subject = next(iter(stage.record_sets.values())).subject
    options = registry.options_of(stage.explainer)
    folder.open({"subject": subject, "explainer": settings.explainer, **options})
    note_prompts(folder, stage.explainer, getattr(stage.explainer, "templates", settings.explainer))
    settle(folder)
    _check_inputs(stage.run, stage.record_sets)
    works = _todo(folder, chosen, settings)
    job = Job("explain", folder, stage.llm, _CONCURRENCY)
    waiting = await job.do(works, partial(_tables, stage), progress, forecast)
    return sum(work.size for work in works), waiting


def _todo(
    folder: Folder, chosen: Mapping[str, Sequence[int]], settings: ExplainSettings
) -> list[Work]:
    """What is left of the chosen neurons of each site, and what is asked about again."""
    return [
        work
        for site, neurons in chosen.items()
        for work in (
            *to_retry(folder, site, settings.retry, set(neurons)),
            *(Work(site, shard) for shard in remaining(folder, f"{site}/explanations", neurons)),
        )
    ]


async def plan(
    workspace: Workspace, subject: str, sites: Sequence[str], settings: ExplainSettings
) -> dict[str, object]:
    """What `explain` would do with the same arguments, and what it would ask of a model."""
    run = Run(workspace, settings.run or f"{subject}-{settings.explainer}")
    record_sets = {site: RecordSet(workspace.data, subject, site) for site in sites}
    chosen = {site: record_sets[site].chosen(settings.neurons) for site in sites}
    folder = run.folder
    todo = _todo(folder, chosen, settings)
    counts = {site: sum(work.size for work in todo if work.site == site) for site in sites}
    planned: dict[str, object] = {"run": run.name, "explainer": settings.explainer, **counts}
    async with opened(settings.model, workspace.root) as llm:
        asked = None if llm is None else Forecast(llm, bulk=wants_all(llm))
        explainer: Explainer = registry.make(
            "explainers", settings.explainer, settings.options, llm=asked, prompts=workspace.prompts
        )
        check_sites(explainer, sites)
        if asked is not None:
            neurons = (
                neuron
                for work in todo
                for neuron in record_sets[work.site].shard(work.shard)
                if neuron.neuron.index in work
            )
            sample = (explainer.explain(_shown(neuron)) for neuron in islice(neurons, _SAMPLED))
            prices = workspace.root / PRICES
            total = sum(counts.values())
            before = folder.manifest().get("spending") if folder.exists else None
            planned["forecast"] = await expected(asked, sample, total, prices, before)
    return planned


def _check_inputs(run: Run, record_sets: Mapping[str, RecordSet]) -> None:
    """Remember the record sets' digests; refuse to go on when one has changed since."""
    inputs = dict(run.folder.manifest().get("inputs", {}))
    for site, record_set in record_sets.items():
        digest = record_set.folder.digest()
        if inputs.setdefault(site, digest) != digest:
            raise DataError(
                f"{record_set.folder.path} has changed since run '{run.name}' explained it; "
                f"choose another --run or delete {run.folder.path}"
            )
    run.folder.update({"inputs": inputs})


async def _tables(stage: _Stage, work: Work, at_once: int, advance: Advance) -> Tables:
    """The explanations and failures of one shard. Raises Deferred."""
    neurons = [
        _shown(neuron)
        for neuron in stage.record_sets[work.site].shard(work.shard)
        if neuron.neuron.index in work
    ]
    results = await map_neurons(
        "explain",
        [neuron.neuron for neuron in neurons],
        lambda place: fitted_anew(
            stage.explainer, lambda explainer: explainer.explain(neurons[place])
        ),
        at_once,
        advance,
    )
    made = [result for result in results if isinstance(result, Explanation)]
    failures = [result for result in results if isinstance(result, Failure)]
    return {"explanations": explanation_table(made), "failures": failure_table(failures)}


def _shown(neuron: NeuronRecord) -> NeuronRecord:
    """What an explainer may see: train records, and quantile records in no other split."""
    held_out = {record.sequence for record in neuron.records if record.split not in {None, "train"}}
    shown = tuple(
        record
        for record in neuron.records
        if record.split == "train"
        or (record.kind == "quantile" and record.sequence not in held_out)
    )
    return replace(neuron, records=shown)
