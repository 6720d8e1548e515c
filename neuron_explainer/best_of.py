"""`explain --best-of N`: N runs with seeds of their own, simulated on calibration, and the best."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuron_explainer.config import (
    BestOfSettings,
    ExplainSettings,
    SelectSettings,
    SimulateSettings,
)
from neuron_explainer.errors import ConfigError
from neuron_explainer.explain.stage import Explained, explain
from neuron_explainer.runner import Progress, silent
from neuron_explainer.runs import Run
from neuron_explainer.selection import Selected, select
from neuron_explainer.simulate.stage import Simulated, simulate
from neuron_explainer.workspace import Workspace

_TEMPERATURE = 1.0  # where none is given: without chance all candidates would be the same


@dataclass(frozen=True, slots=True)
class BestOf:
    """What came of it."""

    selected: Selected
    explained: Sequence[Explained]
    simulated: Sequence[Simulated]


def candidates(
    subject: str, settings: ExplainSettings, many: BestOfSettings
) -> tuple[str, list[ExplainSettings]]:
    """The name of the run to be written, and how each run `<name>.1`, `<name>.2` … is made.

    They differ in the seed alone: that of `settings`, by default 0, and those that follow.
    Raises ConfigError for a temperature of 0 and for what is no number.
    """
    name = settings.run or f"{subject}-{settings.explainer}-best-of-{many.runs}"
    options = {"temperature": _TEMPERATURE, "seed": 0, **settings.options}
    for option, kinds in (("temperature", int | float), ("seed", int)):
        if not isinstance(options[option], kinds):
            raise ConfigError(f"{option} is {options[option]!r}; it must be a number")
    if options["temperature"] <= 0:
        raise ConfigError(
            f"at temperature {options['temperature']} all {many.runs} explanations would be the "
            "same: best-of needs one above 0"
        )
    seeds = range(options["seed"], options["seed"] + many.runs)
    return name, [
        replace(settings, run=f"{name}.{number}", options={**options, "seed": seed})
        for number, seed in enumerate(seeds, 1)
    ]


def best_of(
    workspace: Workspace,
    subject: str,
    sites: Sequence[str],
    settings: ExplainSettings,
    many: BestOfSettings,
    progress: Progress = silent,
) -> BestOf:
    """Explain, simulate and select; what is done already is kept."""
    name, chosen = candidates(subject, settings, many)
    simulating = SimulateSettings(split="calibration", model=many.model)
    explained, simulated = [], []
    for one in chosen:
        explained.append(asyncio.run(explain(workspace, subject, sites, one, progress)))
        run = explained[-1].run
        work = simulate(run, many.simulator, simulating, progress, many.options)
        simulated.append(asyncio.run(work))
    runs = [each.run for each in explained]
    selected = select(Run(workspace, name), runs, SelectSettings(many.simulator), progress)
    return BestOf(selected, explained, simulated)
