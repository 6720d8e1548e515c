"""Best of n: the command `select`, and `explain` with --best-of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.config import (
    BestOfSettings,
    ExplainSettings,
    ModelSettings,
    SelectSettings,
    build,
)
from neuron_explainer.errors import ConfigError
from neuron_explainer.workspace import Workspace

if TYPE_CHECKING:
    from neuron_explainer.selection import Selected


def select(
    new: option.NewRun,
    runs: option.Candidates,
    simulator: option.SelectBy,
    split: option.SelectSplit = "calibration",
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Write a run with each neuron's best explanation among several runs.

    Nothing is asked of a model: the runs' simulations of the calibration split decide.

    Example: neuron-explainer select best tiny-a tiny-b --simulator numbers
    """
    from neuron_explainer.runs import Run
    from neuron_explainer.selection import select as run_stage

    here = workspace.find(folder)
    settings = build(SelectSettings, {"simulator": simulator, "split": split}, "select")
    candidates = [Run(here, name) for name in runs]
    done = run_stage(Run(here, new), candidates, settings, output.progress())
    if split != "calibration":
        output.say_notices(
            [f"selected on {split}: the scores of run '{new}' on that split are too good"]
        )
    output.show(_report(done) if as_json else _lines(done, settings), as_json)
    output.end(done.failures)


def best_of_settings(
    number: int | None,
    simulator: str | None,
    options: Sequence[str] | None,
    llm: str | None,
    model: ModelSettings,
) -> BestOfSettings | None:
    """What `--best-of` and its options say; None without it. Raises ConfigError."""
    if number is None:
        if simulator or options or llm:
            raise ConfigError("a simulator has a part in explain only with --best-of N")
        return None
    if simulator is None:
        raise ConfigError("--best-of selects by simulations: say whose by --simulator NAME")
    made = option.options_of(options, flag="--simulator-option")
    content = {"runs": number, "simulator": simulator, "options": made}
    settings = build(BestOfSettings, content, "best-of")
    return replace(settings, model=replace(model, llm=llm or model.llm))


def explain(
    here: Workspace,
    subject: str,
    sites: Sequence[str],
    settings: ExplainSettings,
    many: BestOfSettings,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`explain` with --best-of."""
    from neuron_explainer.best_of import best_of, candidates
    from neuron_explainer.explain.stage import Explained, plan
    from neuron_explainer.simulate.stage import Simulated

    if dry_run:
        _, chosen = candidates(subject, settings, many)
        plans = [output.wait(plan(here, subject, sites, one)) for one in chosen]
        output.show_plans(plans, as_json)
        output.say_notices([f"then {many.simulator} simulates the calibration split of each"])
        return
    done = best_of(here, subject, sites, settings, many, output.progress())
    stages: list[Explained | Simulated] = [*done.explained, *done.simulated]
    if as_json:
        spending = [
            {"dropped": list(stage.dropped), **output.spending_of(stage.spending)}
            for stage in stages
        ]
        output.show({**_report(done.selected), "stages": spending}, True)
    else:
        spent = [
            line for stage in stages for line in (*stage.dropped, *output.spent(stage.spending))
        ]
        output.show([*_lines(done.selected, SelectSettings(many.simulator)), *spent], False)
    causes: Counter[str] = Counter()
    for stage in stages:
        causes.update(stage.failures)
    output.end(causes)


def _report(done: "Selected") -> dict[str, object]:
    return {
        "run": done.run.name,
        "selected": done.neurons,
        "chosen": dict(done.chosen),
        "undefined": done.undefined,
        "failures": dict(done.failures),
    }


def _lines(done: "Selected", settings: SelectSettings) -> list[str]:
    among = ", ".join(f"{count:,} from {run}" for run, count in done.chosen.items())
    lines = [
        f"run '{done.run.name}': {done.neurons:,} neurons selected now by {settings.simulator} on "
        f"{settings.split}; in all {among}"
    ]
    if done.undefined:
        lines.append(
            f"{done.undefined:,} neurons have no score in any run: theirs is the first explanation"
        )
    return lines
