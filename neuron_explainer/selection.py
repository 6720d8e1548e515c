"""Of several explanations of a neuron the one whose simulation is best: best of n.

It is chosen on the calibration split, from simulations and scores on disk, because the largest of n
scores is above what its explanation is worth: on the split on which it was chosen, noise alone
raises it. The score is the correlation on top and random records, or, of a simulator that judges
whole sequences, the area under the ROC curve. A candidate without a score (no explanation, a
simulation that failed or is undefined) loses to any that has one; among equals the run named first
wins, and where no candidate has a score the first that has an explanation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_explainer.config import ScoreSettings, SelectSettings
from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.records import Explanation
from neuron_explainer.runner import Progress, count_causes, failure_table, silent
from neuron_explainer.runs import Run, explanation_table
from neuron_explainer.score.stage import holds, read_scores, score
from neuron_explainer.store import Folder, Shard, locked

_CRITERIA = ("correlation_top_and_random", "auroc_top_and_random")  # the first that there is


@dataclass(frozen=True, slots=True)
class Selected:
    """What select did; the counts are of the whole run."""

    run: Run
    neurons: int  # selected now
    chosen: Mapping[str, int]  # neurons by the run that their explanation is from
    undefined: int  # neurons of which no candidate has a score
    failures: Mapping[str, int]  # neurons that no candidate explains, by the first one's cause


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One run at one site: what it explains, and what that is worth."""

    run: Run
    explanations: Mapping[int, Explanation]
    worth: Mapping[int, float]  # only where it is defined


def select(
    new: Run, candidates: Sequence[Run], settings: SelectSettings, progress: Progress = silent
) -> Selected:
    """Write run `new`: of each neuron the explanation of the best of `candidates`.

    Nothing is simulated; shards that are there are kept. Raises DataError when the candidates do
    not explain the same neurons of the same records, or lack simulations.
    """
    _check_names(new, candidates)
    _check_alike(candidates)
    labels = [_simulations(run, settings) for run in candidates]
    for run, label in zip(candidates, labels, strict=True):
        score(run, label, ScoreSettings(settings.split), progress)
    total = undefined = 0
    with locked(new.folder.path):
        new.folder.open(_config(candidates, settings))
        for site in candidates[0].sites():
            found = [
                _candidate(run, site, label, settings)
                for run, label in zip(candidates, labels, strict=True)
            ]
            total += _select_site(new, site, found)
            undefined += _undefined(found)
        new.folder.update({**_origin(candidates, settings, undefined), "complete": True})
    return _selected(new, total)


def _check_names(new: Run, candidates: Sequence[Run]) -> None:
    names = [run.name for run in candidates]
    if len(names) < 2 or len({new.name, *names}) < len(names) + 1:
        raise ConfigError(
            "select needs the new run's name and two or more other runs to choose from"
        )


def _check_alike(candidates: Sequence[Run]) -> None:
    """Raises DataError unless all explain the same neurons of the same record sets."""
    for run in candidates:
        run.require()
    first = candidates[0]
    for run in candidates[1:]:
        mine, other = (each.folder.manifest() for each in (first, run))
        if run.subject != first.subject:
            what = f"explains {run.subject}, '{first.name}' {first.subject}"
        elif run.sites() != first.sites():
            what = f"explains {', '.join(run.sites())}, '{first.name}' {', '.join(first.sites())}"
        elif mine.get("inputs") != other.get("inputs"):
            what = f"explains other records than '{first.name}'"
        elif any(_covered(run, site) != _covered(first, site) for site in run.sites()):
            what = f"explains other neurons than '{first.name}'"
        else:
            continue
        raise DataError(f"cannot choose among these runs: '{run.name}' {what}")


def _covered(run: Run, site: str) -> set[int]:
    """The neurons that were explained, or failed to be."""
    shards = run.folder.shards(f"{site}/explanations")
    return {neuron for shard, _ in shards for neuron in range(shard.start, shard.stop)}


def _simulations(run: Run, settings: SelectSettings) -> str:
    """The name of the folder with the simulations to choose by. Raises DataError."""
    for label in (settings.simulator, f"{settings.simulator}-{settings.split}"):
        folder = run.simulations(label)
        if holds(folder, settings.split) and _is_whole(run, folder):
            return label
    raise DataError(
        f"{settings.simulator} has not simulated all that run '{run.name}' explains on the "
        f"{settings.split} split: neuron-explainer simulate {run.name} "
        f"--simulator {settings.simulator} --split {settings.split}"
    )


def _is_whole(run: Run, folder: Folder) -> bool:
    """Whether each shard of explanations, as it is now, was simulated."""
    explained = run.folder.manifest()["shards"]
    simulated = folder.manifest().get("inputs", {})
    return all(
        simulated.get(file) == explained[file]["sha256"]
        and folder.has(f"{site}/{shard.file('simulations')}")
        for site in run.sites()
        for shard, file in run.folder.shards(f"{site}/explanations")
    )


def _config(candidates: Sequence[Run], settings: SelectSettings) -> dict[str, object]:
    explainers = {str(run.folder.manifest()["config"]["explainer"]): None for run in candidates}
    return {
        "subject": candidates[0].subject,
        "explainer": " or ".join(explainers),
        "selected_on": settings.split,
        "selected_by": settings.simulator,
        "selected_from": [[run.name, run.folder.digest()] for run in candidates],
    }


def _origin(
    candidates: Sequence[Run], settings: SelectSettings, undefined: int
) -> dict[str, object]:
    """What the manifest says of where the explanations come from."""
    selection = {
        "among": len(candidates),
        "split": settings.split,
        "simulator": settings.simulator,
        "runs": [{"run": run.name, "digest": run.folder.digest()} for run in candidates],
        "undefined": undefined,
    }
    return {"inputs": candidates[0].folder.manifest().get("inputs", {}), "selection": selection}


def _candidate(run: Run, site: str, label: str, settings: SelectSettings) -> _Candidate:
    explanations: dict[int, Explanation] = {}
    for _, file in run.folder.shards(f"{site}/explanations"):
        explanations |= run.explanations(site, file)
    scores = read_scores(run.simulations(label), site, ScoreSettings(settings.split))
    figure = next(scores.scores[name] for name in _CRITERIA if name in scores.scores)
    pairs = zip(scores.neurons.tolist(), figure.values.tolist(), strict=True)
    return _Candidate(run, explanations, {n: value for n, value in pairs if np.isfinite(value)})


def _select_site(new: Run, site: str, candidates: Sequence[_Candidate]) -> int:
    """Write the shards that are not there, cut as the first candidate's; how many neurons."""
    first = candidates[0].run
    total = 0
    for shard, _ in first.folder.shards(f"{site}/explanations"):
        targets = [f"{site}/{shard.file(name)}" for name in ("explanations", "failures")]
        if new.folder.has(*targets):
            continue
        best = [_best(candidates, neuron) for neuron in range(shard.start, shard.stop)]
        made = explanation_table([explanation for explanation in best if explanation])
        failures = _failures(first, site, shard, made["neuron"])
        new.folder.write(dict(zip(targets, (made, failures), strict=True)))
        total += shard.stop - shard.start
    return total


def _best(candidates: Sequence[_Candidate], neuron: int) -> Explanation | None:
    explaining = [one for one in candidates if neuron in one.explanations]
    if not explaining:
        return None
    best = max(explaining, key=lambda one: one.worth.get(neuron, -np.inf))  # the first of equals
    return replace(best.explanations[neuron], candidate=best.run.name)


def _failures(first: Run, site: str, shard: Shard, explained: pa.ChunkedArray) -> pa.Table:
    """Those of the first run, of neurons that no run explains."""
    file = f"{site}/{shard.file('failures')}"
    if not first.folder.has(file):
        return failure_table([])
    failures = first.folder.read(file)
    return failures.filter(pc.invert(pc.is_in(failures["neuron"], explained)))


def _undefined(candidates: Sequence[_Candidate]) -> int:
    explained = {neuron for one in candidates for neuron in one.explanations}
    return len(explained - {neuron for one in candidates for neuron in one.worth})


def _selected(new: Run, total: int) -> Selected:
    sites = new.sites()
    chosen = Counter(
        name
        for site in sites
        for _, file in new.folder.shards(f"{site}/explanations")
        for name in new.folder.read(file, ["candidate"])["candidate"].to_pylist()
    )
    selection = new.folder.manifest()["selection"]
    by_run = {entry["run"]: chosen[entry["run"]] for entry in selection["runs"]}
    failures = count_causes(new.folder, sites)
    return Selected(new, total, by_run, selection["undefined"], failures)
