"""The plots of a report: distributions, pairs, layers, cost, reliability."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuron_explainer.compare.blocks import marked
from neuron_explainer.compare.drawing import (
    DASHES,
    INKS,
    LIGHT,
    MARKERS,
    Plot,
    draw,
    error_ends,
    grid,
)
from neuron_explainer.compare.results import Comparison, Line, Pair
from neuron_explainer.compare.statistics import Floats
from neuron_explainer.compare.table import Method, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 6.3  # inches: the text width of a page
_CROWDED = 1500  # points, above which they are counted in cells
_PANELS = 6


def plots(found: Comparison, table: Table) -> list[Plot]:
    """Every plot that there is something to show in, in the report's order."""
    made = [_distributions(found, table)]
    if found.pairs:
        made.append(_scatter(found, table))
    if any(len(pair.layers) > 1 for pair in found.pairs):
        made.append(_layers(found))
    if any(line.budget.tokens for line in _methods(found)):
        made.append(_cost(found))
    if found.reliability:
        made.append(_reliability(found))
    return made


def _methods(found: Comparison) -> list[Line]:
    return [line for line in found.lines if line.role == "method"]


def _short(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _label(found: Comparison, name: str) -> str:
    """A short name, marked where the method was selected on these scores."""
    return marked(found, name).replace(name, _short(name))


def _named(metric: str) -> str:
    return metric.replace("_", " ")


def _distributions(found: Comparison, table: Table) -> Plot:
    by_name = {method.name: method for method in _all(table)}
    shown = [line for line in found.lines if line.mean is not None]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        values = [by_name[line.name].means for line in shown]
        axes.boxplot(
            [part[np.isfinite(part)] for part in values],
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            widths=0.55,
            patch_artist=True,
            boxprops={"facecolor": "#eeeeee", "linewidth": 0.7},
            medianprops={"color": "black", "linewidth": 1.2},
            whiskerprops={"linewidth": 0.7},
            capprops={"linewidth": 0.7},
        )
        for place, line in enumerate(shown, 1):
            if line.mean is not None:
                ends = error_ends(line.mean.value, line.mean.interval)
                mark = {"markersize": 4, "color": INKS[1], "capsize": 2, "linewidth": 1}
                axes.errorbar(line.mean.value, place, xerr=ends, fmt="D", **mark)  # type: ignore[arg-type]
        axes.set_yticks(range(1, len(shown) + 1), [_label(found, line.name) for line in shown])
        axes.invert_yaxis()
        axes.set_xlabel(_named(found.metric))
        grid(axes, "x")

    told = "; ".join(
        f"{line.name} has mean {line.mean.value:.3f} and median {line.median:.3f}"
        for line in shown
        if line.mean is not None and line.median is not None
    )
    return draw(
        "distributions",
        "Scores over neurons: box from quartile to quartile with the median, whiskers from the "
        "5th to the 95th percentile, diamond the mean with its interval.",
        f"Box plot of {_named(found.metric)}: {told}.",
        (_WIDTH, 0.7 + 0.32 * len(shown)),
        paint,
    )


def _all(table: Table) -> list[Method]:
    others = (table.constant, *table.nulls.values(), table.lookup)
    return [*table.methods, *(method for method in others if method is not None)]


def _scatter(found: Comparison, table: Table) -> Plot:
    by_name = {method.name: method.means for method in table.methods}
    shown = found.pairs[:_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    side = min(_WIDTH / columns, 3.2)

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes, pair in zip(panels, shown, strict=False):
            _panel(axes, by_name[pair.b], by_name[pair.a], pair)
        for axes in list(panels)[len(shown) :]:
            axes.set_visible(False)

    told = "; ".join(
        f"{pair.a} is above {pair.b} on {pair.contrast.better:.0%} of {pair.contrast.n:,} neurons"
        for pair in shown
        if pair.contrast is not None
    )
    left_out = len(found.pairs) - len(shown)
    return draw(
        "pairs",
        f"Each neuron's two scores ({_named(found.metric)}); above the line the method on the "
        "vertical axis is better."
        + (" Darker cells hold more neurons." if len(table.keys) > _CROWDED else "")
        + (f" {left_out} more pairs are in the tables." if left_out else ""),
        f"Scatter plots of paired scores: {told}.",
        (side * columns, side * rows),
        paint,
    )


def _panel(axes: "Axes", x: Floats, y: Floats, pair: Pair) -> None:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if not len(x):
        return
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.04 * (high - low) or 0.1
    low, high = low - margin, high + margin
    if len(x) > _CROWDED:
        axes.hexbin(
            *(x, y),
            gridsize=36,
            extent=(low, high, low, high),
            cmap="Greys",
            bins="log",
            mincnt=1,
            linewidths=0,
        )
    else:
        axes.plot(x, y, "o", markersize=2.5, alpha=0.55, color=INKS[0], markeredgewidth=0)
    axes.plot([low, high], [low, high], color=INKS[1], linewidth=0.8)
    axes.set_xlim(low, high)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)
    axes.set_yticks(axes.get_xticks())
    axes.set_ylim(low, high)
    axes.set_xlabel(_short(pair.b, 20), fontsize=8)
    axes.set_ylabel(_short(pair.a, 20), fontsize=8)


def _layers(found: Comparison) -> Plot:
    shown = found.pairs[: len(INKS)]
    layers = sorted({layer for pair in shown for layer in pair.layers})
    place = {layer: number for number, layer in enumerate(layers)}

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axhline(0, color="black", linewidth=0.7)
        for number, pair in enumerate(shown):
            shift = (number - (len(shown) - 1) / 2) * 0.45 / len(shown)
            for layer, (_, estimate) in pair.layers.items():
                axes.errorbar(
                    place[layer] + shift,
                    estimate.value,
                    yerr=error_ends(estimate.value, estimate.interval),
                    fmt=MARKERS[number],
                    color=INKS[number],
                    markersize=4,
                    linewidth=1,
                    label=f"{_short(pair.a)} − {_short(pair.b)}"
                    if layer == next(iter(pair.layers))
                    else None,
                )
        step = max(1, len(layers) // 16)
        axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        axes.set_xlabel("layer")
        axes.set_ylabel("mean difference")
        grid(axes, "y")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)

    told = "; ".join(
        f"{pair.a} less {pair.b}: "
        + ", ".join(f"{layer}: {value.value:+.3f}" for layer, (_, value) in pair.layers.items())
        for pair in shown
    )
    return draw(
        "layers",
        f"Mean difference in {_named(found.metric)} by layer, with intervals over the neurons of "
        "that layer.",
        f"Mean difference by layer. {told}.",
        (_WIDTH, 2.6 + 0.16 * (len(shown) // 2)),
        paint,
    )


def _cost(found: Comparison) -> Plot:
    shown = [
        (line, line.budget.tokens, line.mean)
        for line in _methods(found)
        if line.budget.tokens is not None and line.mean is not None
    ]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        front = sorted(
            (tokens, mean.value) for line, tokens, mean in shown if line.on_front_by_tokens
        )
        axes.step(*_columns(front), where="post", color=LIGHT, linewidth=1.5, zorder=0)
        for number, (line, tokens, mean) in enumerate(shown):
            axes.errorbar(
                *(tokens, mean.value),
                yerr=error_ends(mean.value, mean.interval),
                fmt=MARKERS[number % len(MARKERS)],
                color=INKS[number % len(INKS)],
                markersize=5,
                linewidth=1,
                fillstyle="full" if line.on_front_by_tokens else "none",
                label=_label(found, line.name),
            )
        axes.set_xscale("symlog", linthresh=100)
        axes.set_xlim(left=0)
        axes.set_xlabel("tokens a neuron, read and written")
        axes.set_ylabel(_named(found.metric))
        grid(axes, "y")
        figure.legend(loc="outside right upper")

    told = "; ".join(
        f"{line.name}: {tokens:,.0f} tokens, {m.value:.3f}" for line, tokens, m in shown
    )
    return draw(
        "cost",
        "Mean score against tokens a neuron. Filled: on the Pareto front, which the line follows.",
        f"Mean score against tokens a neuron. {told}.",
        (_WIDTH, 2.6),
        paint,
    )


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _reliability(found: Comparison) -> Plot:
    shown = found.reliability[: len(INKS)]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for number, one in enumerate(shown):
            values = [estimate.value for estimate in one.agreement]
            ends = [error_ends(e.value, e.interval) for e in one.agreement]
            shift = (number - (len(shown) - 1) / 2) * 0.12
            axes.errorbar(
                np.array(one.sequences) + shift,
                values,
                yerr=np.array(ends)[:, :, 0].T,
                marker=MARKERS[number],
                linestyle=DASHES[number],
                color=INKS[number],
                markersize=4,
                linewidth=1,
                elinewidth=0.6,
                label=_short(one.method),
            )
        axes.set_xlabel("sequences a score is taken from")
        axes.set_ylabel("rank correlation with\nas many others")
        axes.set_ylim(top=1)
        axes.set_xticks(sorted({size for one in shown for size in one.sequences}))
        grid(axes, "y")
        figure.legend(loc="outside right upper")

    told = "; ".join(
        f"{one.method}: "
        + ", ".join(
            f"{size} sequences {estimate.value:.2f}"
            for size, estimate in zip(one.sequences, one.agreement, strict=True)
        )
        for one in shown
    )
    return draw(
        "reliability",
        "Reliability: how far scores from disjoint sequences rank neurons alike.",
        f"Agreement of scores by number of sequences. {told}.",
        (_WIDTH, 2.6),
        paint,
    )
