"""What people see in a terminal: progress, score tables, heat maps of neurons."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from neuron_explainer.records import Effects, Explanation, NeuronRecord, Record, Statistics
from neuron_explainer.runner import Advance
from neuron_explainer.tokens import quoted, readable

if TYPE_CHECKING:
    from neuron_explainer.compare.blocks import Block
    from neuron_explainer.score.checks import MetricCheck

_LOW, _HIGH = (255, 244, 224), (217, 72, 15)  # pale to strong orange: told apart in grey too


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """The rate of one bar."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


class _Bars(Progress):
    """Bars, and a line below them where there is something to say."""

    line = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn, from top to bottom."""
        yield from super().get_renderables()
        if self.line:
            yield Text(self.line)


class TerminalProgress:
    """A bar with rate and time left on stderr; nothing at all when that is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def __call__(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        """See runner.Progress. A total of 0 is an unknown one."""
        with self._bars() as bars:
            task = bars.add_task(label, total=total or None, unit=unit)
            yield lambda amount: bars.advance(task, amount)

    @contextmanager
    def with_figures(
        self, label: str, total: int, unit: str
    ) -> Iterator[Callable[[int, str], None]]:
        """See train.training.Display: the same, and below the bar what is said of it."""
        with self._bars() as bars:
            task = bars.add_task(label, total=total, unit=unit)

            def told(amount: int, figures: str) -> None:
                bars.line = figures
                bars.advance(task, amount)

            yield told

    def _bars(self) -> "_Bars":
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        ]
        hidden = not self._console.is_terminal
        return _Bars(*columns, console=self._console, disable=hidden, transient=True)


_COLUMNS = {
    "label": ("", 17),
    "n": ("n", 6),
    "mean": ("mean [95 %]", 20),
    "median": ("median", 6),
    "0.3": (">.3", 4),
    "0.5": (">.5", 4),
    "0.7": (">.7", 4),
    "undefined": ("undef", 5),
    "random": ("random only [95 %]", 20),
}

_VERDICT_COLUMNS = {
    "label": ("", 17),
    "n": ("n", 6),
    "balanced_accuracy": ("balanced accuracy [95 %]", 24),
    "auroc": ("AUROC [95 %]", 20),
    "undefined": ("undef", 5),
}


def score_tables(rows: Sequence[Mapping[str, object]]) -> RenderableType:
    """The summary of a run: a table a site, a line a simulator, as `score.summary` made them."""
    return _tables(rows, _COLUMNS)


def verdict_tables(rows: Sequence[Mapping[str, object]]) -> RenderableType:
    """The same of simulators that judge sequences."""
    return _tables(rows, _VERDICT_COLUMNS)


def check_table(checks: "Sequence[MetricCheck]") -> RenderableType:
    """How often each metric notices that concepts are missing, and that wrong ones were added."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for place, heading in enumerate(("", "neurons", "half missing", "as much added", "both")):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for check in checks:
        shares = (check.missing, check.added, check.both)
        cells = ("–" if share is None else f"{share:.1%}" for share in shares)
        table.add_row(check.metric.replace("_", " "), f"{check.neurons:,}", *cells)
    return table


def _tables(
    rows: Sequence[Mapping[str, object]], columns: Mapping[str, tuple[str, int]]
) -> RenderableType:
    parts: list[RenderableType] = []
    for site, lines in groupby(rows, lambda row: row["site"]):
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
        for name, (heading, width) in columns.items():
            justify: JustifyMethod = "left" if name == "label" else "right"
            table.add_column(heading, justify=justify, min_width=width, no_wrap=True)
        for line in lines:
            style = "dim" if line["null"] else None
            table.add_row(*(str(line[name]) for name in columns), style=style)
        parts += [Text(f"\n{site}", style="bold"), table]
    return Group(*parts)


def comparison_tables(parts: Sequence["Block"]) -> RenderableType:
    """The short columns of a comparison's tables."""
    shown: list[RenderableType] = []
    for part in parts:
        if not part.short:
            continue
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
        for column in part.short:
            numbers = column > 0 and part.title != "Selection"
            table.add_column(
                Text(part.head[column]), justify="right" if numbers else "left", overflow="fold"
            )
        for row in part.rows:
            table.add_row(*(Text(row[column]) for column in part.short))
        shown += [Text(f"\n{part.title}", style="bold"), table]
    return Group(*shown)


def neuron_view(
    neuron: NeuronRecord,
    explanations: Sequence[tuple[str, Explanation]],
    groups: Sequence[tuple[str, Sequence[Record]]],
    plain: bool,
) -> RenderableType:
    """One neuron: header, titled explanations, and groups of records as heat maps."""
    parts: list[RenderableType] = [Text(str(neuron.neuron), style="bold")]
    if neuron.statistics is not None:
        unit = "pairs" if any(record.pair for record in neuron.records) else "tokens"
        parts.append(Text(_header(neuron.statistics, unit), style="" if plain else "dim"))
    parts += [Text(line, style="" if plain else "dim") for line in _of_weights(neuron)]
    for title, explanation in explanations:
        parts += [Text(f"\n{title}", style="bold"), Text(readable(explanation.text.encode()))]
    if not explanations:
        parts.append(Text("\nnot explained yet: neuron-explainer explain"))
    scale = max((record.maximum for record in neuron.of_kind("top")), default=0.0)
    for title, records in groups:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", style="" if plain else "dim")
        grid.add_column(overflow="fold")
        for record in records:
            shown = heat_map if record.pair is None else pair_view
            grid.add_row(f"{record.maximum:.2f}", shown(record, scale, plain))
        parts += [Text(f"\n{title}", style="bold"), grid]
    return Group(*parts)


def _header(statistics: Statistics, unit: str) -> str:
    moments = {
        "maximum": statistics.maximum,
        "mean": statistics.mean,
        "variance": statistics.variance,
        "skewness": statistics.skewness,
        "kurtosis": statistics.kurtosis,
    }
    figures = [f"{name} {value:.3g}" for name, value in moments.items() if value is not None]
    if statistics.density is not None:
        figures.insert(0, f"active on {statistics.density:.2%} of {statistics.tokens:,} {unit}")
    return "  ".join(figures)


def _of_weights(neuron: NeuronRecord) -> Iterator[str]:
    """What the weights say: tokens that it reads and writes, and neurons like it."""
    for verb, effects in (
        ("excited by", neuron.excited_by),
        ("inhibited by", neuron.inhibited_by),
        ("promotes", neuron.promoted),
        ("suppresses", neuron.suppressed),
    ):
        if effects:
            yield f"{verb} {_effects(effects)}"
    for what, direction in (("writes", "output"), ("reads", "input")):
        alike = [other for other in neuron.nearest or () if other.direction == direction]
        if alike:
            shown = "  ".join(f"{other.neuron} {other.cosine:+.2f}" for other in alike)
            yield f"{what} like {shown}"


def _effects(effects: Effects) -> str:
    return "  ".join(f"{quoted(token)} {effect:+.2f}" for token, effect in effects)


def heat_map(record: Record, scale: float, plain: bool) -> Text:
    """A record's tokens: background by activation, or `[token 7]` when `plain`.

    `scale` is the activation of full colour. Positions that are not scored are never coloured.
    """
    text = Text()
    for token, level in zip(record.tokens, _levels(record, scale), strict=True):
        shown = readable(token)
        if int(10 * level) == 0:
            text.append(shown)
        elif plain:
            text.append(f"[{shown} {int(10 * level)}]")
        else:
            text.append(shown, style=_colour(float(level)))
    return text


def pair_view(record: Record, scale: float, plain: bool) -> Text:
    """A head's record: its query coloured by activation, or `[query:token 7]`; its key likewise."""
    assert record.pair is not None
    level = float(_levels(record, scale)[record.pair[0]])
    text = Text()
    for place, token in enumerate(record.tokens):
        names = [
            name for name, at in zip(("query", "key"), record.pair, strict=True) if at == place
        ]
        if not names:
            text.append(readable(token))
        elif plain:
            text.append(f"[{'+'.join(names)}:{readable(token)}")
            text.append(f" {int(10 * level)}]" if "query" in names else "]")
        else:
            style = _colour(level) if "query" in names else "bold underline"
            text.append(readable(token), style=style + (" underline" if len(names) > 1 else ""))
    return text


def _levels(record: Record, scale: float) -> NDArray[np.float64]:
    """Each token's share of `scale`, from 0 to 1; 0 where it is not scored."""
    if scale <= 0:
        return np.zeros(len(record.tokens))
    share = np.nan_to_num(record.activations.astype(np.float64)) / scale
    return np.where(record.scored, np.clip(share, 0.0, 1.0), 0.0)


def _colour(level: float) -> str:
    mixed = [round(low + (high - low) * level) for low, high in zip(_LOW, _HIGH, strict=True)]
    return (
        f"{'#ffffff' if level > 0.75 else '#000000'} on #{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"
    )
