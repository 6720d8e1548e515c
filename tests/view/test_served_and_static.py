"""A workspace served by `view` and the same one written by `publish --site` say the same."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import open_page, says, serving_files
from made_workspace import MadeWorkspace
from playwright.sync_api import Page, expect
from view_fixtures import serving

from neuron_explainer.view.resources import Resources
from neuron_explainer.view.server import app
from neuron_explainer.view.static import write_site
from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket

NEURONS = 30
KEY = "made--blocks.0.mlp.hook_post"
PAGES: dict[str, dict[str, str]] = {
    "home": {},
    "layer": {"page": "layer", "site": KEY},
    "sorted": {"page": "layer", "site": KEY, "sort": "-maximum", "f": "density:0,0.5"},
    "compare": {"page": "compare"},
    "neuron": {"page": "neuron", "site": KEY, "neuron": "17"},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return MadeWorkspace(tmp_path_factory.mktemp("both") / "workspace", NEURONS).write()


@pytest.fixture(scope="module")
def as_files(here: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("both") / "site"
    write_site(Resources(here), folder)
    with serving_files(folder) as base:
        yield base


@pytest.fixture(scope="module")
def by_the_viewer(here: Workspace) -> Iterator[str]:
    with serving(app(Resources(here))) as base:
        yield base


def _said(page: Page, base: str, name: str) -> str:
    open_page(page, base, **PAGES[name])
    page.wait_for_load_state("networkidle")
    expect(page.locator("[data-pending]")).to_have_count(0)
    return says(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_the_same_from_files_and_from_the_viewer(
    page: Page, as_files: str, by_the_viewer: str, name: str
) -> None:
    served = _said(page, by_the_viewer, name)
    assert len(served) > 300
    assert _said(page, as_files, name) == served


def test_search_finds_the_same_rows_from_files_and_from_the_viewer(
    page: Page, as_files: str, by_the_viewer: str
) -> None:
    open_page(page, by_the_viewer, page="layer", site=KEY)
    token = page.locator(".table-row .token").first.inner_text().strip()
    found = []
    for base in (by_the_viewer, as_files):
        open_page(page, base, page="layer", site=KEY, q=token)
        found.append(page.locator(".table-row [data-column=neuron]").all_inner_texts())
    assert found[0] == found[1]
    assert 0 < len(found[0]) < NEURONS


def test_a_damaged_file_is_said_where_it_is_missed(
    page: Page, here: Workspace, tmp_path: Path
) -> None:
    shutil.copytree(here.root, tmp_path / "copy")
    for path in (tmp_path / "copy" / "scoring").rglob("scores-*.parquet"):
        path.write_bytes(b"no table")
    with serving(app(Resources(Workspace(tmp_path / "copy")))) as base:
        open_page(page, base)
        page.wait_for_load_state("networkidle")
        assert "blocks.0.mlp.hook_post" in says(page)
        open_page(page, base, page="layer", site=KEY)
        assert "cannot be read" in says(page) or "This cannot be shown" in says(page)
        page.complaints.clear()  # type: ignore[attr-defined]  # refusals of the server
