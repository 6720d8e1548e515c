"""A comparison as one HTML page that needs nothing else."""

from collections.abc import Sequence
from html import escape

from neuron_explainer.compare.blocks import Block, blocks, heading
from neuron_explainer.compare.drawing import Plot
from neuron_explainer.compare.report import title
from neuron_explainer.compare.results import Comparison

# which table a plot stands under; one without it comes at the end
_UNDER = {
    "Scores": ("distributions",),
    "Differences": ("pairs",),
    "Budget": ("cost",),
    "Reliability": ("reliability",),
    "By layer": ("layers",),
}
_KINDS = {
    **dict.fromkeys(("explanation", "what it means"), ' class="text"'),
    **dict.fromkeys(("cause", "first", "second"), ' class="name"'),
}

_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 68rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.35rem; font-weight: 600; line-height: 1.3; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 2.2rem 0 .5rem; }
p.about { color: #555; margin: .2rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; border-top: 1.5px solid #1a1a1a;
  border-bottom: 1.5px solid #1a1a1a; font-size: .82rem; font-variant-numeric: tabular-nums; }
th { font-weight: 600; border-bottom: 1px solid #1a1a1a; }
th, td { padding: .2rem .5rem; text-align: right; white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child, .text, .name { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 15rem; }
p.remark, figcaption { color: #555; font-size: .87rem; max-width: 46rem; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
"""


def as_html(found: Comparison, plots: Sequence[Plot]) -> str:
    """`report.html`: the tables of the other reports, with plots."""
    by_name = {plot.name: plot for plot in plots}
    parts = [f"<h1>{escape(title(found))}</h1>"]
    parts += [f'<p class="about">{escape(line)}</p>' for line in heading(found)]
    for block in blocks(found):
        parts.append(_section(block))
        names = [name for name in _UNDER.get(block.title, ()) if name in by_name]
        parts += [_figure(by_name.pop(name)) for name in names]
    parts += [_figure(plot) for plot in by_name.values()]
    if found.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
        parts.append(f"<h2>Notes</h2>\n<ul>{items}</ul>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title(found))}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _section(block: Block) -> str:
    kinds = [_KINDS.get(head, "") for head in block.head]
    head = "".join(
        f'<th scope="col"{kind}>{escape(cell)}</th>'
        for kind, cell in zip(kinds, block.head, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in block.rows
    )
    remark = f'\n<p class="remark">{escape(block.remark)}</p>' if block.remark else ""
    return (
        f'<h2>{escape(block.title)}</h2>\n<div class="wide"><table>\n<thead><tr>{head}</tr></thead>'
        f"\n<tbody>\n{rows}\n</tbody>\n</table></div>{remark}"
    )


def _figure(plot: Plot) -> str:
    image = plot.svg.replace("<svg", f'<svg role="img" aria-label="{escape(plot.alternative)}"', 1)
    return f"<figure>\n{image}\n<figcaption>{escape(plot.caption)}</figcaption>\n</figure>"
