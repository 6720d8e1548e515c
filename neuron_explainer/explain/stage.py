"""The explain stage: records in, one explanation or failure a neuron out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from neuron_explainer import registry
from neuron_explainer.config import ExplainSettings
from neuron_explainer.errors import DataError
from neuron_explainer.explain.base import Explainer
from neuron_explainer.llm.compose import Spending
from neuron_explainer.llm.forecast import Forecast, expected
from neuron_explainer.llm.session import PRICES, accounted, opened
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, Failure, NeuronRecord
from neuron_explainer.runner import (
    Advance,
    Progress,
    count_causes,
    failure_table,
    map_neurons,
    parse_neurons,
    remaining,
    silent,
)
from neuron_explainer.runs import Run, explanation_table
from neuron_explainer.store import Shard, locked
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


async def explain(
    workspace: Workspace,
    subject: str,
    sites: Sequence[str],
    settings: ExplainSettings,
    progress: Progress = silent,
) -> Explained:
    """Explain the neurons of `sites` that the run does not hold yet."""
    run = Run(workspace, settings.run or f"{subject}-{settings.explainer}")
    record_sets = {site: RecordSet(workspace.data, subject, site) for site in sites}
    for record_set in record_sets.values():
        record_set.require_complete()
    chosen = {
        site: parse_neurons(settings.neurons, record_set.width)
        for site, record_set in record_sets.items()
    }
    folder = run.folder
    async with opened(settings.model, workspace.root) as llm:
        explainer: Explainer = registry.make(
            "explainers", settings.explainer, settings.options, llm=llm, prompts=workspace.prompts
        )
        with locked(folder.path):
            total = await _explain_all(run, record_sets, chosen, settings, explainer, progress)
            if llm is not None:
                spent = accounted(folder.manifest().get("spending", {}), llm.spending)
                folder.update({"spending": spent})
        spending = None if llm is None else llm.spending
    return Explained(run, total, count_causes(folder, run.sites()), spending)


async def _explain_all(
    run: Run,
    record_sets: Mapping[str, RecordSet],
    chosen: Mapping[str, Sequence[int]],
    settings: ExplainSettings,
    explainer: Explainer,
    progress: Progress,
) -> int:
    """Explain what is left of `chosen`; how many neurons that were."""
    folder = run.folder
    subject = next(iter(record_sets.values())).subject
    options = registry.options_of(explainer)
    folder.open({"subject": subject, "explainer": settings.explainer, **options})
    _check_inputs(run, record_sets)
    todo = {
        site: remaining(folder, f"{site}/explanations", neurons) for site, neurons in chosen.items()
    }
    total = sum(shard.stop - shard.start for shards in todo.values() for shard in shards)
    with progress("explain", total, "neurons") as advance:
        for site, shards in todo.items():
            for shard in shards:
                await _explain_shard(run, record_sets[site], shard, explainer, advance)
    folder.update({"complete": True})
    return total


async def plan(
    workspace: Workspace, subject: str, sites: Sequence[str], settings: ExplainSettings
) -> dict[str, object]:
    """What `explain` would do with the same arguments, and what it would ask of a model."""
    run = Run(workspace, settings.run or f"{subject}-{settings.explainer}")
    record_sets = {site: RecordSet(workspace.data, subject, site) for site in sites}
    todo = {
        site: remaining(
            run.folder,
            f"{site}/explanations",
            parse_neurons(settings.neurons, record_sets[site].width),
        )
        for site in sites
    }
    counts = {
        site: sum(shard.stop - shard.start for shard in shards) for site, shards in todo.items()
    }
    planned: dict[str, object] = {"run": run.name, "explainer": settings.explainer, **counts}
    async with opened(settings.model, workspace.root) as llm:
        asked = None if llm is None else Forecast(llm)
        explainer: Explainer = registry.make(
            "explainers", settings.explainer, settings.options, llm=asked, prompts=workspace.prompts
        )
        if asked is not None:
            neurons = (
                neuron
                for site, shards in todo.items()
                for shard in shards
                for neuron in record_sets[site].shard(shard)
            )
            sample = (explainer.explain(_shown(neuron)) for neuron in islice(neurons, _SAMPLED))
            prices = workspace.root / PRICES
            total = sum(counts.values())
            planned["forecast"] = await expected(asked, sample, total, prices)
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


async def _explain_shard(
    run: Run, records: RecordSet, shard: Shard, explainer: Explainer, advance: Advance
) -> None:
    neurons = [_shown(neuron) for neuron in records.shard(shard)]
    results = await map_neurons(
        "explain",
        [neuron.neuron for neuron in neurons],
        lambda place: explainer.explain(neurons[place]),
        _CONCURRENCY,
        advance,
    )
    made = [result for result in results if isinstance(result, Explanation)]
    failures = [result for result in results if isinstance(result, Failure)]
    run.folder.write(
        {
            f"{records.site}/{shard.file('explanations')}": explanation_table(made),
            f"{records.site}/{shard.file('failures')}": failure_table(failures),
        }
    )


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
