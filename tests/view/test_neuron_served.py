"""The page of a neuron over a real workspace: served, as files, damaged; and its accessibility."""

import importlib.resources
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import open_page, opened, serving_files
from playwright.sync_api import Browser, Page, expect
from view_fixtures import serving

from neuron_explainer.view.resources import Resources
from neuron_explainer.view.server import app
from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket
SITE = "blocks.0.mlp.hook_post"


@pytest.fixture(scope="module")
def damaged(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The small workspace with a damaged shard of records."""
    root = tmp_path_factory.mktemp("damaged") / "workspace"
    shutil.copytree(small_workspace.root, root)
    shard = next((root / "data" / "tiny" / SITE).glob("records-*.parquet"))
    shard.write_bytes(b"PAR1" + bytes(shard.stat().st_size - 8) + b"PAR1")
    with serving(app(Resources(Workspace(root)))) as base:
        yield base


def key_of(base: str) -> str:
    """The key of the layer's site."""
    with urllib.request.urlopen(f"{base}api/workspace.json") as reply:
        sites = json.load(reply)["sites"].values()
    return next(str(site["key"]) for site in sites if site["name"] == SITE)


def test_a_served_neuron_shows_what_the_workspace_holds(served: str, page: Page) -> None:
    open_page(page, served, page="neuron", site=key_of(served), neuron=3, mode="stacked")
    expect(page.locator("h1")).to_contain_text("Neuron 3 of 512")
    expect(page.locator(".explanation").first).to_contain_text("Fires on")
    expect(page.locator(".scores tbody tr").first).to_contain_text("token-lookup")
    expect(page.locator(".record-list .agreement").first).to_contain_text("r = ")
    expect(page.locator(".heat .predicted .above").first).to_be_attached()
    expect(page.locator("aside")).to_contain_text("promotes")
    page.keyboard.press("j")
    expect(page.locator("h1")).to_contain_text("Neuron 4")


def test_the_same_neuron_is_shown_from_files(static_site: Path, page: Page) -> None:
    with serving_files(static_site) as base:
        open_page(page, base, page="neuron", site=key_of(base), neuron=3, records="all")
        expect(page.locator(".explanation").first).to_contain_text("Fires on")
        assert page.locator(".heat").count() > 40
        open_page(page, base, page="neuron", site=key_of(base), neuron=300)
        expect(page.get_by_role("alert")).to_contain_text("were collected")
        page.complaints.clear()  # type: ignore[attr-defined]  # the browser reports every 404


def test_a_neuron_beyond_the_site_says_what_to_run(served: str, page: Page) -> None:
    open_page(page, served, page="neuron", site=key_of(served), neuron=99999)
    expect(page.get_by_role("alert")).to_contain_text("was not collected")
    expect(page.get_by_role("alert")).to_contain_text("neuron-explainer")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser reports every 404


def test_a_damaged_shard_is_said_with_the_way_out(damaged: str, page: Page) -> None:
    open_page(page, damaged, page="neuron", site=key_of(damaged), neuron=3)
    expect(page.get_by_role("alert")).to_contain_text("damaged")
    expect(page.get_by_role("link", name="All neurons of this site")).to_be_visible()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser reports every 409


@pytest.mark.parametrize(("scheme", "mode"), [("light", "stacked"), ("dark", "overlaid")])
def test_no_rule_of_wcag_a_and_aa_is_broken(
    served: str, browser: Browser, scheme: str, mode: str
) -> None:
    axe = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js")
    key = key_of(served)
    state = {"page": "neuron", "site": key, "neuron": "3", "mode": mode}
    state["open"] = "table-tiny-token-lookup,scores-tiny-token-lookup,tokens,histogram"
    with opened(browser, color_scheme=scheme) as page:
        open_page(page, served, **state)
        page.evaluate(axe.read_text("utf-8"))
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']})")
    assert found["passes"]
    broken = {
        rule["id"]: [[node["html"][:200], node["failureSummary"]] for node in rule["nodes"][:3]]
        for rule in found["violations"]
    }
    assert broken == {}
