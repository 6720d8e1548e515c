"""Heat maps on the page of a neuron, in a browser."""

from collections.abc import Iterator

import pytest
from browser import open_page, serving_files
from made_neurons import HEADS, MIDDLE, SITE, every_condition
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
