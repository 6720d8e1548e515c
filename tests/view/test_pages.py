"""What holds for every page: hostile text is inert, and everybody can read and use it."""

import importlib.resources
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import drawn, open_page, opened, serving_files
from made_layer import HOSTILE, KEY, POISON, SHOWN, layer, write_layer
from made_site import write_site
from playwright.sync_api import Browser, Dialog, Page, expect

pytestmark = pytest.mark.enable_socket

PAGES: dict[str, dict[str, str]] = {
    "home": {},
    "layer": {"page": "layer", "site": KEY, "panel": "open", "f": "maximum:2,", "at": "7"},
    "compare": {"page": "compare", "neuron": str(HOSTILE)},
    "missing": {"page": "layer", "site": "nowhere"},
}
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
everywhere = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    problem = {"what": "explanations/half is not complete", "run": "neuron-explainer explain"}
    folder = write_layer(tmp_path_factory.mktemp("pages"), problems=[problem])
    with serving_files(folder) as address:
        yield address


def open_named(page: Page, base: str, name: str) -> None:
    open_page(page, base, **PAGES[name])
    page.wait_for_load_state("networkidle")
    expect(page.locator("[data-pending]")).to_have_count(0)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Every name and text that a file can hold is hostile."""
    folder = write_site(tmp_path_factory.mktemp("poisoned"), [layer(unscored=["third"])])
    for path in (folder / "api").rglob("*.json"):
        path.write_text(json.dumps(_poison(json.loads(path.read_text("utf-8")))), "utf-8")
    with serving_files(folder) as address:
        yield address


def _poison(told: Any) -> Any:
    """`told` with poison for every value that names something and is no key of the contract."""
    if isinstance(told, list):
        return [_poison(item) for item in told]
    if not isinstance(told, dict):
        return told
    texts = {
        "name",
        "explainer",
        "model",
        "what",
        "label",
        "cause",
        "message",
        "undefined",
        "stage",
    }
    changed = {key: POISON if key in texts else _poison(value) for key, value in told.items()}
    if isinstance(told.get("failures"), dict):
        changed["failures"] = dict.fromkeys(told["failures"], POISON)
    if "problems" in told:
        changed["problems"] = [{"what": POISON, "run": POISON}]
    if "simulator" in told and "metric" not in told and "values" in told:
        changed["simulator"] = told["simulator"]
    return changed


@pytest.mark.parametrize("name", ["home", "layer", "compare"])
def test_hostile_text_is_shown_and_nothing_else(page: Page, poisoned: str, name: str) -> None:
    dialogs: list[Dialog] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog)

    page.on("dialog", note)
    open_named(page, poisoned, name)
    page.locator("main").hover()
    text = page.locator("body").evaluate("body => body.textContent")
    assert SHOWN in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "\x07" not in page.title()
    assert page.locator("main :is(img, script, iframe, object, link, style, form)").count() == 0
    assert page.locator("body script").count() == 0
    anchors = page.locator("a").evaluate_all("all => all.map((a) => a.getAttribute('href'))")
    assert [href for href in anchors if not href.startswith(("?", "#"))] == []
    assert dialogs == []


def test_a_hostile_url_is_shown_as_text(page: Page, base: str) -> None:
    open_page(page, base, page="layer", site=POISON)
    assert SHOWN in page.inner_text("main")
    open_page(page, base, page=POISON, subject=POISON)
    expect(page.locator(".subject")).to_have_count(1)
    open_page(page, base, page="layer", site=KEY, q=POISON, sort=POISON, f=POISON)
    expect(page.locator(".count")).to_contain_text("of 40")


@everywhere
def test_no_rule_of_wcag_a_and_aa_is_broken(page: Page, base: str, name: str) -> None:
    axe = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js")
    open_named(page, base, name)
    page.evaluate(axe.read_text("utf-8"))
    run = "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})"
    # The dark scheme differs in its colours alone.
    for scheme, rules in (("light", _RULES), ("dark", ["color-contrast"])):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        found = page.evaluate(run, rules)
        assert found["passes"]
        broken = {
            rule["id"]: [[node["html"][:200], node["failureSummary"]] for node in rule["nodes"][:3]]
            for rule in found["violations"]
        }
        assert broken == {}, scheme


@everywhere
def test_no_page_is_wider_than_the_screen(page: Page, base: str, name: str) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    open_named(page, base, name)
    for width in (360, 768):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_phone_shows_the_important_columns_and_the_tokens_below_the_text(
    browser: Browser, base: str
) -> None:
    with opened(browser, viewport={"width": 390, "height": 844}) as page:
        open_page(page, base, page="layer", site=KEY)
        heads = page.get_by_role("columnheader")
        expect(heads).to_have_count(3)
        expect(page.locator(".plot-panel")).not_to_have_attribute("open", "")
        expect(page.locator(".table-row .under .token").first).to_be_visible()
        grid = page.locator(".table")
        assert grid.evaluate("node => node.scrollWidth - node.clientWidth") == 0
        page.set_viewport_size({"width": 1280, "height": 900})
        expect(heads).to_have_count(7)


def test_colours_follow_the_scheme(browser: Browser, base: str) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with opened(browser, color_scheme=scheme) as page:
            open_page(page, base)
            script = "getComputedStyle(document.documentElement).backgroundColor"
            grounds[scheme] = sum(map(int, page.evaluate(script)[4:-1].split(",")))
    assert grounds["dark"] < 150
    assert grounds["light"] > 600


def test_nothing_moves_for_those_who_asked_for_no_motion(page: Page, base: str) -> None:
    for name in PAGES:
        open_named(page, base, name)
        style = "getComputedStyle(document.documentElement).scrollBehavior"
        assert page.evaluate(style) == "auto"
        page.locator("#top a").first.hover()
        assert page.evaluate("document.getAnimations().length") == 0


def test_all_can_be_reached_with_the_tabulator_and_focus_is_seen(page: Page, base: str) -> None:
    open_named(page, base, "layer")
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        tag, outline = page.evaluate(
            "() => { const node = document.activeElement; const style = getComputedStyle(node);"
            "return [node.getAttribute('role') ?? node.tagName, style.outlineStyle]; }"
        )
        if tag == "BODY":
            break
        seen.append(tag)
        assert outline != "none", tag
    assert {"A", "INPUT", "SUMMARY", "SELECT", "slider", "BUTTON", "grid"} <= set(seen)
    assert seen[0] == "A"  # skips to the content


def test_back_and_forward_walk_through_pages_and_come_to_where_one_was(
    page: Page, base: str
) -> None:
    page.set_viewport_size({"width": 1280, "height": 400})
    open_named(page, base, "home")
    page.get_by_role("link", name="layer 0").first.click()
    drawn(page)
    expect(page.locator(".trail [aria-current=page]")).to_contain_text("layer 0")
    page.evaluate("scrollTo(0, 120)")
    page.get_by_role("link", name="Compare").evaluate("link => link.click()")  # without scrolling
    drawn(page)
    expect(page.locator(".paired")).to_be_visible()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    drawn(page)
    expect(page.locator(".count")).to_have_text("40 of 40 neurons")
    page.wait_for_function("() => scrollY === 120")
    page.go_forward()
    drawn(page)
    expect(page.locator(".paired")).to_be_visible()


def test_a_file_server_without_the_policy_serves_the_same_page(page: Page, tmp_path: Path) -> None:
    """Every reference is relative, so that a site works in any folder."""
    write_layer(tmp_path / "deep" / "er")
    with serving_files(tmp_path) as base:
        open_page(page, f"{base}deep/er/", page="layer", site=KEY)
        expect(page.locator(".count")).to_have_text("40 of 40 neurons")
