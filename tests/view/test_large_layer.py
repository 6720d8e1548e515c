"""A layer of a hundred thousand neurons: what is in view is drawn, and only that is fetched."""

from collections.abc import Iterator

import numpy as np
import pytest
from browser import open_page, serving_files
from made_site import LEADING, MadeSite, column_key, write_site
from playwright.sync_api import Page, Request, expect

pytestmark = pytest.mark.enable_socket

ROWS, BLOCK = 100_000, 500
MAIN = column_key("run", LEADING)
_RNG = np.random.default_rng(0)
SCORES = _RNG.permutation(ROWS) / ROWS
MAXIMA = np.round(_RNG.gamma(3.0, 2.0, ROWS), 4)


def _row(index: int) -> dict[str, object]:
    return {"explanations": {"run": f"explains {index}"}, "failures": {}, "tokens": [f" {index}"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    site = MadeSite(
        key="large", unit="latent", statistics={"maximum": MAXIMA.tolist()}, row=_row,
        scores={"run": {LEADING: SCORES.tolist()}}, block=BLOCK, index=False,
    )  # fmt: skip
    with serving_files(write_site(tmp_path_factory.mktemp("large"), [site])) as address:
        yield address


@pytest.fixture
def asked(page: Page) -> list[str]:
    """The blocks of rows that the page has asked for."""
    blocks: list[str] = []

    def note(request: Request) -> None:
        if "/rows/" in request.url:
            blocks.append(request.url)

    page.on("request", note)
    return blocks


def listed(page: Page) -> list[int]:
    links = page.locator(".table-row [data-column=neuron]")
    return [int(text) for text in links.all_inner_texts()]


def test_the_end_of_the_list_shows_the_last_neurons_with_their_texts(
    page: Page, base: str, asked: list[str]
) -> None:
    open_page(page, base, page="layer", site="large")
    expect(page.locator(".count")).to_have_text("100,000 of 100,000 latents")
    assert page.get_by_role("grid").get_attribute("aria-rowcount") == "100001"
    page.locator(".table").press("End")
    expect(page.get_by_text(f"explains {ROWS - 1}", exact=True)).to_be_visible()
    assert listed(page)[-1] == ROWS - 1
    assert page.locator(".table-row").last.get_attribute("aria-rowindex") == str(ROWS + 1)
    assert page.locator(".table-row").count() < 60
    assert len(asked) <= 3


def test_a_sorted_and_filtered_list_is_right_to_its_end(page: Page, base: str) -> None:
    open_page(page, base, page="layer", site="large", sort=f"-{MAIN}", f="maximum:5,6")
    kept = np.flatnonzero((MAXIMA >= 5) & (MAXIMA <= 6))
    order = kept[np.argsort(-SCORES[kept])]
    expect(page.locator(".count")).to_have_text(f"{len(kept):,} of 100,000 latents")
    assert listed(page)[:10] == order[:10].tolist()
    page.locator(".table").press("End")
    expect(page.get_by_text(f"explains {order[-1]}", exact=True)).to_be_visible()
    assert listed(page)[-10:] == order[-10:].tolist()


def test_rows_that_only_fly_past_are_not_fetched(page: Page, base: str, asked: list[str]) -> None:
    open_page(page, base, page="layer", site="large")
    expect(page.get_by_text("explains 0", exact=True)).to_be_visible()
    asked.clear()
    page.locator(".table").evaluate(
        "async (table) => { for (let step = 1; step <= 60; step++) {"
        "table.scrollTop = (table.scrollHeight * step) / 61;"
        "await new Promise(requestAnimationFrame); } }"
    )
    place = page.locator(".table").evaluate("table => table.scrollTop / table.scrollHeight")
    expect(page.locator("[data-pending]")).to_have_count(0)
    middle = listed(page)[len(listed(page)) // 2]
    assert middle == pytest.approx(place * ROWS, abs=40)
    assert len(asked) < 30  # of the 60 screens


def test_a_list_taller_than_browsers_can_draw_still_reaches_every_row(
    page: Page, base: str
) -> None:
    open_page(page, base, page="layer", site="large")
    page.locator(".table").evaluate("table => table.style.setProperty('--row', '20')")
    table = page.locator(".table")
    table.press("End")
    expect(page.get_by_text(f"explains {ROWS - 1}", exact=True)).to_be_visible()
    assert page.locator(".table-body").evaluate("body => body.offsetHeight") <= 8_000_000
    for _ in range(4):
        table.press("ArrowUp")
    expect(page.locator("[aria-selected=true]")).to_contain_text(f"explains {ROWS - 5}")
    expect(page.locator("[aria-selected=true]")).to_be_in_viewport()
    table.press("Home")
    expect(page.get_by_text("explains 0", exact=True)).to_be_in_viewport()
