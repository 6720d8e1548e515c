"""What the table of a site's neurons says of each: explanations, failures, strongest tokens."""

from collections.abc import Sequence
from typing import Any

from neuron_explainer.view.contract import LONGEST_TEXT, Resource, reading
from neuron_explainer.view.entries import RunEntry, SiteEntry
from neuron_explainer.view.strongest import strongest_of


def rows_resource(site: SiteEntry, neurons: Sequence[int]) -> Resource:
    """rows/FOLDER/BLOCK.json for the neurons of one block."""
    with reading(site.folder.rebuild):
        tokens = strongest_of(site, neurons)
    texts: dict[int, dict[str, str]] = {neuron: {} for neuron in neurons}
    causes: dict[int, dict[str, str]] = {neuron: {} for neuron in neurons}
    for run in site.runs:
        with reading(run.folder.rebuild):
            for neuron, text in _column(run, site, "explanations", "text", neurons):
                texts[neuron][run.key] = cut(text)
            for neuron, cause in _column(run, site, "failures", "cause", neurons):
                causes[neuron][run.key] = cause
    rows: list[dict[str, Any]] = [
        {
            "neuron": neuron,
            "explanations": texts[neuron],
            "failures": causes[neuron],
            "tokens": tokens.get(neuron, []),
        }
        for neuron in neurons
    ]
    return {"rows": rows}


def cut(text: str) -> str:
    """A text of at most so many characters, with an ellipsis where more were."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1].rstrip() + "…"


def _column(
    run: RunEntry, site: SiteEntry, table: str, column: str, neurons: Sequence[int]
) -> list[tuple[int, str]]:
    found = run.folder.read_neurons(f"{site.name}/{table}", neurons, ["neuron", column])
    if found is None:
        return []
    pairs = zip(found["neuron"].to_pylist(), found[column].to_pylist(), strict=True)
    return [pair for pair in pairs if pair[1] is not None]
