"""The page of the workspace: subjects, sites, runs, problems, in a browser."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import drawn, open_page, says, serving_files
from made_layer import KEY, layer, write_layer
from made_site import LEADING, MadeSite, write_site
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.enable_socket

LAYERS = 48


def _no_row(index: int) -> dict[str, Any]:
    del index
    return {"explanations": {}, "failures": {}, "tokens": []}


def _deep(number: int) -> MadeSite:
    scores = {"deep-run": {LEADING: [0.2 + number / 100, 0.4 + number / 100]}}
    return MadeSite(
        key=f"deep--{number}", subject="deep", name=f"blocks.{number}.mlp.hook_post", layer=number,
        statistics={"density": [0.1, 0.2]}, scores=scores,
        row=_no_row,
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sites = [layer(), *(_deep(number) for number in range(LAYERS))]
    problem = {"what": "explanations/half is not complete", "run": "neuron-explainer explain"}
    folder = write_site(tmp_path_factory.mktemp("home"), sites, problems=[problem])
    summary = folder / "api" / KEY / "summary.json"
    told = json.loads(summary.read_text("utf-8"))
    told["failures"] = [{"run": "first", "stage": "explain", "cause": "refused", "neurons": 1}]
    shuffled = told["scores"][0] | {"simulator": "shuffled", "null": True, "mean": 0.0123}
    told["scores"].append(shuffled)
    summary.write_text(json.dumps(told), "utf-8")
    with serving_files(folder) as address:
        yield address


def test_the_workspace_lists_subjects_sites_and_runs_with_size_and_scores(
    page: Page, base: str
) -> None:
    open_page(page, base)
    row = page.locator(".sites tr", has=page.get_by_role("link", name="first")).first
    expect(row.locator("td.strong")).to_have_text("0.499")
    text = " ".join(row.inner_text().split())
    collected = "layer 0 blocks.0.mlp.hook_post 40 neurons, 40 excerpts"
    assert text.startswith(f"{collected} first 0.499 [0.489, 0.509]")
    assert text.endswith("– 0.012 2.5 %")  # no random-only mean, the null's, the share undefined
    histogram = row.get_by_role("img")
    assert (
        histogram.get_attribute("aria-label") == "first, layer 0: 39 between −1 and 1, mean 0.499"
    )
    runs = page.locator(".runs tbody tr").first
    cells = runs.inner_text().split("\t")
    assert cells[:4] == ["first", "token-lookup", "none", "token-lookup"]
    assert cells[4:6] == ["1", "complete"]
    expect(runs.locator("[data-failures]")).to_have_text("refused (1)")


def test_problems_come_first_with_the_command_that_mends_them(page: Page, base: str) -> None:
    open_page(page, base)
    text = "explanations/half is not complete. Run neuron-explainer explain"
    assert text in says(page, ".problem")
    assert page.locator(".problem + .subject, .problem + *").count() == 1


def test_a_model_of_many_layers_has_a_bar_for_each_with_its_interval(page: Page, base: str) -> None:
    open_page(page, base, subject="deep")
    expect(page.locator(".layers a")).to_have_count(LAYERS)
    expect(page.locator(".layers .interval")).to_have_count(LAYERS)
    last = page.locator(".layers a").last
    label = "layer 47, blocks.47.mlp.hook_post: 0.770 [0.760, 0.780]"
    assert last.get_attribute("aria-label") == label
    last.focus()
    last.press("Enter")
    drawn(page)
    assert "page=layer" in page.url
    assert "site=deep--47" in page.url


def test_a_subject_can_be_looked_at_alone_and_back_leads_to_all(page: Page, base: str) -> None:
    open_page(page, base)
    page.get_by_role("link", name="deep", exact=True).click()
    expect(page.locator(".subject")).to_have_count(1)
    page.go_back()
    expect(page.locator(".subject")).to_have_count(2)


def test_an_empty_workspace_says_what_to_run(page: Page, tmp_path: Path) -> None:
    with serving_files(write_site(tmp_path / "site", [])) as base:
        open_page(page, base)
        assert "Nothing has been collected here yet" in says(page)
        expect(page.locator("code").first).to_have_text("neuron-explainer run")


def test_what_is_collected_but_not_explained_or_not_scored_says_what_to_run(
    page: Page, tmp_path: Path
) -> None:
    bare = replace(layer(), key="bare", subject="bare", scores={}, name="blocks.1.mlp.hook_post")
    with serving_files(write_site(tmp_path / "site", [layer(unscored=["third"]), bare])) as base:
        open_page(page, base)
        expect(page.get_by_text("not scored").first).to_be_visible()
        text = says(page)
    assert "No run explains these neurons yet. Run neuron-explainer explain --layer N" in text
    assert "none: run neuron-explainer simulate third" in text


def test_a_summary_that_cannot_be_read_leaves_the_rest_as_it_is(page: Page, tmp_path: Path) -> None:
    sites = [layer(), replace(layer(), key="whole", name="blocks.1.mlp.hook_post", layer=1)]
    folder = write_site(tmp_path / "site", sites)
    (folder / "api" / KEY / "summary.json").unlink()
    with serving_files(folder) as base:
        open_page(page, base)
        expect(page.get_by_text("This is not here.")).to_be_visible()
        expect(page.locator("td.strong").first).to_have_text("0.499")
        page.complaints.clear()  # type: ignore[attr-defined]  # the file is not found


def test_a_workspace_that_cannot_be_read_at_all_is_said(page: Page, tmp_path: Path) -> None:
    folder = write_layer(tmp_path / "site")
    (folder / "api" / "workspace.json").unlink()
    with serving_files(folder) as base:
        open_page(page, base)
        expect(page.get_by_role("alert")).to_contain_text("This cannot be shown")
        page.complaints.clear()  # type: ignore[attr-defined]  # the file is not found
