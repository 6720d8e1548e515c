"""A browser that opens the viewer's pages, and fails a test for whatever it complains about.

A folder of pages is served as the viewer serves them: on loopback, under the policy that allows no
script, style or request but our own.
"""

import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SWITCHES = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, where it is installed.

    Not for the session: Playwright keeps an event loop running, beside which no stage could run.
    """
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on the PATH: the pages are not looked at")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_SWITCHES.split())
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of 1280 x 900; errors, warnings and requests elsewhere fail the test.

    A test that expects something on the console takes it out of `page.complaints`.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    opened = context.new_page()
    complaints = watch(opened)
    yield opened
    context.close()
    assert complaints == []


def watch(page: Page) -> list[str]:
    """What `page` complains about from now on, also as its attribute `complaints`."""
    complaints: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    page.on("console", said)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://127.0.0.1:", "data:"))
            else complaints.append(f"asked for {request.url}")
        ),
    )
    page.complaints = complaints  # type: ignore[attr-defined]
    return complaints


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *said: object) -> None:
        del said


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """The address, with a slash at its end, at which the files of `folder` are served."""
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def open_page(page: Page, base: str, /, **state: str | int) -> None:
    """Go to the page with this state in its URL, and wait until it is drawn."""
    page.goto(f"{base}?{urlencode(state)}" if state else base)
    drawn(page)


def drawn(page: Page) -> None:
    """Wait until nothing is being drawn."""
    page.wait_for_selector("main:not([aria-busy])", state="attached")
