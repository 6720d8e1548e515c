"""The pages that compute something, in a browser, before a real server and the real model."""

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from browser import open_page, opened, says
from live_asking import app_of
from playwright.sync_api import Browser, Page, expect
from view_fixtures import serving

from neuron_explainer.config import ModelSettings
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.view.contract import key_of
from neuron_explainer.view.live import LiveSettings
from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket

KEY = key_of("tiny", "blocks.0.mlp.hook_post")
A, B = "tiny-token-lookup", "tiny-token-lookup-all"
STATES = [{"page": "try"}, {"page": "judge"}, {"page": "judge", "a": A, "b": B, "site": KEY}]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
NUMBERS = {"activations": [{"index": at, "activation": at + 1} for at in range(5)]}


@pytest.fixture(scope="module")
def here(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the small workspace, to judge in."""
    return Workspace(shutil.copytree(small_workspace.root, tmp_path_factory.mktemp("live") / "ws"))


@pytest.fixture(scope="module")
def base(here: Workspace, tiny_subject: HuggingFaceSubject) -> Iterator[str]:
    """It is served with the example's model and a scripted language model."""
    script = here.root / "script.json"
    script.write_text(json.dumps([{"pattern": ".", "reply": json.dumps(NUMBERS)}]))
    model = ModelSettings(f"scripted/{script}")
    made, _ = app_of(here, LiveSettings(model=model, load=lambda _: tiny_subject))
    with serving(made) as address:
        yield address


def _query(page: Page) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlparse(page.url).query).items()}


def test_typed_text_is_drawn_as_it_is_typed(page: Page, base: str) -> None:
    open_page(page, base, page="try", site=KEY, neuron=12)
    field = page.get_by_label("Text that the neuron reads")
    field.fill("3 + 4 <b>\u202e")
    expect(page.locator(".window [data-place]").nth(1)).to_be_visible()
    shown = page.locator(".window").inner_text()
    assert "<b>" in shown
    assert "\u202e" not in shown  # its bytes are tokens, which are shown as bytes
    expect(page.locator(".window .written").last).to_have_text("\\xae")
    assert _query(page)["text"] == "3 + 4 <b>\u202e"
    field.fill("word " * 400)
    expect(page.locator("#typed-status")).to_contain_text("Too long for the address")
    assert page.locator(".window").count() > 3
    assert "text" not in _query(page)
    field.fill("")
    expect(page.locator(".window")).to_have_count(0)


def test_a_link_holds_the_text_and_a_record_can_be_its_start(page: Page, base: str) -> None:
    open_page(page, base, page="try", site=KEY, neuron=12, text="one two")
    expect(page.get_by_label("Text that the neuron reads")).to_have_value("one two")
    expect(page.locator("#typed-status")).to_contain_text("1 window; strongest")
    page.get_by_role("button", name="its strongest record").click()
    expect(page.get_by_label("Text that the neuron reads")).not_to_have_value("one two")
    expect(page.locator(".window .peak")).to_have_count(1)


def test_the_runs_own_table_is_the_start_and_a_change_is_simulated(page: Page, base: str) -> None:
    open_page(page, base, page="try", site=KEY, neuron=12, run=A)
    field = page.get_by_label("Explanation", exact=True)
    rows = page.locator(".saying table.scores tbody tr")
    expect(rows.first).to_contain_text("typed here")
    own = page.locator(".saying table.scores tbody tr", has_text=A).first
    shown = own.locator("td.number").first.inner_text()
    assert rows.first.locator("td.number").first.inner_text() == shown
    expect(page.locator(".saying .heat.stacked").first).to_be_visible()
    field.fill('" the" 9')
    expect(rows.first.locator("td.number").first).not_to_have_text(shown)
    assert _query(page)["said"] == '" the" 9'
    field.fill("the 9")
    expect(page.locator(".saying .live-status")).to_contain_text("line 1 of the table")


def test_a_model_is_asked_only_after_its_price_was_said(page: Page, base: str) -> None:
    open_page(page, base, page="try", site=KEY, neuron=12, run=A, simulator="numbers")
    expect(page.locator(".offer")).to_contain_text("This asks scripted/")
    expect(page.locator(".offer")).to_contain_text("requests, about")
    assert page.locator(".saying table.scores").count() == 0
    page.get_by_role("button", name="Ask it").click()
    expect(page.locator(".saying table.scores tbody tr").first).to_contain_text("typed here")
    expect(page.locator(".saying .record-list li").first).to_contain_text("r = ")


def test_two_explanations_are_judged_blind_by_keys(page: Page, base: str, here: Workspace) -> None:
    open_page(page, base, page="judge", a=A, b=B, site=KEY, seed="7", n="4")
    expect(page.get_by_role("group", name="Which is better?")).to_be_visible()
    assert A not in says(page)  # B begins with A
    progress = page.locator("h1 .of")
    for number, key in enumerate("120", 1):
        expect(progress).to_have_text(f" neuron {number} of 4")
        page.keyboard.press(key)
    expect(progress).to_have_text(" neuron 4 of 4")
    page.keyboard.press("u")
    expect(progress).to_have_text(" neuron 3 of 4")
    table = here.scoring / "judgements" / f"{A}~{B}.csv"
    assert len(table.read_text().splitlines()) == 1 + 2 * 2
    page.keyboard.press("n")
    expect(progress).to_have_text(" neuron 4 of 4")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("button", name="n Neither")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="1 Left").click()
    expect(page.locator("h1")).to_have_text("Judged")
    assert len(table.read_text().splitlines()) == 1 + 2 * 4
    said = says(page)
    assert f"neuron-explainer compare scoring/judgements/{A}~{B}.csv" in said
    assert "of 3 decided judgements" in said
    expect(page.locator(".judged tbody tr")).to_have_count(4)


def test_the_seed_decides_order_and_sides(page: Page, base: str) -> None:
    def shown(seed: str) -> str:
        open_page(page, base, page="judge", a=A, b=B, site=KEY, seed=seed, n="6", at="1")
        expect(page.locator(".blind-side")).to_have_count(2)
        return page.locator(".blind").inner_text()

    assert shown("1") == shown("1")
    assert shown("1") != shown("2")


def test_what_is_missing_is_said(page: Page, base: str) -> None:
    open_page(page, base, page="judge")
    expect(page.get_by_role("button", name="Begin")).to_be_visible()
    expect(page.get_by_text("What was preferred so far")).to_be_visible()
    page.get_by_label("Another run").select_option(A)
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("output.bad")).to_have_text("Choose two different runs.")
    open_page(page, base, page="try", site="nowhere", neuron="1")
    assert "There is no site nowhere in this workspace." in says(page)
    open_page(page, base, page="try", site=KEY, neuron="0x1")
    assert "is no neuron" in says(page)


@pytest.mark.parametrize("state", STATES)
def test_it_fits_a_small_phone(page: Page, base: str, state: dict[str, str]) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    open_page(page, base, **state, text="one two three")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_wcag_a_and_aa_is_broken(browser: Browser, base: str, scheme: str) -> None:
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    for state in STATES:
        with opened(browser, color_scheme=scheme) as page:
            open_page(page, base, **state, text="one + two")
            page.wait_for_load_state("networkidle")
            page.evaluate(axe)
            # the dark scheme differs in its colours alone
            rules = RULES if scheme == "light" else ["color-contrast"]
            found = page.evaluate("rules => axe.run(document, {runOnly: rules})", rules)
        assert found["passes"]
        broken = {
            each["id"]: [one["html"] for one in each["nodes"]] for each in found["violations"]
        }
        assert broken == {}, state


def test_files_say_that_a_server_is_needed(page: Page, static_site: Path) -> None:
    from browser import serving_files

    with serving_files(static_site) as files:
        for name in ("try", "judge"):
            open_page(page, files, page=name)
            assert "serve the workspace" in says(page)
            assert page.get_by_role("link", name="Try it").count() == 0
