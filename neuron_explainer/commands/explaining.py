"""The commands that may ask a language model: `explain` and `simulate`."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output, selecting
from neuron_explainer.commands.model_options import with_model
from neuron_explainer.config import ExplainSettings, ModelSettings, SimulateSettings, build
from neuron_explainer.errors import ConfigError

if TYPE_CHECKING:
    from neuron_explainer.llm.forecast import Expected
    from neuron_explainer.simulate.stage import Simulated


@with_model
def explain(
    subject: option.SubjectName = None,
    layer: option.LayerOption = None,
    site: option.SiteOption = None,
    explainer: option.ExplainerOption = "token-lookup",
    table_size: option.TableSize = None,
    options: option.OptionOption = None,
    neurons: option.NeuronsOption = None,
    name: option.RunName = None,
    best_of: option.BestOf = None,
    simulator: option.BestOfSimulator = None,
    simulator_options: option.BestOfOption = None,
    simulator_llm: option.BestOfLLM = None,
    retry_failures: option.RetryFailures = False,
    retry_cause: option.RetryCause = None,
    *,
    model: ModelSettings,
    dry_run: option.DryRun = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Write an explanation of every neuron.

    Example: neuron-explainer explain --layer 0 --explainer token-lookup --table-size 50
    """
    from neuron_explainer.explain.stage import explain as run_stage
    from neuron_explainer.explain.stage import plan

    here = workspace.find(folder)
    chosen = option.subject_name(here, subject)
    sites = option.collected(here, chosen, layer, site)
    made = option.options_of(options, table_size=table_size)
    retried = option.retried(retry_failures, retry_cause)
    settings = ExplainSettings(explainer, name, neurons, made, model, retried)
    many = selecting.best_of_settings(best_of, simulator, simulator_options, simulator_llm, model)
    if many is not None:
        if retried or model.in_files:
            raise ConfigError("--best-of goes neither with batch files nor with --retry-failures")
        selecting.explain(here, chosen, sites, settings, many, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        output.show_plans([output.wait(plan(here, chosen, sites, settings))], as_json)
        return
    foreseen = output.foreseen(model, lambda: plan(here, chosen, sites, settings))
    stage = run_stage(here, chosen, sites, settings, output.progress(), foreseen)
    done = output.wait(stage)
    report = {
        "run": done.run.name,
        "explained": done.neurons,
        "failures": dict(done.failures),
        **output.spending_of(done.spending, foreseen),
        **output.round_of(done.round, done.waiting),
        "dropped": list(done.dropped),
    }
    line = f"run '{done.run.name}': {done.neurons:,} neurons explained now"
    batch = output.next_round(done.round, done.waiting, model.llm)
    lines = [line, *done.dropped, *output.spent(done.spending, foreseen), *batch]
    output.show(report if as_json else lines, as_json)
    output.end(done.failures)


@with_model
def simulate(
    name: option.RunArgument,
    simulator: option.SimulatorOption = None,
    options: option.OptionOption = None,
    test: Annotated[bool, typer.Option("--test", help="Also the test split.")] = False,
    split: option.OnlySplit = None,
    quantile: option.SimulateQuantile = False,
    seed: option.SeedOption = 0,
    label: option.SimulationName = None,
    retry_failures: option.RetryFailures = False,
    retry_cause: option.RetryCause = None,
    *,
    model: ModelSettings,
    dry_run: option.DryRun = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Predict activations from the explanations of a run, and text alone.

    Example: neuron-explainer simulate tiny-token-lookup --simulator shuffled
    """
    from neuron_explainer.runs import Run
    from neuron_explainer.simulate.stage import plan
    from neuron_explainer.simulate.stage import simulate as run_stage

    run = Run(workspace.find(folder), name)
    again = option.retried(retry_failures, retry_cause)
    settings = replace(_simulate_settings(test, split, quantile, seed, model), retry=again)
    names = simulator or settings.simulators
    if model.in_files and len(names) != 1:
        raise ConfigError("batch files hold the requests of one simulator: name it by --simulator")
    made = option.options_of(options)
    if dry_run:
        plans = [output.wait(plan(run, each, settings, made, label)) for each in names]
        output.show_plans(plans, as_json)
        return
    failures: dict[str, int] = {}
    reports: list[dict[str, object]] = []
    lines: list[str] = []
    for each in names:
        foreseen = output.foreseen(model, partial(plan, run, each, settings, made, label))
        stage = run_stage(run, each, settings, output.progress(), made, label, foreseen)
        done = output.wait(stage)
        failures |= done.failures
        lines += _lines(done, foreseen, model)
        reports.append(_report(done, foreseen))
    report = {"run": name, "simulators": reports}
    output.show(report if as_json else lines, as_json)
    output.end(failures)


def _report(done: "Simulated", foreseen: "Expected | None") -> dict[str, object]:
    return {
        "simulator": done.simulator,
        "simulated": done.neurons,
        **output.spending_of(done.spending, foreseen),
        **output.round_of(done.round, done.waiting),
        "dropped": list(done.dropped),
    }


def _lines(done: "Simulated", foreseen: "Expected | None", model: ModelSettings) -> list[str]:
    return [
        f"{done.simulator}: {done.neurons:,} neurons simulated now",
        *done.dropped,
        *output.spent(done.spending, foreseen),
        *output.next_round(done.round, done.waiting, model.llm),
    ]


def _simulate_settings(
    test: bool, split: str | None, quantile: bool, seed: int, model: ModelSettings
) -> SimulateSettings:
    if test and split is not None:
        raise ConfigError(f"--test simulates other splits too: leave it or --split {split} out")
    values = {"test": test, "split": split, "quantile": quantile, "seed": seed}
    made = build(SimulateSettings, values, "simulate")
    return replace(made, model=model)
