"""The page of one neuron, in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from browser import drawn, open_page, serving_files
from made_neurons import (
    HEADS,
    SITE,
    Json,
    explanation,
    figure,
    head,
    neuron,
    record,
    scored,
    simulated,
)
from made_neurons import site as made_site
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.enable_socket

FIRST, MIDDLE, LAST = 0, 1, 5
UNEXPLAINED, UNSIMULATED, FAILED, LONG = 10, 11, 12, 13
LONG_TEXT = "many words " * 10_000


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site with neurons in every condition."""
    neurons = {(SITE, made["neuron"]): made for made in _neurons()} | {(HEADS, 0): head()}
    folder: Path = made_site(tmp_path_factory.mktemp("site"), neurons)
    with serving_files(folder) as address:
        yield address


def _neurons() -> list[Json]:
    nulls = [
        scored("shuffled", null=True),
        scored("constant", null=True, values={
            "correlation_top_and_random": figure(None, reason="constant prediction")
        }),
        scored("all-at-once", values={}, failure={"cause": "timeout", "message": "no reply"}),
    ]  # fmt: skip
    failure = {"stage": "explain", "cause": "never-active", "message": "no activation above 0"}
    row = {"previous": None, "activation": 9.0, "share": 0.1}
    rows = [row | {"token": f" t{at}"} for at in range(4)]
    table = explanation(scores=[scored(), *nulls], table=rows, otherwise=0.25)
    both = [simulated(), simulated(simulator="shuffled", correlation=None, activations=[5.0] * 10)]
    middle = neuron(MIDDLE, previous=FIRST, next=LAST, explanations=[table, explanation("second")])
    middle["records"][0]["simulations"] = both
    return [
        neuron(FIRST, next=MIDDLE),
        middle,
        neuron(LAST, previous=MIDDLE),
        neuron(UNEXPLAINED, explanations=[], records=[record()], histogram=None, statistics=None,
               promoted=None, suppressed=None, token_table=None, nearest=None),
        neuron(UNSIMULATED, explanations=[explanation(scores=[])], records=[record()]),
        neuron(FAILED, explanations=[explanation(text=None, scores=[], failure=failure)]),
        neuron(LONG, explanations=[explanation(text=LONG_TEXT)]),
    ]  # fmt: skip


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


def test_predictions_stand_below_the_truth_and_undefined_ones_are_hatched(
    page: Page, base: str
) -> None:
    open_neuron(page, base, mode="stacked", full="1")
    heat = page.locator(".heat").first
    assert heat.locator(".line").count() == 2
    predicted = heat.locator(".predicted > span")
    classes = [predicted.nth(place).get_attribute("class") for place in range(10)]
    assert classes[2] == "above"
    assert classes[3] == "undefined"
    assert classes[0] == "unscored"
    expect(page.locator(".record-list .caption").first).to_contain_text("r = 0.83")
    expect(page.locator(".explanation.chosen")).to_have_count(1)


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


def test_a_heat_map_marks_strongest_negative_and_uncounted_tokens(page: Page, base: str) -> None:
    open_neuron(page, base, full="1")
    tokens = page.locator(".heat").first.locator("[data-place]")
    expect(tokens.nth(0)).to_have_class("unscored")
    expect(tokens.nth(2)).to_have_class("above peak")
    expect(tokens.nth(4)).to_have_class("below")
    thick = [
        tokens.nth(place).evaluate("token => token.style.getPropertyValue('--heat-thick')")
        for place in (2, 7, 6)
    ]
    assert thick == ["3px", "2px", "1px"]


def test_a_record_is_one_stop_and_arrows_walk_its_tokens(page: Page, base: str) -> None:
    open_neuron(page, base, full="1", mode="overlaid")
    heat = page.locator(".heat").first
    assert heat.locator("[tabindex='0']").count() == 1
    heat.locator("[tabindex='0']").focus()
    tip = page.locator("#heat-tip")
    expect(tip).to_contain_text("“␣cat” · token 2")
    expect(tip).to_contain_text("predicted 10 of 10")
    page.keyboard.press("ArrowRight")
    expect(tip).to_contain_text("predicted undefined")
    page.keyboard.press("Home")
    expect(tip).to_contain_text("does not count")
    page.keyboard.press("End")
    expect(tip).to_contain_text("token 9")
    expect(page.locator("h1")).to_contain_text(f"Neuron {MIDDLE}")  # arrows did not leave
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_the_pointer_shows_a_value_too(page: Page, base: str) -> None:
    open_neuron(page, base, full="1")
    page.locator(".heat").first.locator("[data-place='4']").hover()
    expect(page.locator("#heat-tip")).to_contain_text("activation −2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("mode", ["stacked", "overlaid"])
def test_text_can_be_read_at_every_level(page: Page, base: str, scheme: str, mode: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    open_neuron(page, base, mode=mode, full="1")
    for kind in ("above", "below"):
        for level in (0.1, 0.5, 0.8, 1.0):
            assert page.evaluate(_CONTRAST, [kind, level]) >= 4.5, (kind, level)
    assert page.evaluate(_CONTRAST, ["unscored", 0.0]) >= 4.5


_CONTRAST = """([kind, level]) => {
  const find = (selector) => document.querySelector(selector);
  const token = find(`.heat .predicted .${kind}`) ?? find(`.heat .${kind}`);
  token.style.setProperty("--heat-level", level);
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const style = getComputedStyle(token);
  const ground = numbers(getComputedStyle(document.documentElement).backgroundColor);
  const gradients = style.backgroundImage.split("linear-gradient(");
  const painted = gradients.length > 1 ? gradients.at(-1) : style.backgroundColor;
  const [r, g, b, alpha = 1] = numbers(painted);
  const back = [r, g, b].map((value, at) => alpha * value + (1 - alpha) * ground[at]);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (color) => color.slice(0, 3).reduce(
    (sum, value, at) => sum + linear(value / 255) * [0.2126, 0.7152, 0.0722][at], 0);
  const [low, high] = [light(back), light(numbers(style.color))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


def test_a_head_shows_pairs_in_text_as_an_arc_and_all_together(page: Page, base: str) -> None:
    open_page(page, base, page="neuron", site=HEADS, neuron=0, full="1", mode="stacked")
    expect(page.locator("h1")).to_contain_text("Attention head 0")
    heat = page.locator(".heat").first
    expect(heat.locator(".pair-query")).to_have_text("query slept")
    expect(heat.locator(".pair-key")).to_have_text("key cat")
    expect(page.locator("svg.arc").first).to_have_attribute(
        "aria-label", "position 7 to position 2, 5 back, of 10"
    )
    expect(page.locator("svg.triangle")).to_have_attribute(
        "aria-label",
        "2 pairs of positions; top pairs reach 5 to 5 tokens back, half of them at most 5",
    )
    expect(page.locator(".caption").first).to_contain_text("predicted 7.5 of 10")
    expect(page.locator(".scores thead").first).to_contain_text("AUROC")
    expect(page.get_by_role("button", name="Overlaid")).to_have_count(0)


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
