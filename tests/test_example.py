"""The embedded example: what is tracked is what comes out, and what comes out means something."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuron_explainer import pipeline, workspace
from neuron_explainer.config import ScoreSettings
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation
from neuron_explainer.runs import Run
from neuron_explainer.score import summary
from neuron_explainer.score.stage import SiteScores, read_scores
from neuron_explainer.score.statistics import Summary
from neuron_explainer.workspace import Workspace

RUN = "tiny-token-lookup"
SITE, LATENTS = "blocks.0.mlp.hook_post", "blocks.2.hook_resid_post/topk"
VALID = ScoreSettings()
TRACKED = Workspace(workspace.shipped())


def _explanations(run: Run) -> Iterator[Explanation]:
    for site in run.sites():
        for _, file in run.folder.shards(f"{site}/explanations"):
            yield from run.explanations(site, file).values()


def _scores(run: Run, simulator: str) -> Iterator[SiteScores]:
    return (read_scores(run.simulations(simulator), site, VALID) for site in run.sites())


@pytest.mark.skipif(not Run(TRACKED, RUN).folder.exists, reason="the example is not tracked here")
def test_the_example_comes_out_as_it_is_tracked(tmp_path: Path) -> None:
    made = workspace.init(tmp_path)
    pipeline.run_all(made, pipeline.example_settings())
    fresh, tracked = Run(made, RUN), Run(TRACKED, RUN)
    assert fresh.sites() == tracked.sites()
    assert {each.neuron: each.text for each in _explanations(fresh)} == {
        each.neuron: each.text for each in _explanations(tracked)
    }
    assert set(tracked.simulators()) <= set(fresh.simulators())
    for simulator in tracked.simulators():
        pairs = zip(_scores(fresh, simulator), _scores(tracked, simulator), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one.neurons, other.neurons)
            assert one.scores.keys() == other.scores.keys()
            for name, made_now in one.scores.items():
                before = other.scores[name]
                assert made_now.reasons == before.reasons
                np.testing.assert_allclose(made_now.values, before.values, rtol=0, atol=1e-3)


def test_what_ships_with_the_example_says_how_well_it_was_trained(tiny: Path) -> None:
    metrics: dict[str, Any] = json.loads((tiny / "metrics.json").read_text("utf-8"))
    assert metrics
    assert sum(path.stat().st_size for path in tiny.rglob("*") if path.is_file()) < 5 << 20


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
