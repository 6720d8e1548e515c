"""The embedded example: what is tracked is what comes out, and what comes out means something."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuron_explainer import pipeline, workspace
from neuron_explainer.config import ScoreSettings
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, NeuronId
from neuron_explainer.runs import Run
from neuron_explainer.score import summary
from neuron_explainer.score.statistics import Summary
from neuron_explainer.workspace import Workspace

RUN = "tiny-token-lookup"
SITE, LATENTS = "blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk"
VALID = ScoreSettings()


def _explanations(run: Run) -> Iterator[Explanation]:
    for site in run.sites():
        for _, file in run.folder.shards(f"{site}/explanations"):
            yield from run.explanations(site, file).values()


def _words(made: Explanation | str | None) -> str | None:
    """An explanation without its figures, whose last digit may differ between processors."""
    text = made.text if isinstance(made, Explanation) else made
    return None if text is None else re.sub(r"[\d.]+", "", text)


def test_the_example_comes_out_as_expected(tiny: Path, tmp_path: Path) -> None:
    before: dict[str, Any] = json.loads((tiny / "expected.json").read_text("utf-8"))
    made = workspace.init(tmp_path)
    pipeline.run_all(made, pipeline.example_settings())
    run = Run(made, RUN)
    for row in summary.rows_of(run, VALID):
        for choice, figures in row.correlation.items():
            mean = before["scores"][row.site][row.label][choice]
            assert figures.mean_undefined_as_zero == pytest.approx(mean, abs=2e-3)
    now = {
        neuron: run.explanation(NeuronId.parse(f"tiny/{neuron}"))
        for neuron in before["explanations"]
    }
    for neuron, text in before["explanations"].items():
        assert _words(now[neuron]) == _words(text)


def test_what_ships_with_the_example_says_how_well_it_was_trained(tiny: Path) -> None:
    metrics: dict[str, Any] = json.loads((tiny / "metrics.json").read_text("utf-8"))
    assert metrics
    made_here = {"corpus", *(path.name for path in tiny.glob("blocks.*"))}
    tracked = (path for path in tiny.rglob("*") if path.relative_to(tiny).parts[0] not in made_here)
    assert sum(path.stat().st_size for path in tracked if path.is_file()) < 5 << 20


@pytest.fixture(scope="module")
def summaries(small_workspace: Workspace) -> dict[tuple[str, str], Summary]:
    """The correlation on random records by site and label."""
    rows = summary.rows_of(Run(small_workspace, RUN), VALID)
    return {(row.site, row.label): row.correlation["random_only"] for row in rows}


def _mean(made: Summary) -> float:
    assert made.mean_undefined_as_zero is not None
    return made.mean_undefined_as_zero


@pytest.mark.parametrize("site", [SITE, LATENTS])
def test_explanations_of_the_example_beat_both_nulls_by_far(
    summaries: dict[tuple[str, str], Summary], site: str
) -> None:
    explained = _mean(summaries[site, "token-lookup"])
    assert explained > 0.2
    assert abs(_mean(summaries[site, "shuffled"])) < 0.1
    assert _mean(summaries[site, "constant"]) == 0.0


def test_every_neuron_has_an_explanation_or_a_reason(small_workspace: Workspace) -> None:
    run = Run(small_workspace, RUN)
    for site in (SITE, LATENTS):
        ((_, explained),) = run.folder.shards(f"{site}/explanations")
        ((_, failed),) = run.folder.shards(f"{site}/failures")
        neurons = [
            *run.folder.read(explained, ["neuron"])["neuron"].to_pylist(),
            *run.folder.read(failed, ["neuron"])["neuron"].to_pylist(),
        ]
        assert sorted(neurons) == list(range(64))


def test_explanations_name_tokens_that_are_in_the_neurons_own_records(
    small_workspace: Workspace,
) -> None:
    records = RecordSet(small_workspace.data, "tiny", SITE)
    for made in _explanations(Run(small_workspace, RUN)):
        if made.neuron.site != SITE:
            continue
        assert made.table is not None
        train = records.neuron(made.neuron.index).split("train")
        seen = {token for record in train for token in record.tokens}
        assert seen & set(made.table.tokens), str(made.neuron)


def test_a_run_that_has_finished_says_so_and_lists_what_is_there(
    small_workspace: Workspace,
) -> None:
    for run in (Run(small_workspace, RUN), Run(small_workspace, f"{RUN}-all")):
        manifest = run.folder.manifest()
        assert manifest["complete"] is True
        assert all((run.folder.path / file).is_file() for file in manifest["shards"])
