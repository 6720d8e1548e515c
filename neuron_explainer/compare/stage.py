"""The compare stage: score tables in, a folder with the report out."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from neuron_explainer.compare import csv_table, report, run_table
from neuron_explainer.compare.page import as_html
from neuron_explainer.compare.plots import plots
from neuron_explainer.compare.reliability import Reliability, reliability_of
from neuron_explainer.compare.results import Comparison, compare
from neuron_explainer.compare.run_table import Choice, Runs
from neuron_explainer.compare.sources import SITE_BITS
from neuron_explainer.compare.statistics import Resampling
from neuron_explainer.compare.table import Table
from neuron_explainer.records import NeuronId
from neuron_explainer.store import replace_file
from neuron_explainer.workspace import Workspace

FOLDER = "comparisons"
_LONGEST_NAME = 120


def compare_runs(
    workspace: Workspace,
    names: Sequence[str],
    choice: Choice,
    how: Resampling,
    all_pairs: bool = False,
) -> tuple[Comparison, Table]:
    """Compare runs, the first being what the others are held against. Raises UserError."""
    runs = run_table.read(workspace, names, choice)
    found = compare(runs.table, how, all_pairs)
    reliability = _reliability(runs, how.seed)
    return replace(_explained(found, runs), reliability=reliability), runs.table


def compare_csv(
    path: Path, roles: csv_table.Roles, how: Resampling, all_pairs: bool = False
) -> tuple[Comparison, Table]:
    """Compare the methods of a table. Raises UserError."""
    table = csv_table.read(path, roles)
    return compare(table, how, all_pairs), table


def write(folder: Path, found: Comparison, table: Table) -> None:
    """Write the report's files into `folder`, in place of those that are there."""
    page = as_html(found, plots(found, table))
    replace_file(folder / "report.json", report.as_json(found))
    replace_file(folder / "report.md", report.as_markdown(found).encode())
    replace_file(folder / "report.html", page.encode())


def folder_of(workspace: Workspace, found: Comparison) -> Path:
    """Where a comparison is kept: named by what was compared.

    That of a table whose methods are runs is also named by its column: the runs' own scores are
    compared in the other folder.
    """
    names = [line.name for line in found.lines if line.role == "method"]
    name = "-vs-".join(names).replace("/", ".").replace(",", "+")
    runs = {path.parent.name for path in workspace.explanations.glob("*/manifest.json")}
    if "table" in found.facts and runs.issuperset(names):
        name += f"-by-{found.metric}".replace("/", ".")
    if len(name) > _LONGEST_NAME or name.startswith("."):
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name.strip('.')[:_LONGEST_NAME]}-{digest}"
    return workspace.scoring / FOLDER / name


def _reliability(runs: Runs, seed: int) -> tuple[Reliability, ...]:
    """Each method's, of its first seed; nothing where the metric is no correlation."""
    metric = runs.table.metric
    if not metric.startswith("correlation"):
        return ()
    kinds = ("random",) if metric.endswith("random_only") else ("top", "random")
    found = (
        reliability_of(method.name, sources[0], runs.sites, runs.table.keys, kinds, seed)
        for method, sources in zip(runs.table.methods, runs.sources, strict=True)
    )
    return tuple(one for one in found if one is not None)


def _explained(found: Comparison, runs: Runs) -> Comparison:
    """With the explanations of the neurons on which two runs disagree; of seeds the first."""
    by_name = {
        method.name: sources[0]
        for method, sources in zip(runs.table.methods, runs.sources, strict=True)
    }

    def text(name: str, place: int) -> str | None:
        key = int(runs.table.keys[place])
        source = by_name[name]
        site, index = runs.sites[key >> SITE_BITS], key & ((1 << SITE_BITS) - 1)
        explanation = source.run.explanation(NeuronId(source.run.subject, site, index))
        return explanation.text if explanation else None

    return replace(
        found,
        disagreements=tuple(
            replace(one, explanations=(text(one.a, one.place), text(one.b, one.place)))
            for one in found.disagreements
        ),
    )
