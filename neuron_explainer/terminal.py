"""What people see in a terminal: progress, score tables, heat maps of neurons."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console, Group, RenderableType
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

from neuron_explainer.records import Explanation, NeuronRecord, Record, Statistics
from neuron_explainer.runner import Advance
from neuron_explainer.tokens import readable

_LOW, _HIGH = (255, 244, 224), (217, 72, 15)  # pale to strong orange: told apart in grey too


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """The rate of one bar."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


class TerminalProgress:
    """A bar with rate and time left on stderr; nothing at all when that is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def __call__(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        """See runner.Progress. A total of 0 is an unknown one."""
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        ]
        hidden = not self._console.is_terminal
        with Progress(*columns, console=self._console, disable=hidden, transient=True) as bars:
            task = bars.add_task(label, total=total or None, unit=unit)
            yield lambda amount: bars.advance(task, amount)


def score_table(rows: Sequence[Mapping[str, object]]) -> Table:
    """The summary of a run: one line a site and simulator, as `cli` made them."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("site", no_wrap=True)
    table.add_column("simulator", no_wrap=True)
    for name in ("n", "mean [95 %]", "median", ">.3", ">.5", ">.7", "undef.", "random only [95 %]"):
        table.add_column(name, justify="right", no_wrap=True)
    site = None
    for row in rows:
        if site not in {None, row["site"]}:
            table.add_section()
        shown = row["site"] if row["site"] != site else ""
        site = row["site"]
        cells = [str(shown), *(str(row[name]) for name in _COLUMNS)]
        table.add_row(*cells, style="dim" if row["null"] else None)
    return table


_COLUMNS = ("label", "n", "mean", "median", "0.3", "0.5", "0.7", "undefined", "random")


def neuron_view(
    neuron: NeuronRecord,
    explanations: Sequence[tuple[str, Explanation, Mapping[str, float | None]]],
    groups: Sequence[tuple[str, Sequence[Record]]],
    plain: bool,
) -> RenderableType:
    """One neuron: header, explanations with scores, and groups of records as heat maps."""
    parts: list[RenderableType] = [Text(str(neuron.neuron), style="bold")]
    if neuron.statistics is not None:
        parts.append(Text(_header(neuron.statistics), style="" if plain else "dim"))
    for run, explanation, scores in explanations:
        figures = ", ".join(
            f"{name} {'undefined' if value is None else f'{value:.2f}'}"
            for name, value in scores.items()
        )
        parts.append(Text(f"\n{run}" + (f"  ({figures})" if figures else ""), style="bold"))
        parts.append(Text(explanation.text))
    if not explanations:
        parts.append(Text("\nnot explained yet: neuron-explainer explain"))
    scale = max((record.maximum for record in neuron.of_kind("top")), default=0.0)
    for title, records in groups:
        parts.append(Text(f"\n{title}", style="bold"))
        parts.extend(heat_map(record, scale, plain) for record in records)
    return Group(*parts)


def _header(statistics: Statistics) -> str:
    moments = {
        "maximum": statistics.maximum,
        "mean": statistics.mean,
        "variance": statistics.variance,
        "skewness": statistics.skewness,
        "kurtosis": statistics.kurtosis,
    }
    figures = [f"{name} {value:.3g}" for name, value in moments.items() if value is not None]
    if statistics.density is not None:
        figures.insert(0, f"active on {statistics.density:.2%} of {statistics.tokens:,} tokens")
    return "  ".join(figures)


def heat_map(record: Record, scale: float, plain: bool) -> Text:
    """A record's tokens: background by activation, or `[token 7]` when `plain`.

    `scale` is the activation of full colour. Positions that are not scored are never coloured.
    """
    text = Text(f"{record.maximum:7.2f}  ", style="" if plain else "dim")
    for token, level in zip(record.tokens, _levels(record, scale), strict=True):
        shown = readable(token)
        if int(10 * level) == 0:
            text.append(shown)
        elif plain:
            text.append(f"[{shown} {int(10 * level)}]")
        else:
            text.append(shown, style=_colour(float(level)))
    return text


def _levels(record: Record, scale: float) -> NDArray[np.float64]:
    """Each token's share of `scale`, from 0 to 1; 0 where it is not scored."""
    if scale <= 0:
        return np.zeros(len(record.tokens))
    share = np.nan_to_num(record.activations.astype(np.float64)) / scale
    return np.where(record.scored, np.clip(share, 0.0, 1.0), 0.0)


def _colour(level: float) -> str:
    mixed = [round(low + (high - low) * level) for low, high in zip(_LOW, _HIGH, strict=True)]
    return f"{'white' if level > 0.75 else 'black'} on #{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"
