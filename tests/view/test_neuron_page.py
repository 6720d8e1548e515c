"""The page of one neuron, in a browser."""

import json
from collections.abc import Iterator
from urllib.parse import parse_qs, urlparse

import pytest
from browser import drawn, open_page, serving_files
from made_neurons import (
    FAILED,
    FIRST,
    LAST,
    LONG,
    LONG_TEXT,
    MIDDLE,
    SITE,
    UNEXPLAINED,
    UNSIMULATED,
    every_condition,
)
from made_neurons import site as made_site
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.enable_socket


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site with neurons in every condition."""
    folder = made_site(tmp_path_factory.mktemp("site"), every_condition())
    with serving_files(folder) as address:
        yield address


def open_neuron(page: Page, base: str, index: int = MIDDLE, **state: str) -> None:
    open_page(page, base, page="neuron", site=SITE, neuron=index, **state)


def state_of(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlparse(page.url).query).items()}


def test_explanations_stand_with_scores_intervals_nulls_and_reasons(page: Page, base: str) -> None:
    open_neuron(page, base)
    card = page.locator(".explanation").first
    expect(card).to_contain_text("cats, says first")
    rows = card.locator(".scores tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("0.80")
    expect(rows.nth(0)).to_contain_text("0.60 … 0.90")
    expect(rows.nth(1)).to_contain_text("failed: timeout – no reply")
    expect(card.locator("tr", has_text="shuffled")).to_contain_text("null")
    expect(card.locator("tr", has_text="constant")).to_contain_text("undefined: constant predictio")
    expect(page.locator(".explanation")).to_have_count(2)


def test_a_lookup_table_and_all_scores_open_and_stay_open_in_the_url(page: Page, base: str) -> None:
    open_neuron(page, base)
    page.get_by_text("Its table of 4 tokens").click()
    expect(page.get_by_role("region", name="Table of tokens")).to_contain_text(
        "·t0".replace("·", " ")
    )
    page.get_by_text("All scores").first.click()
    expect(page.get_by_role("region", name="All scores")).to_contain_text(
        "explained variance linear"
    )
    assert state_of(page)["open"] == "table-first,scores-first"
    page.reload()
    drawn(page)
    expect(page.get_by_role("region", name="All scores")).to_be_visible()


@pytest.mark.parametrize(("forth", "back"), [("j", "k"), ("ArrowRight", "ArrowLeft")])
def test_keys_lead_to_the_neighbours_and_keep_what_is_shown(
    page: Page, base: str, forth: str, back: str
) -> None:
    open_neuron(page, base, FIRST, records="random", full="1")
    page.keyboard.press(back)  # there is none before the first
    page.keyboard.press(forth)
    expect(page.locator("h1")).to_contain_text(f"Neuron {MIDDLE}")
    page.keyboard.press(forth)
    expect(page.locator("h1")).to_contain_text(f"Neuron {LAST}")
    page.keyboard.press(forth)
    page.keyboard.press(back)
    expect(page.locator("h1")).to_contain_text(f"Neuron {MIDDLE}")
    assert state_of(page) == {
        "page": "neuron", "site": SITE, "neuron": "1", "records": "random", "full": "1",
    }  # fmt: skip
    page.go_back()
    expect(page.locator("h1")).to_contain_text(f"Neuron {LAST}")
    page.go_forward()
    expect(page.locator("h1")).to_contain_text(f"Neuron {MIDDLE}")


def test_links_lead_to_neighbours_nearest_and_keep_the_focus(page: Page, base: str) -> None:
    open_neuron(page, base, FIRST)
    page.get_by_role("link", name="Next neuron").press("Enter")
    expect(page.locator("h1")).to_contain_text(f"Neuron {MIDDLE}")
    open_neuron(page, base, LAST)
    page.locator(".nearest a").click()
    expect(page.locator("h1")).to_contain_text(f"Neuron {MIDDLE}")


def test_the_neighbours_are_fetched_before_they_are_asked_for(page: Page, base: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response(lambda reply: reply.url.endswith(f"/{LAST}.json")):
        open_neuron(page, base)
    page.wait_for_load_state("networkidle")
    before = len(asked)
    page.keyboard.press("j")
    expect(page.locator("h1")).to_contain_text(f"Neuron {LAST}")
    assert not [url for url in asked[before:] if url.endswith(f"/{LAST}.json")]


def test_kinds_modes_lengths_and_breaks_are_steps_that_back_undoes(page: Page, base: str) -> None:
    open_neuron(page, base)
    steps = [
        ("Random 1", {"records": "random"}),
        ("Stacked", {"mode": "stacked"}),
        ("Full", {"full": "1"}),
        ("All 4", {"records": "all"}),
        ("Overlaid", {"mode": "overlaid"}),
    ]
    for name, expected in steps:
        button = page.get_by_role("button", name=name)
        button.click()
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("button", name=name)).to_be_focused()
        assert expected.items() <= state_of(page).items()
    page.get_by_label("line breaks").uncheck()
    assert state_of(page)["breaks"] == "0"
    for _ in range(2):
        page.go_back()
        drawn(page)
    expect(page.get_by_role("button", name="Stacked")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("line breaks")).to_be_checked()
    assert "breaks" not in state_of(page)


def test_quantile_bands_are_named_by_the_excerpts_they_hold(page: Page, base: str) -> None:
    open_neuron(page, base, records="quantile")
    headings = page.locator(".records h3")
    expect(headings).to_have_text(["Highest 50 % of excerpts", "Lowest 50 % of excerpts"])


def test_another_simulator_is_chosen_and_is_in_the_url(page: Page, base: str) -> None:
    open_neuron(page, base, mode="overlaid")
    page.get_by_label("Predicted by").focus()
    page.get_by_label("Predicted by").select_option("first · shuffled (null)")
    expect(page.locator(".record-list .caption").first).to_contain_text("r undefined")
    expect(page.get_by_label("Predicted by")).to_be_focused()
    shown = state_of(page)
    assert (shown["run"], shown["simulator"]) == ("first", "shuffled")
    page.go_back()
    expect(page.locator(".record-list .caption").first).to_contain_text("r = 0.83")


def test_records_without_predictions_are_a_click_away(page: Page, base: str) -> None:
    open_neuron(page, base, mode="stacked", records="quantile")
    expect(page.locator(".records")).to_contain_text("None of these were simulated.")
    page.get_by_text("1 without predictions").first.click()
    expect(page.locator(".heat")).to_have_count(1)


def test_what_is_missing_is_said_with_the_command_that_makes_it(page: Page, base: str) -> None:
    open_neuron(page, base, UNEXPLAINED)
    expect(page.locator(".explanations")).to_contain_text("neuron-explainer explain --subject made")
    expect(page.get_by_role("button", name="Stacked")).to_have_count(0)
    expect(page.locator("aside")).to_contain_text("No statistics were published")
    open_neuron(page, base, UNSIMULATED)
    expect(page.locator(".explanations")).to_contain_text("neuron-explainer simulate first")
    expect(page.locator(".explanations")).to_contain_text("Without an explanation of it: second")
    open_neuron(page, base, FAILED)
    expect(page.locator(".explanations")).to_contain_text(
        "explain failed: never-active – no activa"
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"site": "constructor", "neuron": "3"}, "There is no site constructor"),
        ({"neuron": "3"}, "names no site"),
        ({"site": SITE, "neuron": "-1"}, "is no neuron"),
        ({"site": SITE}, "is no neuron"),
    ],
)
def test_an_address_of_nothing_says_so(
    page: Page, base: str, asked: dict[str, str], said: str
) -> None:
    open_page(page, base, page="neuron", **asked)
    expect(page.get_by_role("alert")).to_contain_text(said)


def test_a_neuron_that_was_not_collected_says_so(page: Page, base: str) -> None:
    open_neuron(page, base, 33)
    expect(page.get_by_role("alert")).to_contain_text("40 of its 64 were collected")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser reports every 404


def test_an_explanation_of_a_hundred_thousand_characters_is_cut(page: Page, base: str) -> None:
    open_neuron(page, base, LONG)
    assert page.locator(".statement").first.evaluate("text => text.textContent.length") < 1000
    page.get_by_text("All 110,000 characters").click()
    assert page.locator(".statement.long").evaluate("text => text.textContent") == LONG_TEXT
    assert state_of(page)["open"] == "text-first"


def test_a_neuron_is_copied_as_json_and_by_its_id(page: Page, base: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_neuron(page, base)
    page.get_by_role("button", name="Copy as JSON").click()
    expect(page.locator("#announce")).to_have_text("The neuron's JSON was copied.")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["neuron"] == MIDDLE
    page.get_by_role("button", name="Copy id").click()
    expect(page.locator("#announce")).to_have_text("The id was copied.")
    assert page.evaluate("navigator.clipboard.readText()") == f"made/{SITE}/{MIDDLE}"


def test_counts_are_logarithmic_or_linear(page: Page, base: str) -> None:
    open_neuron(page, base)
    heights = (
        "[...document.querySelectorAll('.activity rect')].map(bar => +bar.getAttribute('height'))"
    )
    logarithmic = page.evaluate(heights)
    page.get_by_label("logarithmic number of tokens").uncheck()
    linear = page.evaluate(heights)
    assert linear[0] == logarithmic[0]
    assert sum(linear) < sum(logarithmic)
    assert state_of(page)["counts"] == "linear"


@pytest.mark.parametrize(
    ("mode", "index"),
    [("true", LONG), ("true", UNEXPLAINED), ("stacked", MIDDLE), ("overlaid", MIDDLE)],
)
def test_nothing_is_wider_than_a_small_phone(page: Page, base: str, mode: str, index: int) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    opened = "table-first,scores-first,text-first,tokens,histogram"
    open_neuron(page, base, index, mode=mode, records="all", full="1", open=opened)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
