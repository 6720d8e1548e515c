"""The page with plots: self-contained, safe, and the same each time."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from neuron_explainer.compare.page import as_html
from neuron_explainer.compare.plots import plots
from neuron_explainer.compare.reliability import Reliability
from neuron_explainer.compare.report import as_markdown
from neuron_explainer.compare.results import Comparison, compare
from neuron_explainer.compare.statistics import Estimate, Resampling
from neuron_explainer.compare.table import Budget, Method, Selection, Table
from neuron_explainer.score.bootstrap import Interval

NEURONS = 90
HOSTILE = 'says <script>alert("1")</script> | and | more\nlines'


def method(name: str, lift: float, seed: int, tokens: float | None = None) -> Method:
    """A method with one score a neuron."""
    rng = np.random.default_rng(seed)
    values = np.random.default_rng(0).beta(2, 3, (NEURONS, 1)) + rng.normal(lift, 0.1, (NEURONS, 1))
    return Method(name, values, {}, 0, None, Budget(tokens, None))


@pytest.fixture(scope="module")
def table() -> Table:
    null = replace(method("shuffled, <b>", -0.4, 3))
    best = replace(method("<b>", 0.1, 2, 4000.0), selection=Selection(5, "valid"))
    return Table(
        metric="correlation_top_and_random",
        keys=np.arange(NEURONS),
        labels=[f"neuron {place}" for place in range(NEURONS)],
        layers=np.repeat(np.arange(9), 10),
        methods=(method("a", 0.0, 1, 100.0), best),
        nulls={"<b>": null},
        lookup=method("token lookup", 0.2, 4),
        facts={"split": "valid"},
    )


@pytest.fixture(scope="module")
def found(table: Table) -> Comparison:
    made = compare(table, Resampling(resamples=200))
    agreement = (Estimate(0.5, Interval(0.4, 0.6)), Estimate(0.7, None))
    return replace(
        made,
        reliability=(Reliability("a", 50, (2, 4), agreement, 10, 0.8),),
        disagreements=tuple(
            replace(one, explanations=(HOSTILE, None)) for one in made.disagreements
        ),
    )


def test_there_is_a_plot_of_everything_each_with_words_for_it(
    found: Comparison, table: Table
) -> None:
    made = plots(found, table)
    assert [plot.name for plot in made] == [
        *("distributions", "pairs", "layers", "cost", "reliability")
    ]
    for plot in made:
        ElementTree.fromstring(plot.svg)
        assert re.search(r"\d\.\d|\d%", plot.alternative)
        assert plot.caption


def test_plots_with_nothing_to_show_are_left_out(found: Comparison, table: Table) -> None:
    bare = replace(
        table,
        layers=None,
        methods=tuple(replace(one, budget=Budget(None, None)) for one in table.methods),
    )
    made = plots(compare(bare, Resampling(resamples=200)), bare)
    assert [plot.name for plot in made] == ["distributions", "pairs"]


def test_many_neurons_are_counted_in_cells_so_that_the_page_stays_small() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    methods = tuple(
        Method(name, rng.normal(0, 1, (n, 1)), {}, 0, None, Budget(None, None)) for name in "ab"
    )
    many = Table("r", np.arange(n), [str(key) for key in range(n)], None, methods)
    _, pairs = plots(compare(many, Resampling(resamples=100)), many)
    assert "Darker" in pairs.caption
    assert len(pairs.svg) < 400_000


def test_the_page_needs_nothing_else_and_lets_nothing_in(found: Comparison, table: Table) -> None:
    page = as_html(found, plots(found, table))
    assert "<script" not in page
    assert "says &lt;script&gt;" in page
    assert "<b>" not in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith("#") for link in links)
    assert page.count('role="img" aria-label="') == page.count("<svg") == 5
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_the_page_has_the_same_bytes_each_time(found: Comparison, table: Table) -> None:
    assert as_html(found, plots(found, table)) == as_html(found, plots(found, table))


def test_markdown_keeps_an_explanation_in_its_cell(found: Comparison) -> None:
    text = as_markdown(found)
    lines = [line for line in text.splitlines() if "alert" in line]
    assert lines
    assert all(
        line.startswith("| neuron") and "&lt;script>" in line and "\\| and \\|" in line
        for line in lines
    )


def test_a_selected_method_is_marked_wherever_it_is_named(found: Comparison) -> None:
    text = as_markdown(found)
    assert "&lt;b> † − a" in text
    assert "the best of several by these very scores" in text
