"""A browser that opens the viewer's pages, and fails a test for whatever it complains about.

A folder of pages is served as the viewer serves them: on loopback, under the policy that allows no
script, style or request but our own.
"""

import asyncio
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
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
_OPEN: list[Page] = []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, where it is installed. Contexts are made by `opened`."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on the PATH: the pages are not looked at")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_SWITCHES.split())
        with _outside_its_loop(started):
            yield started
        started.close()


@contextmanager
def _outside_its_loop(browser: Browser) -> Iterator[None]:
    """Playwright says that its loop runs in this thread, where other tests run loops of theirs."""
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(browser._loop)


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[Page]:
    """An empty page of a context with these options; what it complains about fails the test.

    A test that expects something on the console takes it out of `page.complaints`.
    """
    usual = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(browser._loop)
    try:
        context = browser.new_context(**usual | options)
        page = context.new_page()
        complaints = watch(page)
        _OPEN.append(page)
        try:
            yield page
        finally:
            _OPEN.remove(page)
        context.close()
    finally:
        asyncio._set_running_loop(before)
    assert complaints == [], complaints


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of 1280 x 900; errors, warnings and requests elsewhere fail the test."""
    with opened(browser) as made:
        yield made


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
            if request.url.startswith(("http://127.0.0.1:", "data:", "about:"))
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
        for page in _OPEN:  # one that still asks for something would complain of a server gone
            page.goto("about:blank")
        server.shutdown()
        thread.join()


def open_page(page: Page, base: str, /, **state: str | int) -> None:
    """Go to the page with this state in its URL, and wait until it is drawn."""
    page.goto(f"{base}?{urlencode(state)}" if state else base)
    drawn(page)


def says(page: Page, selector: str = "main") -> str:
    """The text that a reader sees there, its white space made single spaces."""
    return " ".join(page.inner_text(selector).split())


def drawn(page: Page) -> None:
    """Wait until nothing is being drawn."""
    page.wait_for_selector("main:not([aria-busy])", state="attached")
