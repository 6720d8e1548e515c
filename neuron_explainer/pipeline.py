"""`neuron-explainer run`: the stages one after the other, and the baselines that go with them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuron_explainer import workspace as workspaces
from neuron_explainer.config import ExplainSettings, Settings
from neuron_explainer.errors import ConfigError
from neuron_explainer.runner import Progress, silent
from neuron_explainer.runs import Run
from neuron_explainer.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Finished:
    """What a whole run came to."""

    run: Run
    notices: Sequence[str]
    failures: dict[str, int]  # by cause


def example_settings() -> "Settings":
    """The embedded example's."""
    from neuron_explainer.config import load

    return load(workspaces.example_file())


def run_all(workspace: Workspace, settings: Settings, progress: Progress = silent) -> Finished:
    """Collect, explain, simulate and score as `settings` say; what is done already is kept.

    Each asynchronous stage has its event loop to itself: inside one, collecting and scoring could
    not be interrupted.
    """
    from neuron_explainer.collect.stage import collect
    from neuron_explainer.explain.stage import explain

    if settings.explain.model.in_files or settings.simulate.model.in_files:
        raise ConfigError(
            "batch files come between two commands: use them with explain and simulate, not run"
        )
    collected = collect(workspace.data, settings.subject, settings.collect, progress)
    sites = list(collected.widths)
    failures: dict[str, int] = {}
    finished: Run | None = None
    for explaining, simulators in _plans(settings, collected.subject):
        explained = asyncio.run(explain(workspace, collected.subject, sites, explaining, progress))
        _add(failures, explained.failures)
        _add(failures, _judge(explained.run, simulators, settings, progress))
        finished = finished or explained.run
    assert finished is not None
    return Finished(finished, collected.notices, failures)


def _plans(settings: Settings, subject: str) -> list[tuple[ExplainSettings, Sequence[str]]]:
    """The run asked for, and the published baseline where its table was collected."""
    plans: list[tuple[ExplainSettings, Sequence[str]]] = [
        (settings.explain, settings.simulate.simulators)
    ]
    options = {"table_size": "all"}
    baseline = ExplainSettings("token-lookup", f"{subject}-token-lookup-all", None, options)
    asked = replace(settings.explain, run=None, neurons=None)
    if settings.collect.whole_table and asked != replace(baseline, run=None):
        neurons = settings.explain.neurons
        plans.append((replace(baseline, neurons=neurons), ("token-lookup",)))
    return plans


def _judge(
    run: Run, simulators: Sequence[str], settings: Settings, progress: Progress
) -> dict[str, int]:
    from neuron_explainer.score.stage import score
    from neuron_explainer.simulate.stage import simulate

    failures: dict[str, int] = {}
    for name in simulators:
        simulated = asyncio.run(simulate(run, name, settings.simulate, progress))
        _add(failures, simulated.failures)
        score(run, name, settings.score, progress)
    return failures


def _add(total: dict[str, int], more: object) -> None:
    assert isinstance(more, dict)
    for cause, count in more.items():
        total[cause] = total.get(cause, 0) + count
