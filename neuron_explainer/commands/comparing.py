"""The command that compares explainers: `compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.errors import ConfigError

if TYPE_CHECKING:
    from neuron_explainer.compare.results import Comparison

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN_A RUN_B …",
        help="RUN or RUN/SIMULATOR, the seeds of one method joined by commas; the first is what "
        "the others are held against. With --csv: methods, default all. One name in "
        ".csv is a table.",
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A table of method, neuron and value instead of runs."),
]
MetricOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A column; default: correlation_top_and_random if there."),
]
OneSimulator = Annotated[
    str | None,
    typer.Option("--simulator", metavar="NAME", help="Default: the only one all runs have."),
]
AllowOption = Annotated[
    str | None, typer.Option(metavar="REASON", help="Compare runs that differ, and keep why.")
]
AllPairs = Annotated[bool, typer.Option("--all-pairs", help="Not only against the first.")]
NullOption = Annotated[
    str | None, typer.Option(metavar="METHOD", help="With --csv: knows nothing of the neuron.")
]
LookupOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The run or method of the token lookup; default: the largest table."
    ),
]
SelectedOption = Annotated[
    list[str] | None,
    typer.Option(metavar="METHOD=K", help="With --csv: the best of K by these values; repeatable."),
]
ResamplesOption = Annotated[int, typer.Option(metavar="N", help="Resamples.", min=100)]
PlanOption = Annotated[
    bool, typer.Option("--plan", help="Say how many neurons it takes, from two runs or --sd.")
]
SpreadOption = Annotated[
    float | None,
    typer.Option("--sd", metavar="X", help="With --plan: spread of the paired differences."),
]
ToOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Default: scoring/comparisons/A-vs-B.")
]


def compare(
    names: Names = None,
    csv: CsvOption = None,
    metric: MetricOption = None,
    split: option.SplitOption = "valid",
    simulator: OneSimulator = None,
    allow: AllowOption = None,
    all_pairs: AllPairs = False,
    null: NullOption = None,
    lookup: LookupOption = None,
    selected: SelectedOption = None,
    resamples: ResamplesOption = 10_000,
    seed: option.SeedOption = 0,
    plan: PlanOption = False,
    spread: SpreadOption = None,
    to: ToOption = None,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Compare explainers neuron by neuron, with intervals, nulls and a report.

    Example: neuron-explainer compare tiny-token-lookup lookup-50
    """
    from neuron_explainer.compare import stage
    from neuron_explainer.compare.csv_table import Roles
    from neuron_explainer.compare.run_table import Choice
    from neuron_explainer.compare.statistics import Resampling

    if plan and spread is not None:
        _show_plan_of_spread(spread, as_json)
        return
    if csv is None and names and len(names) == 1 and names[0].endswith(".csv"):
        csv, names = Path(names[0]), None
    how = Resampling(seed, resamples)
    here = None if csv is not None and (plan or to) else workspace.find(folder)
    if csv is not None:
        roles = Roles(names or (), _selected(selected), null, lookup, metric)
        found, pairs = stage.compare_csv(csv, roles, how, all_pairs)
    else:
        if selected or null:
            raise ConfigError("--selected and --null belong to --csv: a run's manifest has them")
        if len(names or ()) < 2:
            raise ConfigError("compare needs two runs or more, or --csv FILE")
        choice = Choice(split, simulator, metric, lookup, allow)
        assert here is not None
        found, pairs = stage.compare_runs(here, names or (), choice, how, all_pairs)
    if plan:
        _show_plans(found, as_json)
        return
    kept = to or stage.folder_of(workspace.find(folder), found)
    stage.write(kept, found, pairs)
    output.show_comparison(found, kept, as_json)


def _selected(given: Sequence[str] | None) -> dict[str, int]:
    """`METHOD=K` of each. Raises ConfigError."""
    found = {}
    for text in given or ():
        name, equals, number = text.rpartition("=")
        if not equals or not number.isdecimal() or int(number) < 1:
            raise ConfigError(f"--selected {text}: write METHOD=K, for example best-of-5=5")
        found[name] = int(number)
    return found


def _show_plan_of_spread(spread: float, as_json: bool) -> None:
    from neuron_explainer.compare.power import plan

    if not 0 < spread < float("inf"):
        raise ConfigError(f"--sd {spread:g}: the spread of differences must be above 0")
    made = plan(spread)
    if as_json:
        output.show({"plans": [{"needed": made.needed, "spread": made.spread}]}, True)
        return
    output.show([f"spread {spread:g}: {_needed(made.needed)}"], False)


def _show_plans(found: "Comparison", as_json: bool) -> None:
    plans = [(pair, pair.plan) for pair in found.pairs if pair.plan is not None]
    if as_json:
        lines = [{"a": pair.a, "b": pair.b, "plan": made} for pair, made in plans]
        output.show({"plans": lines}, True)
        return
    output.show(
        [
            f"{pair.a} − {pair.b}: spread {made.spread:.3f} on {made.pilot:,} neurons, planned "
            f"with {made.planned_spread:.3f}: {_needed(made.needed)}"
            for pair, made in plans
        ]
        or ["nothing to plan from: the runs do not differ on any neuron"],
        False,
    )


def _needed(needed: dict[float, int]) -> str:
    each = ", ".join(f"{number:,} for ±{size:g}" for size, number in needed.items())
    return f"neurons for 80 % power: {each}"
