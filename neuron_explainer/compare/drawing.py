"""How every plot looks, and how it becomes text that is the same each time."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from neuron_explainer.score.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# told apart in grey by marker and dash as well
INKS = ("#20435c", "#c4572e", "#6f8f3a", "#7d5ba6", "#a67c00", "#5a5a5a")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
LIGHT = "#d9d9d9"

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "neuron-explainer",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure as an SVG element, and what it shows in words."""

    name: str
    caption: str
    alternative: str
    svg: str


def draw(
    name: str,
    caption: str,
    alternative: str,
    size: tuple[float, float],
    paint: Callable[["Figure"], None],
) -> Plot:
    """A plot of `size` inches, whose bytes depend on what is painted alone."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size)
        paint(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return Plot(name, caption, alternative, _with_own_names(svg[svg.index("<svg") :], name))


def _with_own_names(svg: str, name: str) -> str:
    """The ids of one plot, apart from those of others on the same page."""
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)


def grid(axes: "Axes", axis: str) -> None:
    """Faint lines to read values off."""
    axes.grid(axis=axis, color=LIGHT, linewidth=0.5)  # type: ignore[arg-type]


def error_ends(value: float, interval: Interval | None) -> list[list[float]]:
    """How far an interval reaches below and above `value`, as matplotlib wants it."""
    if interval is None:
        return [[0.0], [0.0]]
    return [[max(0.0, value - interval.low)], [max(0.0, interval.high - value)]]
