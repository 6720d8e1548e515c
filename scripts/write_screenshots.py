"""Take pictures of the viewer's pages, in light and dark, wide and narrow.

python scripts/write_screenshots.py [--workspace DIR] [--out DIR] [NAME …]

Without a workspace one is made in build/screenshots/workspace, where the embedded example is run
and its attention heads are collected and explained. All pictures go to build/screenshots/; those
that the documentation shows also to docs/images/. NAME takes some of the pages only.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
BUILT = ROOT / "build" / "screenshots"
TINY = ROOT / "data" / "tiny"
SITE, LATENTS, HEADS = "blocks.0.mlp.hook_post", "topk", "blocks.1.attn.hook_pattern"
SIZES: dict[str, ViewportSize] = {
    "wide": {"width": 1440, "height": 900},
    "narrow": {"width": 390, "height": 844},
}
RUNS = {"a": "tiny-token-lookup", "b": "tiny-token-lookup-all"}
TEXT = "Why did you leave Hartcombe? She asked what I had seen there. Why, and how did you go?"
LARGEST = 250_000  # bytes of a picture that Git keeps
_SWITCHES = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
_PATIENCE = 60.0  # seconds until the viewer answers


@dataclass(frozen=True, slots=True)
class Picture:
    """A page in a state, and whether the documentation shows it."""

    name: str
    state: dict[str, str] = field(default_factory=dict)
    scroll_to: str | None = None  # a selector
    shown: bool = False


PICTURES = (
    Picture("home"),
    Picture("layer", {"page": "layer", "site": SITE}, shown=True),
    Picture("neuron", {"page": "neuron", "site": SITE, "neuron": "3"}),
    Picture(
        "records",
        {"page": "neuron", "site": LATENTS, "neuron": "125", "mode": "overlaid"},
        scroll_to="#records",
    ),
    Picture("latent", {"page": "neuron", "site": LATENTS, "neuron": "125"}, shown=True),
    Picture("head", {"page": "neuron", "site": HEADS, "neuron": "1"}),
    Picture("compare", {"page": "compare", "site": SITE}),
    Picture("try", {"page": "try", "site": LATENTS, "neuron": "125", "text": TEXT}),
    Picture("judge", {"page": "judge", "site": SITE} | RUNS | {"n": "30", "seed": "0"}),
)


def main() -> None:
    """Take them all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--out", type=Path, default=BUILT)
    parser.add_argument("names", nargs="*", metavar="NAME")
    asked = parser.parse_args()
    workspace = asked.workspace or _example(BUILT / "workspace")
    asked.out.mkdir(parents=True, exist_ok=True)
    pictures = [one for one in PICTURES if not asked.names or one.name in asked.names]
    with _viewer(workspace) as url, _chromium() as browser:
        for picture in pictures:
            _take(browser, url, picture, asked.out)


def _take(browser: Browser, url: str, picture: Picture, folder: Path) -> None:
    """One page at every size, in light and dark."""
    for size, viewport in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=viewport, color_scheme=scheme)
            page = context.new_page()
            path = folder / f"view-{picture.name}-{size}-{scheme}.png"
            _open(page, url, picture)
            page.screenshot(path=path)
            print(f"{path.name}  {path.stat().st_size:,} bytes")
            context.close()
            if picture.shown and (size, scheme) == ("wide", "light"):
                _keep(path, picture)


def _open(page: Page, url: str, picture: Picture) -> None:
    page.goto(f"{url}?{urlencode(_resolved(page, url, picture.state))}")
    page.wait_for_selector("main:not([aria-busy])", state="attached")
    page.wait_for_load_state("networkidle")
    if picture.scroll_to:
        page.evaluate("where => document.querySelector(where).scrollIntoView()", picture.scroll_to)
    page.wait_for_load_state("networkidle")


def _resolved(page: Page, url: str, state: dict[str, str]) -> dict[str, str]:
    """The state with the site's key in place of the end of its name."""
    if "site" not in state:
        return state
    sites = page.request.get(f"{url}api/workspace.json").json()["sites"]
    found = [key for key, site in sites.items() if site["name"].endswith(state["site"])]
    return state | {"site": found[0]} if found else state


def _keep(path: Path, picture: Picture) -> None:
    size = path.stat().st_size
    if size > LARGEST:
        sys.exit(f"{path} has {size:,} bytes; docs/images takes {LARGEST:,} at most")
    IMAGES.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, IMAGES / f"view-{picture.name}.png")


@contextmanager
def _chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("there is no chromium on the PATH: install it to take pictures")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_SWITCHES.split())
        yield browser
        browser.close()


@contextmanager
def _viewer(workspace: Path) -> Iterator[str]:
    """The address of `neuron-explainer view` over the workspace."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["view", "--workspace", str(workspace), "--port", str(port), "--no-open"]
    viewer = subprocess.Popen([sys.executable, "-m", "neuron_explainer", *command])
    try:
        _wait_for(port, viewer)
        yield f"http://127.0.0.1:{port}/"
    finally:
        viewer.terminate()
        viewer.wait()


def _wait_for(port: int, viewer: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and viewer.poll() is None:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("the viewer did not start")


def _example(workspace: Path) -> Path:
    """A workspace with the example run, and with heads; made once."""
    if (workspace / "scoring" / "heads").is_dir():
        return workspace
    site = ["--subject", "tiny", "--site", HEADS]
    model = ["--subject", str(TINY / "model"), "--name", "tiny", "--site", HEADS]
    for command in (
        ["run"],
        ["collect", *model, "--corpus", str(TINY / "corpus.jsonl.gz")],
        ["explain", *site, "--explainer", "pair-lookup", "--run", "heads"],
        ["simulate", "heads", "--simulator", "pair-lookup"],
        ["score", "heads"],
    ):
        _neuron_explainer(*command, "--workspace", str(_init(workspace)))
    return workspace


def _init(workspace: Path) -> Path:
    if not workspace.exists():
        _neuron_explainer("init", str(workspace))
    return workspace


def _neuron_explainer(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "neuron_explainer", *arguments], check=True)


if __name__ == "__main__":
    main()
