"""The command line: one short function a command. The only place that prints and exits."""

import asyncio
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import typer

from neuron_explainer import __version__, workspace
from neuron_explainer.config import (
    CollectSettings,
    ExplainSettings,
    SaeSettings,
    ScoreSettings,
    SimulateSettings,
    SubjectSettings,
)
from neuron_explainer.errors import ConfigError, UserError

Result = TypeVar("Result")

app = typer.Typer(
    name="neuron-explainer",
    help="Explain every neuron of a language model, and score how good each explanation is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
import_app = typer.Typer(help="Read published formats.", no_args_is_help=True)
export_app = typer.Typer(help="Write published formats.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")

WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", help="Default: the current directory.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
SubjectName = Annotated[
    str | None, typer.Option("--subject", help="Its folder in data/; default: the only one.")
]
LayerOption = Annotated[
    str | None, typer.Option("--layer", help="MLP neurons of these layers, such as 6 or 0-3,5.")
]
SiteOption = Annotated[
    list[str] | None, typer.Option("--site", help="A site by TransformerLens name; repeatable.")
]
NeuronsOption = Annotated[
    str | None, typer.Option("--neurons", help="Only these, such as 0-99,512.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]
# what explaining does not need to say anything about: these neurons have nothing to explain
_EXPECTED_CAUSES = {"never-active"}


@app.command()
def init(folder: Path) -> None:
    """Make a workspace: the folders data, explanations, scoring and prompts.

    Example: neuron-explainer init my-study
    """
    made = workspace.init(folder)
    print(f"made a workspace in {made.root}; next: cd {made.root} && neuron-explainer run")


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Option(help="Default: run.toml, else the embedded example.")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Collect, explain, simulate and score, as run.toml says.

    Without a run.toml it runs the embedded example, with no key and no network.

    Example: neuron-explainer run
    """
    from neuron_explainer import config as configuration
    from neuron_explainer import pipeline

    place = folder or Path()
    if not workspace.is_workspace(place) and (folder or not any(place.iterdir())):
        workspace.init(place)
    here = workspace.find(folder)
    file = config or (here.run_file if here.run_file.is_file() else None)
    settings = configuration.load(file) if file else pipeline.example_settings()
    finished = _wait(pipeline.run_all(here, settings, _progress()))
    _say_notices(finished.notices)
    _show_summary(finished.run, settings.score, as_json)
    _end(finished.failures)


@app.command()
def collect(
    subject: Annotated[str, typer.Option(help="A folder or hub id of a causal language model.")],
    corpus: Annotated[str, typer.Option(help="A .txt, .jsonl or .parquet file, or a folder.")],
    layer: LayerOption = None,
    site: SiteOption = None,
    sae: Annotated[
        str | None, typer.Option(help="An autoencoder's .pt file over the one --site given.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The subject's folder in data/.")] = None,
    split_on: Annotated[str, typer.Option(help="Text files: file, blank-line or line.")] = "file",
    text_field: Annotated[str, typer.Option(help="Where .jsonl and .parquet hold text.")] = "text",
    excerpt_tokens: Annotated[int, typer.Option(help="Length of an excerpt.", min=2)] = 64,
    minimum_tokens: Annotated[int, typer.Option(help="Drop shorter excerpts.", min=1)] = 16,
    bos: Annotated[str, typer.Option(help="prepend or none.")] = "prepend",
    top: Annotated[int, typer.Option(help="Top records a neuron.", min=4)] = 20,
    random: Annotated[int, typer.Option(help="Random records a neuron.", min=3)] = 20,
    per_band: Annotated[int, typer.Option(help="Records a quantile band.", min=0)] = 4,
    activations: Annotated[str, typer.Option(help="Stored as float16 or float32.")] = "float16",
    whole_table: Annotated[bool, typer.Option(help="Keep the token table of all tokens.")] = False,
    context_table: Annotated[bool, typer.Option(help="Also means after certain tokens.")] = False,
    memory: Annotated[int, typer.Option(help="MB for token tables and quantiles.", min=16)] = 1024,
    batch: Annotated[int, typer.Option(help="Excerpts a forward pass.", min=1)] = 32,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a model over a corpus and keep what explains and scores its neurons.

    Example: neuron-explainer collect --subject gpt2 --layer 6 --corpus texts.jsonl
    """
    from neuron_explainer import config as configuration
    from neuron_explainer.collect.stage import collect as run_stage

    here = workspace.find(folder)
    sites = tuple(site or ())
    if sae and len(sites) != 1:
        raise ConfigError("--sae needs the one --site that it was trained on")
    model = SubjectSettings(subject, name, device, sae=(SaeSettings(sites[0], sae),) if sae else ())
    values = {
        "corpus": corpus,
        "layers": layer,
        "sites": () if sae else sites,
        "split_on": split_on,
        "text_field": text_field,
        "excerpt_tokens": excerpt_tokens,
        "minimum_tokens": minimum_tokens,
        "bos": bos,
        "top": top,
        "random": random,
        "per_band": per_band,
        "activations": activations,
        "whole_table": whole_table,
        "context_table": context_table,
        "memory_mb": memory,
        "batch": batch,
        "seed": seed,
    }
    settings = configuration.build(CollectSettings, values, "collect")
    done = run_stage(here.data, model, settings, _progress())
    _say_notices(done.notices)
    lines = [
        f"{done.subject}/{name}: {width:,} neurons"
        + (" (was complete already)" if name in done.skipped else "")
        for name, width in done.widths.items()
    ]
    report = {"subject": done.subject, "excerpts": len(done.corpus), "sites": dict(done.widths)}
    _print(report if as_json else [f"{len(done.corpus):,} excerpts", *lines], as_json)


@app.command()
def explain(
    subject: SubjectName = None,
    layer: LayerOption = None,
    site: SiteOption = None,
    explainer: Annotated[str, typer.Option(help="Who explains.")] = "token-lookup",
    table_size: Annotated[
        str | None, typer.Option(help="Rows of a lookup table: a number or all.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the explainer: NAME=VALUE.")
    ] = None,
    neurons: NeuronsOption = None,
    name: Annotated[str | None, typer.Option("--run", help="Default: SUBJECT-EXPLAINER.")] = None,
    dry_run: DryRun = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an explanation of every neuron.

    Example: neuron-explainer explain --layer 0 --explainer token-lookup --table-size 50
    """
    from neuron_explainer.explain.stage import explain as run_stage
    from neuron_explainer.explain.stage import plan

    here = workspace.find(folder)
    chosen = _subject(here, subject)
    options = _options(option)
    if table_size is not None:
        options["table_size"] = int(table_size) if table_size.isdigit() else table_size
    settings = ExplainSettings(explainer, name, neurons, options)
    sites = _sites(here, chosen, layer, site)
    if dry_run:
        _print(plan(here, chosen, sites, settings), as_json)
        return
    done = _wait(run_stage(here, chosen, sites, settings, _progress()))
    report = {"run": done.run.name, "explained": done.neurons, "failures": dict(done.failures)}
    line = f"run '{done.run.name}': {done.neurons:,} neurons explained now"
    _print(report if as_json else [line], as_json)
    _end(done.failures)


@app.command()
def simulate(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    simulator: Annotated[list[str] | None, typer.Option(help="Who simulates; repeatable.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the simulator: NAME=VALUE.")
    ] = None,
    test: Annotated[bool, typer.Option(help="Also the test split.")] = False,
    seed: int = 0,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict activations from the explanations of a run, and text alone.

    Example: neuron-explainer simulate tiny-token-lookup --simulator shuffled
    """
    from neuron_explainer.runs import Run
    from neuron_explainer.simulate.stage import simulate as run_stage

    run = Run(workspace.find(folder), name)
    settings = SimulateSettings(test=test, seed=seed)
    failures: dict[str, int] = {}
    reports = []
    for chosen in simulator or settings.simulators:
        done = _wait(run_stage(run, chosen, settings, _progress(), _options(option)))
        failures |= done.failures
        reports.append({"simulator": chosen, "simulated": done.neurons})
    lines = [f"{line['simulator']}: {line['simulated']:,} neurons simulated" for line in reports]
    _print({"run": name, "simulators": reports} if as_json else lines, as_json)
    _end(failures)


@app.command()
def score(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    simulator: Annotated[
        list[str] | None, typer.Option(help="Default: all that have simulated the run.")
    ] = None,
    split: Annotated[str, typer.Option(help="valid, or test for a final report.")] = "valid",
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the simulations of a run, and show the table.

    Example: neuron-explainer score tiny-token-lookup
    """
    from neuron_explainer import config as configuration
    from neuron_explainer.errors import DataError
    from neuron_explainer.runs import Run
    from neuron_explainer.score.stage import score as run_stage

    run = Run(workspace.find(folder), name)
    run.require()
    settings = configuration.build(ScoreSettings, {"split": split, "seed": seed}, "score")
    chosen = simulator or run.simulators()
    if not chosen:
        raise DataError(f"run '{name}' has no simulations: neuron-explainer simulate {name}")
    for each in chosen:
        run_stage(run, each, settings, _progress())
    _show_summary(run, settings, as_json)


@app.command()
def show(
    neuron: Annotated[str, typer.Argument(help="SUBJECT/SITE/INDEX, or SUBJECT/LAYER/INDEX.")],
    top: Annotated[int, typer.Option(help="How many top records.", min=0)] = 5,
    random: Annotated[int, typer.Option(help="How many random records.", min=0)] = 0,
    quantile: Annotated[bool, typer.Option(help="Also records of each quantile band.")] = False,
    plain: Annotated[bool, typer.Option(help="Without colour: [token 7].")] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one neuron: statistics, explanations with scores, and records as heat maps.

    Example: neuron-explainer show tiny/blocks.0.mlp.hook_post/12
    """
    from neuron_explainer import show as view
    from neuron_explainer.records import NeuronId

    here = workspace.find(folder)
    found = view.find(here, NeuronId.parse(neuron))
    if as_json:
        _print(view.as_json(found), True)
        return
    console = _console()
    choice = view.Choice(top, random, quantile)
    console.print(view.render(found, choice, plain or not console.color_system), soft_wrap=False)


@import_app.command("openai")
def import_openai(
    source: Annotated[Path, typer.Argument(help="A folder {layer}/{neuron}.json or .jsonl.")],
    name: Annotated[str, typer.Option(help="The subject's, or the run's, name here.")],
    neurons: NeuronsOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read OpenAI's record files (.json) or explanation files (.jsonl).

    Example: neuron-explainer import openai collated-activations --name gpt2-xl
    """
    from neuron_explainer.interchange import openai_import
    from neuron_explainer.runner import parse_neurons

    chosen = None if neurons is None else parse_neurons(neurons, sys.maxsize)
    done = openai_import.import_source(workspace.find(folder), source, name, chosen)
    report = {"name": name, "imported": done.imported, "failures": len(done.failures)}
    _print(report if as_json else [f"{name}: {done.imported:,} neurons imported"], as_json)
    _list_failures(done.failures)


@export_app.command("openai")
def export_openai(
    name: Annotated[str, typer.Argument(metavar="RUN")],
    to: Annotated[Path, typer.Option(help="A folder to write to.")],
    simulator: Annotated[
        str | None, typer.Option(help="Whose simulations; default: imported, else token-lookup.")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run as OpenAI's record and explanation files.

    Example: neuron-explainer export openai tiny-token-lookup --to published
    """
    from neuron_explainer.interchange import openai_export
    from neuron_explainer.runs import Run

    here = workspace.find(folder)
    run = Run(here, name)
    run.require()
    default = "imported" if "imported" in run.simulators() else "token-lookup"
    done = openai_export.export_run(here.root, name, simulator or default, to)
    _print({"written": done.written} if as_json else [f"{done.written:,} files in {to}"], as_json)


@app.callback(invoke_without_command=True)
def _options_of_all(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"neuron-explainer {__version__}")
        raise typer.Exit


def _subject(here: workspace.Workspace, name: str | None) -> str:
    known = sorted(path.parent.parent.name for path in here.data.glob("*/corpus/manifest.json"))
    if name is None and len(known) == 1:
        return known[0]
    if name is None or name not in known:
        what = "which subject?" if name is None else f"no subject '{name}' in {here.data};"
        raise ConfigError(f"{what} --subject takes one of: {', '.join(known) or 'none yet'}")
    return name


def _sites(
    here: workspace.Workspace, subject: str, layer: str | None, site: Sequence[str] | None
) -> list[str]:
    """Of the sites that were collected, those asked for, by default all."""
    from neuron_explainer.collect import sites
    from neuron_explainer.record_set import collected_sites

    known = collected_sites(here.data, subject)
    return sites.choose(known, layer, site or ()) if layer or site else list(known)


def _options(given: Sequence[str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--option {text}: write NAME=VALUE")
        options[key.replace("-", "_")] = int(value) if value.isdigit() else value
    return options


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 120  # a file has no width: nothing is cut
    return console


def _progress() -> Any:
    from neuron_explainer.terminal import TerminalProgress

    return TerminalProgress(_console(stderr=True))


def _wait(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def _print(report: Mapping[str, Any] | Sequence[str], as_json: bool) -> None:
    if as_json:
        import orjson

        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
        sys.stdout.write(orjson.dumps(report, option=options).decode())
        return
    lines = (
        [f"{key}: {value}" for key, value in report.items()]
        if isinstance(report, Mapping)
        else report
    )
    for line in lines:
        print(line)


def _show_summary(run: Any, settings: ScoreSettings, as_json: bool) -> None:
    from neuron_explainer.score import summary
    from neuron_explainer.terminal import score_tables

    rows = summary.rows_of(run, settings)
    if as_json:
        _print(
            {"run": run.name, "rows": [summary.as_json(row, settings.seed) for row in rows]}, True
        )
        return
    console = _console()
    console.print(f"run {run.name}: correlation of predicted and true activations")
    console.print(score_tables([summary.cells(row) for row in rows]))
    console.print()
    for line in summary.remarks(run, rows):
        console.print(line)


def _say_notices(notices: Sequence[str]) -> None:
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)


def _end(failures: Mapping[str, int]) -> None:
    """List failures by cause; exit 1 when there is one that is no property of the neuron."""
    for cause, count in failures.items():
        print(f"without result: {count:,} neurons, cause {cause}", file=sys.stderr)
    if failures.keys() - _EXPECTED_CAUSES:
        raise typer.Exit(1)


def _list_failures(failures: Sequence[Any]) -> None:
    for failure in failures[:20]:
        print(f"failed: {failure.neuron}: {failure.message}", file=sys.stderr)
    if len(failures) > 20:
        print(f"… and {len(failures) - 20} more", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line: exit code 0 done, 1 finished with failures, 2 cannot run."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print(
            "\nstopped; what was finished is kept: the same command goes on from there",
            file=sys.stderr,
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
