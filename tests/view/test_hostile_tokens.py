"""Foreign text on the page of a neuron: it is seen, and does nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import open_page, serving_files
from made_neurons import SITE, explanation, neuron, record
from made_neurons import site as made_site
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.enable_socket

MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
ADDRESS = "javascript:document.title='broken'"
# a token as the contract writes it, and what is to be seen of it
SHOWN = {
    MARKUP: MARKUP,
    ADDRESS: ADDRESS,
    " \u202egnp.exe": " \\u202egnp.exe",  # would turn the text round
    "\u2066isolate\u2069": "\\u2066isolate\\u2069",
    "\x1b[31m\x00": "\\x1b[31m\\x00",
    "\u200bhidden\ufeff": "\\u200bhidden\\ufeff",
    "\ud800": "\\ud800",  # half a surrogate pair
    "\\xe2\\x82": "\\xe2\\x82",  # bytes that are no UTF-8
    "a\\\\xe2b": "a\\xe2b",  # a backslash that is one
    "\u0301e": "\u25cc\u0301e",
    "e\u0301": "e\u0301",
    "\n": "⏎\n",
    "\r\n\n": "␍⏎⏎\n",
    "\t": "⇥",
    "\u2028": "\\u2028",
    "\u00a0x": "⍽x",
    " \u0645\u0631\u062d\u0628\u0627": " \u0645\u0631\u062d\u0628\u0627",
    "__proto__": "__proto__",
    "": "",
}
LENGTH = 5000


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site with a neuron whose every text is hostile, and one of a right-to-left script."""
    tokens = [*SHOWN, "x" * LENGTH]
    activations = [float(place) for place in range(len(tokens))]
    effects = [{"token": token, "effect": 1.0} for token in tokens]
    rows = [
        {"previous": token, "token": token, "activation": 1.0, "share": 0.1, "count": 3}
        for token in tokens
    ]
    hostile = neuron(
        0,
        records=[record(tokens, unscored=[], activations=activations, maximum=activations[-1])],
        explanations=[
            explanation(text=MARKUP + "\u202e\x00\ud800" + "y" * LENGTH, table=rows, otherwise=0.0),
            explanation("second", text=None, scores=[], failure={
                "stage": "explain", "cause": MARKUP, "message": MARKUP}),
        ],
        promoted=effects, suppressed=effects, token_table=rows,
        nearest=[{"neuron": 1, "cosine": 0.5, "explanation": MARKUP + "z" * LENGTH}],
        neuronpedia=ADDRESS,
    )  # fmt: skip
    words = "\u0641\u064a \u0627\u0644\u0628\u062f\u0627\u064a\u0629 \u0643\u0627\u0646\u062a"
    arabic = neuron(1, records=[record([words[:2], words[2:9], words[9:]], unscored=[])])
    folder: Path = made_site(
        tmp_path_factory.mktemp("site"), {(SITE, 0): hostile, (SITE, 1): arabic}
    )
    with serving_files(folder) as address:
        yield address


def open_hostile(page: Page, base: str, **state: str) -> None:
    opened = "table-first,text-first,tokens,scores-first"
    open_page(page, base, page="neuron", site=SITE, neuron=0, full="1", open=opened, **state)


def test_every_character_of_a_token_is_seen(page: Page, base: str) -> None:
    open_hostile(page, base)
    found = page.locator(".heat [data-place]").evaluate_all(
        "all => all.map(one => one.textContent)"
    )
    assert found[: len(SHOWN)] == list(SHOWN.values())
    assert found[-1].endswith(f"… {LENGTH - 240} more")
    assert len(found[-1]) < 300


def test_no_text_becomes_an_element_a_script_or_an_address(page: Page, base: str) -> None:
    open_hostile(page, base)
    page.wait_for_load_state("networkidle")
    assert page.locator("main img, main script, main iframe").count() == 0
    assert "broken" not in page.title()
    addresses = page.locator("main a").evaluate_all(
        "all => all.map(one => one.getAttribute('href'))"
    )
    assert addresses
    assert not [address for address in addresses if not address.startswith("?")]
    expect(page.locator(".explanation").first).to_contain_text(MARKUP)
    expect(page.locator(".explanation").nth(1)).to_contain_text(f"explain failed: {MARKUP}")


def test_labels_and_tooltips_are_as_harmless(page: Page, base: str) -> None:
    open_hostile(page, base)
    page.locator(".heat [data-place='2']").hover()
    expect(page.locator("#heat-tip")).to_contain_text("“␣\\u202egnp.exe” · token 2")
    labels = page.locator("[aria-label]").evaluate_all(
        "all => all.map(one => one.getAttribute('aria-label')).join('')"
    )
    assert not set(labels) & set("\u202e\u2066\x00\x1b\u200b\ufeff")


@pytest.mark.parametrize("width", [360, 1280])
def test_long_text_breaks_rather_than_widening_the_page(page: Page, base: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    open_hostile(page, base)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_line_break_is_a_symbol_and_a_real_break_until_breaks_are_off(
    page: Page, base: str
) -> None:
    open_hostile(page, base)
    place = list(SHOWN).index("\n")
    after = page.locator(f".heat [data-place='{place + 2}']")
    broken = after.bounding_box()
    page.get_by_label("line breaks").uncheck()
    flat = after.bounding_box()
    assert broken is not None
    assert flat is not None
    assert broken["y"] > flat["y"]


def test_right_to_left_text_runs_from_the_right_in_one_line(page: Page, base: str) -> None:
    open_page(page, base, page="neuron", site=SITE, neuron=1, full="1")
    boxes = [page.locator(f".heat [data-place='{place}']").bounding_box() for place in range(3)]
    lefts = [box["x"] for box in boxes if box]
    assert lefts == sorted(lefts, reverse=True)
    page.locator(".heat [data-place='0']").focus()
    page.keyboard.press("ArrowLeft")  # onwards, in this direction
    expect(page.locator(".heat [data-place='1']")).to_be_focused()
