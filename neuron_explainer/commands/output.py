"""What the command line says: results on stdout, everything else on stderr.

Together with `cli.py` the only place that prints and exits.
"""

import asyncio
import shlex
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from neuron_explainer.config import PASSING, ModelSettings, ScoreSettings

if TYPE_CHECKING:
    from rich.console import Console

    from neuron_explainer.compare.results import Comparison
    from neuron_explainer.llm.batch_round import Round
    from neuron_explainer.llm.compose import Spending
    from neuron_explainer.llm.forecast import Expected
    from neuron_explainer.records import Failure
    from neuron_explainer.runs import Run
    from neuron_explainer.score.checks import MetricCheck
    from neuron_explainer.terminal import TerminalProgress

Result = TypeVar("Result")

_OF_ROUNDS = ("--read-batch", "--write-batch")

_FREE = ("local/", "scripted/")  # no forecast goes before what costs nothing and may load weights

# what explaining does not need to say anything about: these neurons have nothing to explain
_EXPECTED_CAUSES = {"never-active"}

_ADVICE = {
    "context-overflow": "prompts are longer than the model reads: another model, no examples "
    "(--option few_shot=0) or shorter excerpts (collect --excerpt-tokens) may help",
    "no-valid-number": "no number was likely where one was asked for: the model may be too weak",
}


def console(stderr: bool = False) -> "Console":
    """A terminal to write to; what goes to a file is not cut to a screen's width."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = 120
    return made


def progress() -> "TerminalProgress":
    """Bars on stderr."""
    from neuron_explainer.terminal import TerminalProgress

    return TerminalProgress(console(stderr=True))


def wait(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a stage: the one event loop of a command."""
    return asyncio.run(work)


def show(report: Mapping[str, Any] | Sequence[str], as_json: bool) -> None:
    """Print a report as JSON, or as lines."""
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


def figure(value: float | None) -> str:
    """A number in a sentence, to three digits."""
    return "undefined" if value is None else f"{value:.3g}"


def show_plans(plans: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print what a stage would do, and what that is expected to take."""
    if as_json:
        show({"plans": list(plans)}, True)
        return
    for plan in plans:
        print(", ".join(f"{key}: {value}" for key, value in plan.items() if key != "forecast"))
        if expected := plan.get("forecast"):
            print(_forecast(expected))


def show_summary(
    run: "Run",
    settings: ScoreSettings,
    as_json: bool,
    checks: "Sequence[MetricCheck] | None" = None,
) -> None:
    """Print the table of a run's scores, and that of how often each metric passes its checks."""
    from neuron_explainer.score import summary
    from neuron_explainer.score.classification import CHANCE
    from neuron_explainer.terminal import check_table, score_tables, verdict_tables

    rows = summary.rows_of(run, settings)
    if as_json:
        made: dict[str, Any] = {"run": run.name}
        made["rows"] = [summary.as_json(row, settings.seed) for row in rows]
        made["per_neuron"] = run.taken()
        show(made if checks is None else made | {"checks": checks}, True)
        return
    terminal = console()
    if correlated := [summary.cells(row) for row in rows if row.correlation]:
        terminal.print(f"run {run.name}: correlation of predicted and true activations")
        terminal.print(score_tables(correlated))
        terminal.print()
    if judged := [summary.verdict_cells(row) for row in rows if row.verdicts]:
        terminal.print(f"run {run.name}: verdicts about sequences, chance {CHANCE}")
        terminal.print(verdict_tables(judged))
        terminal.print()
    for line in summary.remarks(run, rows):
        terminal.print(line)
    for name, means in run.taken().items():
        terminal.print(_taken(name, means))
    if checks is not None and not checks:
        terminal.print("\nno neuron has a token table that could be made worse: nothing to check")
    elif checks is not None:
        terminal.print("\nneurons for which a metric falls when the token table is made worse")
        terminal.print(check_table(checks))


def _taken(name: str, means: Mapping[str, float | None]) -> str:
    """What a neuron took of a language model, as a line."""
    cost = "" if means["cost"] is None else f", ${means['cost']:.6f}"
    return f"{name}: {means['tokens']:,.0f} tokens{cost} a neuron"


def show_comparison(found: "Comparison", kept: Path | None, as_json: bool) -> None:
    """Print what a comparison found, and where its report is."""
    from neuron_explainer.compare import report
    from neuron_explainer.compare.blocks import blocks, heading
    from neuron_explainer.terminal import comparison_tables

    if as_json:
        show(report.as_mapping(found) | {"folder": None if kept is None else str(kept)}, True)
        return
    terminal = console()
    for line in [report.title(found), *heading(found)]:
        terminal.print(line)
    terminal.print(comparison_tables(blocks(found)))
    terminal.print()
    for note in found.notes:
        terminal.print(note)
    if kept is not None:
        terminal.print(f"report: {kept / 'report.html'}")


def foreseen(
    model: ModelSettings, plan: Callable[[], Coroutine[Any, Any, Mapping[str, Any]]]
) -> "Expected | None":
    """What a stage that is paid for will take, looked at before it begins."""
    if model.llm is None or model.in_files or model.llm.startswith(_FREE):
        return None
    found: Expected | None = wait(plan()).get("forecast")
    return found


def spending_of(
    spending: "Spending | None", forecast: "Expected | None" = None
) -> dict[str, object]:
    """What a language model took, for a report; nothing where there was no model."""
    return {} if spending is None else {"spending": spending, "forecast": forecast}


def spent(spending: "Spending | None", forecast: "Expected | None" = None) -> list[str]:
    """What a language model took, as a line; none where there was no model."""
    if spending is None:
        return []
    usage = spending.usage
    cost = "no price known" if spending.cost is None else f"${spending.cost:.4f}"
    line = (
        f"language model: {usage.requests:,} requests, {usage.prompt_tokens:,} tokens read, "
        f"{usage.completion_tokens:,} written, {spending.cache_hits:,} from the cache, {cost}"
    )
    return [line] if forecast is None else [_forecast(forecast), line]


def _forecast(expected: "Expected") -> str:
    """A forecast as a line; one that was measured on other neurons is no upper limit."""
    most = "about" if expected.measured else "at most"
    cost = "no price known" if expected.cost is None else f"{most} ${expected.cost:.4f}"
    return (
        f"forecast: {expected.requests:,} requests, about {expected.prompt_tokens:,} tokens read, "
        f"{most} {expected.completion_tokens:,} written, {cost}"
    )


def round_of(done: "Round | None", waiting: int) -> dict[str, object]:
    """A round of batch files, for a report; nothing where there was none."""
    if done is None:
        return {}
    return {
        "waiting": waiting,
        "batch": {
            "answered": done.answered,
            "unanswered": done.unanswered,
            "folder": None if done.write is None else str(done.write),
            "files": list(done.files),
        },
    }


def next_round(done: "Round | None", waiting: int, model: str | None) -> list[str]:
    """A round of batch files as lines, with the commands that come next."""
    if done is None:
        return []
    lines = []
    if done.read is not None:
        lines.append(f"replies: {done.answered:,} requests answered from {done.read}")
    if done.unanswered:
        lines.append(
            f"{done.unanswered:,} requests are not answered yet, for {waiting:,} neurons in shards "
            "that are left for a next round"
        )
    if done.write is not None and not done.files:
        lines.append("no request is left to write" + ("" if waiting == 0 else _without_write()))
    if done.write is not None and done.files:
        first = done.write / done.files[0]
        replies = done.write / done.files[0].replace("requests", "replies")
        lines += [
            f"written: {done.unanswered:,} requests in {len(done.files)} files in {done.write}",
            "next: have each file worked off, for example "
            f"vllm run-batch -i {first} -o {replies} --model {(model or '').partition('/')[2]}",
            f"then: {_again(done.write)}",
        ]
    return lines


def _without_write() -> str:
    return f": every answer is in the cache; next: {_command({})}"


def _again(folder: Path) -> str:
    """This command, to read what answers the requests in `folder` and write what is still open."""
    name, dash, number = folder.name.rpartition("-")
    counted = dash and number.isdecimal()
    following = f"{name}-{int(number) + 1}" if counted else f"{folder.name}-2"
    written = folder.with_name(following)
    return _command({"--read-batch": str(folder), "--write-batch": str(written)})


def _command(options: Mapping[str, str]) -> str:
    """The command that is running, with these options in place of those on batch files."""
    kept: list[str] = []
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument in _OF_ROUNDS:
            next(arguments, None)
        elif not argument.startswith(tuple(f"{option}=" for option in _OF_ROUNDS)):
            kept.append(argument)
    added = [part for option in options.items() for part in option]
    return shlex.join(["neuron-explainer", *kept, *added])


def say_notices(notices: Sequence[str]) -> None:
    """What the user should know although all went well."""
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)


def show_address(url: str, as_json: bool) -> None:
    """Print where a server answers, at once: whoever started it may be waiting for the line."""
    show({"url": url} if as_json else [f"{url}  (Ctrl-C stops it)"], as_json)
    sys.stdout.flush()


def say_stopped() -> None:
    """Say that a server has been stopped, on a line of its own."""
    print("\nstopped", file=sys.stderr)


def end(failures: Mapping[str, int]) -> None:
    """List failures by cause; exit 1 when there is one that is no property of the neuron."""
    for cause, count in failures.items():
        print(f"without result: {count:,} neurons, cause {cause}", file=sys.stderr)
        if cause in _ADVICE:
            print(_ADVICE[cause], file=sys.stderr)
    if failures.keys() & set(PASSING):
        print("ask them again: the same command with --retry-failures", file=sys.stderr)
    if failures.keys() - _EXPECTED_CAUSES:
        raise typer.Exit(1)


def list_failures(failures: Sequence["Failure"]) -> None:
    """Name the first of them; exit 1 when there is one."""
    for failure in failures[:20]:
        print(f"failed: {failure.neuron}: {failure.message}", file=sys.stderr)
    if len(failures) > 20:
        print(f"… and {len(failures) - 20} more", file=sys.stderr)
    if failures:
        raise typer.Exit(1)
