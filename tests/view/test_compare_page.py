"""The page that compares two runs, in a browser."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from browser import drawn, open_page, says, serving_files
from made_layer import FAILED, KEY, ROWS, UNSCORED, layer, score, write_layer
from made_site import LEADING, column_key, write_site
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.enable_socket

BOTH = [index for index in range(ROWS) if index != UNSCORED]
A, B = ({index: score(index, shift) or 0.0 for index in BOTH} for shift in (0.0, 0.2))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_files(write_layer(tmp_path_factory.mktemp("compare"))) as address:
        yield address


def listed(page: Page) -> list[int]:
    links = page.locator(".table-row [data-column=neuron]")
    return [int(text) for text in links.all_inner_texts()]


def state(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlparse(page.url).query).items()}


def test_the_paired_difference_is_that_of_the_neurons_both_scored(page: Page, base: str) -> None:
    open_page(page, base, page="compare", a="first", b="second")
    apart = np.array([B[index] - A[index] for index in BOTH])
    error = 1.96 * apart.std(ddof=1) / np.sqrt(len(apart))
    low, high = apart.mean() - error, apart.mean() + error
    text = says(page, ".paired").replace("−", "-")
    assert f"Mean difference, B - A {apart.mean():+.3f} " in text.replace("+-", "-")
    assert f"95 % interval [{low:.3f}, {high:.3f}], n = {len(BOTH)}" in text
    higher, lower = int((apart > 0).sum()), int((apart < 0).sum())
    equal = len(BOTH) - higher - lower
    assert f"B higher in {higher}, A in {lower}, equal in {equal} neurons" in text
    assert "neuron-explainer compare first second" in text


def test_neurons_are_listed_by_the_size_of_their_difference_and_both_directions_can_be_chosen(
    page: Page, base: str
) -> None:
    open_page(page, base, page="compare", a="first", b="second")
    size = {index: abs(B[index] - A[index]) for index in BOTH}
    shown = listed(page)
    assert [size[index] for index in shown] == sorted(size.values(), reverse=True)[: len(shown)]
    expect(page.locator(".count")).to_have_text(f"{len(BOTH)} of {ROWS} neurons")
    head = page.get_by_role("button", name="B − A", exact=True)
    head.click()
    first = listed(page)[0]
    assert B[first] - A[first] == pytest.approx(max(B[index] - A[index] for index in BOTH))
    head.click()
    first = listed(page)[0]
    assert B[first] - A[first] == pytest.approx(min(B[index] - A[index] for index in BOTH))
    assert state(page)["sort"] == "b-minus-a"
    page.go_back()
    drawn(page)
    assert state(page)["sort"] == "-b-minus-a"


def test_a_neuron_shows_both_explanations_and_both_simulations_over_one_text(
    page: Page, base: str
) -> None:
    open_page(page, base, page="compare", neuron=9)
    sides = page.locator(".sides section")
    expect(sides.nth(0)).to_contain_text("dogs number 9")
    expect(sides.nth(1)).to_contain_text("rather dogs number 9")
    expect(sides.nth(0)).to_contain_text(f"{A[9]:.3f}")
    expect(page.locator(".both li")).to_have_count(2)
    text = page.locator(".both li").first
    expect(text.locator(".predicted")).to_have_count(2)
    expect(text).to_contain_text("correlation A 0.50, B 0.50")


def test_the_keyboard_walks_through_the_list_and_the_neuron_follows(page: Page, base: str) -> None:
    open_page(page, base, page="compare")
    table = page.get_by_role("grid")
    table.focus()
    table.press("Home")
    table.press("ArrowDown")
    table.press("Enter")
    second = listed(page)[1]
    expect(page.locator(".detail h2")).to_contain_text(f"neuron {second}")
    page.wait_for_url(re.compile(rf"neuron={second}\b"))
    page.reload()
    drawn(page)
    expect(page.locator(".detail h2")).to_contain_text(f"neuron {second}")


def test_a_box_in_the_scatter_leaves_the_neurons_within_it(page: Page, base: str) -> None:
    open_page(page, base, page="compare")
    box = page.locator(".scatter .brush").bounding_box()
    assert box
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    expect(page.locator(".chip")).to_have_count(2)
    limits = dict(part.split(":") for part in state(page)["f"].split(";"))
    high = float(limits[column_key("first", LEADING)].removeprefix(",").split(",")[-1])
    low = float(limits[column_key("second", LEADING)].split(",")[0])
    kept = [index for index in BOTH if A[index] <= high and B[index] >= low]
    assert page.locator(".count").inner_text() == f"{len(kept)} of {ROWS} neurons"


def test_runs_can_be_swapped_and_chosen(page: Page, base: str) -> None:
    open_page(page, base, page="compare", a="first", b="second")
    forth = page.locator(".paired .large").inner_text()
    page.get_by_role("button", name="Swap").click()
    expect(page.locator(".sides h3").first).to_have_text("second")
    back = page.locator(".paired .large").inner_text()
    assert {forth[0], back[0]} == {"+", "−"}
    assert forth[1:] == back[1:]
    page.get_by_label("Run A").select_option("first")
    expect(page.locator(".sides h3").first).to_have_text("first")
    assert state(page)["a"] == "first"


def test_a_failed_explanation_is_shown_as_such(page: Page, base: str) -> None:
    open_page(page, base, page="compare", neuron=FAILED)
    expect(page.locator(".sides section").first).to_contain_text("⚠ explain failed: refused")


def test_a_neuron_or_run_that_does_not_exist_is_said(page: Page, base: str) -> None:
    open_page(page, base, page="compare", neuron=999)
    assert "There is no neuron 999 here." in says(page)
    open_page(page, base, page="compare", a="constructor", b="nothing", site="x", metric="y")
    expect(page.locator(".paired")).to_be_visible()


def test_one_run_alone_cannot_be_compared(page: Page, tmp_path: Path) -> None:
    made = layer()
    alone = replace(made, scores={"first": made.scores["first"]}, neurons={})
    with serving_files(write_site(tmp_path / "site", [alone])) as base:
        open_page(page, base, page="compare")
        text = says(page)
    assert "Comparing needs two runs over the same neurons." in text
    assert "neuron-explainer explain --run NAME" in text


def test_runs_that_share_no_score_or_no_site_say_so(page: Page, tmp_path: Path) -> None:
    scores = {"far": layer().scores["first"]}
    other = replace(layer(), key="other", name="blocks.1.mlp", scores=scores, neurons={})
    folder = write_site(tmp_path / "site", [layer(unscored=["third"]), other])
    with serving_files(folder) as base:
        open_page(page, base, page="compare", a="first", b="third")
        assert "They share no score on this site. Run neuron-explainer simulate third" in says(page)
        open_page(page, base, page="compare", a="first", b="far", site=KEY)
        assert "These two runs have no site in common." in says(page)
