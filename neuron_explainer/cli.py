"""The command line: one short function a command, which `main` ends with an exit code."""

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from neuron_explainer import __version__, command_formats, workspace
from neuron_explainer import command_options as option
from neuron_explainer import command_output as output
from neuron_explainer.config import (
    CollectSettings,
    ExplainSettings,
    ModelSettings,
    SaeSettings,
    ScoreSettings,
    SimulateSettings,
    SubjectSettings,
)
from neuron_explainer.errors import ConfigError, DataError, UserError

app = typer.Typer(
    name="neuron-explainer",
    help="Explain every neuron of a language model, and score how good each explanation is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(command_formats.import_app, name="import")
app.add_typer(command_formats.export_app, name="export")


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Make a workspace: the folders data, explanations, scoring and prompts.

    Example: neuron-explainer init my-study
    """
    made = workspace.init(folder)
    print(f"made a workspace in {made.root}; next: cd {made.root} && neuron-explainer run")


@app.command()
def run(
    config: option.ConfigOption = None,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Collect, explain, simulate and score, as run.toml says.

    Without a run.toml it runs the embedded example, with no key and no network.

    Example: neuron-explainer run
    """
    from neuron_explainer import config as configuration
    from neuron_explainer import pipeline

    place = workspace.Workspace(folder or Path())
    file = config or (place.run_file if place.run_file.is_file() else None)
    settings = configuration.load(file) if file else pipeline.example_settings()
    if not workspace.is_workspace(place.root) and (folder or not any(place.root.iterdir())):
        workspace.init(place.root)
    here = workspace.find(folder)
    finished = pipeline.run_all(here, settings, output.progress())
    output.say_notices(finished.notices)
    output.show_summary(finished.run, settings.score, as_json)
    output.end(finished.failures)


@app.command()
def collect(
    context: typer.Context,
    subject: option.ModelOption,
    corpus: option.CorpusOption,
    layers: option.LayerOption = None,
    sites: option.SiteOption = None,
    sae: option.SaeOption = None,
    name: option.FolderName = None,
    split_on: option.SplitOn = "file",
    text_field: option.TextField = "text",
    excerpt_tokens: option.ExcerptTokens = 64,
    minimum_tokens: option.MinimumTokens = 16,
    bos: option.BosOption = "prepend",
    top: option.TopOption = 20,
    random: option.RandomOption = 20,
    per_band: option.PerBand = 4,
    activations: option.StoredAs = "float16",
    whole_table: option.WholeTable = False,
    context_table: option.ContextTable = False,
    memory_mb: option.MemoryOption = 1024,
    batch: option.BatchOption = 32,
    seed: option.SeedOption = 0,
    device: option.DeviceOption = "cpu",
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Run a model over a corpus and keep what explains and scores its neurons.

    Example: neuron-explainer collect --subject gpt2 --layer 6 --corpus texts.jsonl
    """
    from neuron_explainer import config as configuration
    from neuron_explainer.collect.stage import collect as run_stage

    here = workspace.find(folder)
    named = tuple(sites or ())
    if sae and len(named) != 1:
        raise ConfigError("--sae needs the one --site that it was trained on")
    saes = (SaeSettings(named[0], sae),) if sae else ()
    names = [setting.name for setting in fields(CollectSettings)]
    values = {key: value for key, value in context.params.items() if key in names}
    values["sites"] = () if sae else named
    settings = configuration.build(CollectSettings, values, "collect")
    model = SubjectSettings(subject, name, device, sae=saes)
    done = run_stage(here.data, model, settings, output.progress())
    output.say_notices(done.notices)
    lines = [
        f"{done.subject}/{site}: {width:,} neurons, {len(done.corpus):,} excerpts"
        + (" (was complete already)" if site in done.skipped else "")
        for site, width in done.widths.items()
    ]
    report = {"subject": done.subject, "excerpts": len(done.corpus), "sites": dict(done.widths)}
    output.show(report if as_json else lines, as_json)


@app.command()
def explain(
    subject: option.SubjectName = None,
    layer: option.LayerOption = None,
    site: option.SiteOption = None,
    explainer: option.ExplainerOption = "token-lookup",
    table_size: option.TableSize = None,
    options: option.OptionOption = None,
    neurons: option.NeuronsOption = None,
    name: option.RunName = None,
    llm: option.LLMOption = None,
    base_url: option.BaseUrl = None,
    max_cost: option.MaxCost = None,
    max_tokens: option.MaxTokens = None,
    concurrency: option.Concurrency = 32,
    llm_device: option.LLMDevice = "cpu",
    llm_dtype: option.LLMDtype = "auto",
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
    model = ModelSettings(llm, base_url, llm_device, llm_dtype, max_cost, max_tokens, concurrency)
    settings = ExplainSettings(explainer, name, neurons, made, model)
    if dry_run:
        output.show_plans([output.wait(plan(here, chosen, sites, settings))], as_json)
        return
    done = output.wait(run_stage(here, chosen, sites, settings, output.progress()))
    report = {
        "run": done.run.name,
        "explained": done.neurons,
        "failures": dict(done.failures),
        **output.spending_of(done.spending),
    }
    line = f"run '{done.run.name}': {done.neurons:,} neurons explained now"
    output.show(report if as_json else [line, *output.spent(done.spending)], as_json)
    output.end(done.failures)


@app.command()
def simulate(
    name: option.RunArgument,
    simulator: option.SimulatorOption = None,
    options: option.OptionOption = None,
    test: Annotated[bool, typer.Option("--test", help="Also the test split.")] = False,
    seed: option.SeedOption = 0,
    label: option.SimulationName = None,
    llm: option.LLMOption = None,
    base_url: option.BaseUrl = None,
    max_cost: option.MaxCost = None,
    max_tokens: option.MaxTokens = None,
    concurrency: option.Concurrency = 32,
    llm_device: option.LLMDevice = "cpu",
    llm_dtype: option.LLMDtype = "auto",
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
    model = ModelSettings(llm, base_url, llm_device, llm_dtype, max_cost, max_tokens, concurrency)
    settings = SimulateSettings(test=test, seed=seed, model=model)
    names = simulator or settings.simulators
    if dry_run:
        made = option.options_of(options)
        plans = [output.wait(plan(run, each, settings, made, label)) for each in names]
        output.show_plans(plans, as_json)
        return
    failures: dict[str, int] = {}
    reports: list[dict[str, object]] = []
    spending: list[str] = []
    for each in names:
        made = option.options_of(options)
        done = output.wait(run_stage(run, each, settings, output.progress(), made, label))
        failures |= done.failures
        spending += output.spent(done.spending)
        reports.append(
            {"simulator": each, "simulated": done.neurons, **output.spending_of(done.spending)}
        )
    lines = [
        f"{line['simulator']}: {line['simulated']:,} neurons simulated now" for line in reports
    ]
    report = {"run": name, "simulators": reports}
    output.show(report if as_json else [*lines, *spending], as_json)
    output.end(failures)


@app.command()
def score(
    name: option.RunArgument,
    simulator: option.SimulatorOption = None,
    split: option.SplitOption = "valid",
    seed: option.SeedOption = 0,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Score the simulations of a run, and show the table.

    Example: neuron-explainer score tiny-token-lookup
    """
    from neuron_explainer import config as configuration
    from neuron_explainer.runs import Run
    from neuron_explainer.score.stage import score as run_stage

    run = Run(workspace.find(folder), name)
    run.require()
    settings = configuration.build(ScoreSettings, {"split": split, "seed": seed}, "score")
    names = simulator or run.simulators()
    if not names:
        raise DataError(f"run '{name}' has no simulations: neuron-explainer simulate {name}")
    for each in names:
        run_stage(run, each, settings, output.progress())
    output.show_summary(run, settings, as_json)


@app.command()
def show(
    neuron: option.NeuronArgument,
    top: option.ShowTop = 5,
    random: option.ShowRandom = 0,
    quantile: option.ShowQuantile = False,
    plain: option.PlainOption = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Show one neuron: statistics, explanations with scores, and records as heat maps.

    Example: neuron-explainer show tiny/blocks.0.mlp.hook_post/12
    """
    from neuron_explainer import show as view
    from neuron_explainer.records import NeuronId

    found = view.find(workspace.find(folder), NeuronId.parse(neuron))
    if as_json:
        output.show(view.as_json(found), True)
        return
    console = output.console()
    choice = view.Choice(top, random, quantile)
    console.print(view.render(found, choice, plain or not console.color_system))


@app.callback(invoke_without_command=True)
def _options_of_all(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"neuron-explainer {__version__}")
        raise typer.Exit


_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def main() -> None:
    """Run the command line: exit code 0 done, 1 finished with failures, 2 cannot run."""
    # Threads that spin while they wait make collecting five times slower where anything else runs
    # on the machine. OpenMP reads this when torch is loaded, later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(prog_name="neuron-explainer", standalone_mode=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.TyperException as error:
        cast(Any, error).show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    if code == _INTERRUPTED:
        print(
            "\nstopped; what was finished is kept: the same command goes on from there",
            file=sys.stderr,
        )
    sys.exit(code if isinstance(code, int) else 0)
