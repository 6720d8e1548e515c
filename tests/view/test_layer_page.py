"""The page of a layer: its table, search, filters, plots and keys, in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from browser import drawn, open_page, says, serving_files
from made_layer import FAILED, HOSTILE, KEY, ROWS, UNEXPLAINED, UNSCORED, layer, score, write_layer
from made_site import LEADING, RANDOM, column_key, write_site
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.enable_socket

MAIN = column_key("first", LEADING)
SCORED = [index for index in range(ROWS) if index != UNSCORED]
BY_SCORE = sorted(SCORED, key=lambda index: -(score(index) or 0))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_files(write_layer(tmp_path_factory.mktemp("layer"))) as address:
        yield address


def open_layer(page: Page, base: str, **state: str) -> None:
    open_page(page, base, page="layer", site=KEY, **state)
    expect(page.locator("[data-pending]")).to_have_count(0)


def listed(page: Page) -> list[int]:
    """The neurons of the rows in the document, in their order."""
    return [int(text) for text in page.locator(".table-row [data-column=neuron]").all_inner_texts()]


def state(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlparse(page.url).query).items()}


def cell(page: Page, neuron: int, column: str) -> str:
    row = page.locator(".table-row", has=page.get_by_role("link", name=str(neuron), exact=True))
    return row.locator(f"[data-column='{column}']").inner_text()


def count(page: Page) -> str:
    return page.locator(".count").inner_text()


def settled(page: Page, /, **expected: str | None) -> None:
    """Wait until the URL says so."""
    page.wait_for_function(
        "expected => { const now = new URLSearchParams(location.search);"
        "return Object.entries(expected).every(([key, value]) => now.get(key) === value); }",
        arg=expected,
    )


def test_a_layer_lists_its_neurons_with_explanation_scores_and_tokens(
    page: Page, base: str
) -> None:
    open_layer(page, base)
    assert listed(page)[:3] == [0, 1, 2]
    assert count(page) == f"{ROWS} of {ROWS} neurons"
    assert cell(page, 1, "explanation") == "dogs number 1"
    assert cell(page, 1, MAIN) == f"{score(1):.3f}"
    assert cell(page, 1, "maximum") == "4"
    assert "t1" in cell(page, 1, "tokens")
    assert "⏎" in cell(page, 1, "tokens")
    assert "\\xc3" in cell(page, 1, "tokens")


def test_what_was_not_explained_failed_or_has_no_score_is_said_in_its_row(
    page: Page, base: str
) -> None:
    open_layer(page, base)
    assert cell(page, FAILED, "explanation") == "⚠ failed: refused"
    assert cell(page, UNEXPLAINED, "explanation") == "no explanation"
    assert cell(page, UNSCORED, MAIN) == "–"


def test_a_click_on_a_head_sorts_and_a_second_one_turns_the_order(page: Page, base: str) -> None:
    open_layer(page, base)
    head = page.locator(f"[data-sort='{MAIN}']")
    head.click()
    settled(page, sort=f"-{MAIN}")
    expect(page.locator("[aria-sort=descending]")).to_have_count(1)
    assert listed(page)[:5] == BY_SCORE[:5]
    head.click()
    settled(page, sort=MAIN)
    assert listed(page)[:5] == BY_SCORE[::-1][:5]
    page.locator(".table").press("End")
    assert listed(page)[-1] == UNSCORED  # undefined comes last in either direction
    page.go_back()
    drawn(page)
    settled(page, sort=f"-{MAIN}")
    expect(page.locator("[aria-sort=descending]")).to_have_count(1)
    assert listed(page)[:5] == BY_SCORE[:5]


def test_focus_stays_where_the_keyboard_put_it(page: Page, base: str) -> None:
    open_layer(page, base)
    head = page.locator(f"[data-sort='{MAIN}']")
    head.press("Enter")
    expect(page.locator("[aria-sort=descending]")).to_have_count(1)
    expect(head).to_be_focused()
    chooser = page.get_by_label("Histogram 2")
    chooser.focus()
    chooser.select_option("maximum")
    settled(page, h=f"{MAIN},maximum,maximum")
    expect(page.get_by_role("slider", name="Lowest maximum")).to_have_count(2)
    expect(chooser).to_be_focused()
    page.get_by_role("slider", name="Lowest maximum").first.press("Shift+ArrowRight")
    page.get_by_role("button", name="Clear filters").press("Enter")
    expect(page.get_by_role("grid")).to_be_focused()


def test_limits_of_a_column_leave_rows_within_them_and_no_undefined_ones(
    page: Page, base: str
) -> None:
    open_layer(page, base)
    page.get_by_text("Columns and limits").click()
    name = "correlation · top and random · token-lookup · first"
    page.get_by_label(f"{name}, at least").fill("0.5")
    page.get_by_label(f"{name}, at least").press("Enter")
    settled(page, f=f"{MAIN}:0.5,")
    kept = [index for index in range(ROWS) if (score(index) or 0) >= 0.5]
    expect(page.locator(".count")).to_have_text(f"{len(kept)} of {ROWS} neurons")
    assert listed(page) == kept[: len(listed(page))]
    page.get_by_label("neuron, at most").fill("9")
    page.get_by_label("neuron, at most").press("Enter")
    expect(page.locator(".count")).to_have_text(
        f"{len([index for index in kept if index <= 9])} of {ROWS} neurons"
    )
    page.get_by_role("button", name=f"Remove the filter {name}").click()
    expect(page.locator(".count")).to_have_text(f"10 of {ROWS} neurons")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".count")).to_have_text(f"{ROWS} of {ROWS} neurons")
    settled(page, f=None)


def test_search_finds_beginnings_of_words_in_explanations_and_tokens(page: Page, base: str) -> None:
    open_layer(page, base)
    box = page.get_by_label("Search explanations and tokens")
    box.fill("Ca")
    settled(page, q="Ca")
    expect(page.locator(".count")).to_have_text(f"5 of {ROWS} neurons")
    assert listed(page) == [0, 8, 16, 24, 32]
    neurons = page.locator(".table-row [data-column=neuron]")
    for typed, found in (("t17", 17), ("cats 16", 16), ("\u05e9\u05dc\u05d5", HOSTILE)):
        box.fill(typed)
        expect(neurons).to_have_text([str(found)])
    box.fill("nowhere")
    expect(page.get_by_text("No row passes the filters.")).to_be_visible()
    box.fill("")
    expect(page.locator(".count")).to_have_text(f"{ROWS} of {ROWS} neurons")


def test_columns_can_be_chosen_and_the_choice_is_in_the_url(page: Page, base: str) -> None:
    open_layer(page, base)
    page.get_by_text("Columns and limits").click()
    page.get_by_label("strongest tokens", exact=True).uncheck()
    settled(
        page, columns=f"neuron,explanation,{MAIN},{column_key('first', RANDOM)},density,maximum"
    )
    expect(page.get_by_role("columnheader", name="strongest tokens")).to_have_count(0)
    page.get_by_label("correlation · top and random · token-lookup · second", exact=True).check()
    expect(page.get_by_role("columnheader", name="second")).to_have_count(1)
    page.reload()
    drawn(page)
    expect(page.get_by_role("columnheader", name="second")).to_have_count(1)
    expect(page.get_by_role("columnheader", name="strongest tokens")).to_have_count(0)


def test_the_run_whose_explanations_are_shown_can_be_chosen(page: Page, base: str) -> None:
    open_layer(page, base)
    page.get_by_label("Explanations of").select_option("second")
    settled(page, run="second")
    expect(page.get_by_text("rather dogs number 1", exact=True)).to_be_visible()
    assert cell(page, 1, column_key("second", LEADING)) == f"{score(1, 0.2):.3f}"


def test_dragging_across_a_histogram_filters_and_a_click_clears(page: Page, base: str) -> None:
    open_layer(page, base)
    area = page.locator(".plots figure").nth(2).locator(".brush")  # maximum, 1 to 40
    box = area.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 50, steps=3)
    page.mouse.move(box["x"] + box["width"] + 20, box["y"] + 50, steps=3)
    page.mouse.up()
    expect(page.locator(".chip")).to_have_count(1)
    filters = state(page)["f"]
    low = float(filters.removeprefix("maximum:").removesuffix(","))
    assert 20 <= low <= 21
    maxima = layer().statistics["maximum"]
    kept = len([value for value in maxima if value is not None and value >= low])
    assert count(page) == f"{kept} of {ROWS} neurons"
    area.click(position={"x": 5, "y": 20})
    expect(page.locator(".count")).to_have_text(f"{ROWS} of {ROWS} neurons")
    page.go_back()
    drawn(page)
    assert state(page)["f"] == filters
    assert count(page) == f"{kept} of {ROWS} neurons"


def test_the_keyboard_brushes_too(page: Page, base: str) -> None:
    open_layer(page, base)
    edge = page.get_by_role("slider", name="Lowest maximum")
    assert edge.get_attribute("aria-valuetext") == "open"
    edge.focus()
    edge.press("Shift+ArrowRight")
    expect(page.locator(".chip")).to_have_count(1)
    assert float(edge.get_attribute("aria-valuenow") or 0) == pytest.approx(1 + 39 / 8, abs=0.01)
    edge.press("Home")
    expect(page.locator(".chip")).to_have_count(0)


def test_a_box_in_the_scatter_filters_both_columns(page: Page, base: str) -> None:
    open_layer(page, base)
    box = page.locator(".scatter .brush").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.7, steps=4)
    page.mouse.up()
    expect(page.locator(".chip")).to_have_count(2)
    assert {part.partition(":")[0] for part in state(page)["f"].split(";")} == {"density", MAIN}
    page.get_by_label("Level axis").select_option("maximum")
    settled(page, x="maximum")
    expect(page.get_by_role("slider", name="Lowest maximum")).to_have_count(2)


def test_arrows_and_pages_move_through_the_rows_and_enter_opens_one(page: Page, base: str) -> None:
    open_layer(page, base)
    table = page.get_by_role("grid")
    assert table.get_attribute("aria-rowcount") == str(ROWS + 1)
    table.focus()
    current = page.locator("[aria-selected=true] [data-column=neuron]")
    ends = (("End", ROWS - 1), ("ArrowUp", ROWS - 2), ("Home", 0))
    for key, expected in (("ArrowDown", 0), ("ArrowDown", 1), *ends):
        table.press(key)
        expect(current).to_have_text(str(expected))
    table.press("PageDown")
    assert int(current.inner_text()) > 3
    active = page.locator(f"#{table.get_attribute('aria-activedescendant')}")
    assert active.get_attribute("aria-rowindex") == str(int(current.inner_text()) + 2)
    chosen = current.inner_text()
    table.press("Enter")
    drawn(page)
    settled(page, page="neuron", neuron=chosen)
    page.go_back()
    drawn(page)
    expect(page.locator("[aria-selected=true] [data-column=neuron]")).to_have_text(chosen)


def test_back_from_a_neuron_that_was_clicked_comes_to_its_row(page: Page, base: str) -> None:
    open_layer(page, base, sort="-neuron")
    page.locator(".table").evaluate("table => (table.scrollTop = table.scrollHeight)")
    page.get_by_role("link", name="2", exact=True).click()
    settled(page, page="neuron", neuron="2")
    page.go_back()
    drawn(page)
    settled(page, sort="-neuron", at="2")
    expect(page.get_by_role("link", name="2", exact=True)).to_be_in_viewport()


def test_a_link_says_all_that_is_shown(page: Page, base: str) -> None:
    open_layer(
        page, base, run="second", sort="-maximum", f="density:0.001,0.5;maximum:,30", q="number",
        columns="neuron,maximum,density", h="maximum,maximum,density", x="neuron", y="maximum",
        panel="open", at="2",
    )  # fmt: skip
    density, maximum = (layer().statistics[key] for key in ("density", "maximum"))
    kept = [
        index
        for index in range(ROWS)
        if 0.001 <= (density[index] or 0) <= 0.5 and (maximum[index] or 0) <= 30
    ]
    assert count(page) == f"{len([at for at in kept if at != HOSTILE])} of {ROWS} neurons"
    expect(page.locator(".columns")).to_have_attribute("open", "")
    plotted = [node.input_value() for node in page.locator(".plots select").all()]
    assert plotted == ["maximum", "maximum", "density", "maximum", "neuron"]
    heads = page.locator(".table-heads").inner_text().split()
    assert heads == ["neuron", "density", "maximum▼"]


@pytest.mark.parametrize(
    "nonsense",
    [
        {"sort": "-nothing", "f": "x:1,2;density:a,b;;", "columns": "constructor,toString"},
        {"run": "constructor", "h": ",,", "x": "__proto__", "at": "-1", "plots": "?", "panel": "?"},
        {"f": "density:1e999,", "at": "9" * 30, "q": "\x00\u202e"},
    ],
)
def test_a_link_that_names_what_does_not_exist_shows_the_usual(
    page: Page, base: str, nonsense: dict[str, str]
) -> None:
    open_layer(page, base, **nonsense)
    assert count(page) == f"{ROWS} of {ROWS} neurons"


def test_an_unknown_site_is_said(page: Page, base: str) -> None:
    for name in ("nowhere", "constructor", "__proto__"):
        open_page(page, base, page="layer", site=name)
        assert f"There is no site “{name}” in this workspace." in says(page)


def test_missing_scores_columns_and_rows_are_named_and_the_rest_is_shown(
    page: Page, tmp_path: Path
) -> None:
    site = layer(complete=False, unscored=["third"])
    folder = write_site(tmp_path / "site", [site])
    (folder / "api" / KEY / "columns" / "density.json").unlink()
    (folder / "api" / KEY / "rows" / "0" / "0.json").unlink()
    with serving_files(folder) as base:
        open_layer(page, base, run="third")
        text = says(page)
        expect(page.get_by_text("⚠ This is not here.").first).to_be_visible()
        page.complaints.clear()  # type: ignore[attr-defined]  # the two files are not found
    assert "Collecting is not complete: 40 of 50 neurons are here." in text
    assert "The run third has no scores. Run neuron-explainer simulate third" in text
    assert "density cannot be read: This is not here." in text


def test_a_layer_of_which_some_neurons_were_collected_calls_them_by_their_own_numbers(
    page: Page, tmp_path: Path
) -> None:
    folder = write_layer(tmp_path / "site")
    path = folder / "api" / KEY / "columns.json"
    collected = [100 + 2 * place for place in range(ROWS)]
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"neurons": collected}))
    with serving_files(folder) as base:
        open_layer(page, base, sort="-neuron", f="neuron:,120", at="110")
        assert listed(page) == list(range(120, 98, -2))
        expect(page.locator("[aria-selected=true] [data-column=neuron]")).to_have_text("110")
        link = page.get_by_role("link", name="110", exact=True)
        assert link.get_attribute("href") == f"?page=neuron&site={KEY}&neuron=110"
        assert cell(page, 110, "explanation") == "no explanation"  # the texts of row 5


def test_g_jumps_to_a_neuron_and_question_mark_lists_the_keys(page: Page, base: str) -> None:
    open_layer(page, base)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Go to a neuron")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    box = page.get_by_label("Go to neuron")
    expect(box).to_be_focused()
    for typed, wrong in (("x", "Type a number"), ("40", "0 to 39"), ("other/3", "no site “other”")):
        box.fill(typed)
        box.press("Enter")
        expect(page.locator(".wrong")).to_contain_text(wrong)
    for typed in ("12", "0/12", "blocks.0.mlp.hook_post/12", "made/blocks.0.mlp.hook_post/12"):
        box.fill(typed)
        box.press("Enter")
        settled(page, page="neuron", site=KEY, neuron="12")
        page.go_back()
        drawn(page)
