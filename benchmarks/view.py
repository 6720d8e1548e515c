"""What the viewer costs: opening, painting, a neuron's page, memory, and a site of files.

Example: python benchmarks/view.py
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import numpy as np
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "view"))

from made_workspace import SITE, SUBJECT, MadeWorkspace

from neuron_explainer.view.contract import key_of
from neuron_explainer.view.resources import Resources
from neuron_explainer.workspace import Workspace

KEY = key_of(SUBJECT, SITE)
VISITED = 30  # neurons
SWITCHES = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# Goes to a neuron as a link does, and says how long it took until the page was drawn (ms).
VISIT = """async (neuron) => {
  const main = document.getElementById("main");
  const began = performance.now();
  history.pushState(null, "", `?page=neuron&site=KEY&neuron=${neuron}`);
  dispatchEvent(new Event("route"));
  while (main.hasAttribute("aria-busy") || !document.title.includes(String(neuron)))
    await new Promise((done) => setTimeout(done, 1));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - began;
}""".replace("KEY", KEY)


def line(what: str, figure: float, unit: str, aim: float | None = None) -> None:
    """Print one measure, with whether its aim is met."""
    met = "" if aim is None else f"| ≤ {aim:g} {unit} | {'ok' if figure <= aim else 'over'} |"
    print(f"| {what} | {figure:,.2f} {unit} {met or '| | |'}", flush=True)


@contextmanager
def made(folder: Path | None, neurons: int, simulated: bool) -> Iterator[Workspace]:
    """A workspace of `neurons`: the one in `folder`, or one that is made and goes again."""
    if folder is not None and folder.is_dir():
        yield Workspace(folder)
        return
    with TemporaryDirectory() as place:
        began = time.process_time()
        runs = ("made-first", "made-second") if simulated else ("made-first",)
        here = MadeWorkspace(folder or Path(place), neurons, runs=runs, simulated=simulated).write()
        line(f"making {neurons:,} neurons of 60 records", time.process_time() - began, "s of CPU")
        yield here


@contextmanager
def viewed(here: Workspace) -> Iterator[tuple[str, int, float]]:
    """`neuron-explainer view` as a process: its URL, its id, and the seconds until it answered."""
    command = [sys.executable, "-m", "neuron_explainer", "view", "--no-open", "--json"]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--workspace", str(here.root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = str(json.loads(process.stdout.readline())["url"])
        httpx2.get(f"{url}api/workspace.json", timeout=60).raise_for_status()
        try:
            yield url, process.pid, time.monotonic() - began
        finally:
            process.terminate()


def processor_seconds(process: int) -> float:
    """What a process has taken so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(process: int, what: str) -> float:
    """A line of /proc/PID/status, in MB."""
    found = Path(f"/proc/{process}/status").read_text().partition(f"{what}:")[2].split()[0]
    return int(found) / 1024


def in_browser(url: str, neurons: int) -> None:
    """Painting the table of all neurons, and going from neuron to neuron."""
    chosen = np.random.default_rng(0).integers(0, neurons, VISITED).tolist()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        for when in ("cold", "warm"):
            painted, filled = _painted(page, url)
            line(f"first paint, {when}", painted, "s", 1.0)
            line(f"first rows of the table, {when}", filled, "s")
        page.goto(f"{url}?page=neuron&site={KEY}&neuron=0")
        page.wait_for_selector("main:not([aria-busy])", state="attached")
        times = [page.evaluate(VISIT, neuron) for neuron in chosen]
        line(f"a neuron's page, median of {VISITED}", statistics.median(times), "ms", 150)
        again = [page.evaluate(VISIT, neuron + 1) for neuron in chosen]
        line("its neighbour's page", statistics.median(again), "ms", 150)
        browser.close()


def _painted(page: Page, url: str) -> tuple[float, float]:
    """Seconds until something of the page is there, and until the table's first rows are."""
    page.goto("about:blank")
    began = time.monotonic()
    page.goto(f"{url}?page=layer&site={KEY}", wait_until="commit")
    page.wait_for_selector("main [role=row] >> nth=5", state="attached")
    filled = time.monotonic() - began
    first = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    return float(page.evaluate(first)) / 1000, filled


def served(here: Workspace, neurons: int) -> None:
    """Opening and looking."""
    with viewed(here) as (url, process, seconds):
        line("view, until it answers", seconds, "s", 2.0)
        line("… of which on the processor", processor_seconds(process), "s", 2.0)
        in_browser(url, neurons)
        before = processor_seconds(process)
        for neuron in range(0, neurons, max(1, neurons // 100)):
            httpx2.get(f"{url}api/{KEY}/neurons/{neuron // 1000}/{neuron}.json").raise_for_status()
        line("a neuron's resource", (processor_seconds(process) - before) * 10, "ms of CPU")
        before = processor_seconds(process)
        httpx2.get(f"{url}api/{KEY}/search/1.json", timeout=900).raise_for_status()
        line("index of words, once", processor_seconds(process) - before, "s of CPU")


def remembered(here: Workspace, neurons: int) -> None:
    """The server's memory after everything was asked for once."""
    with viewed(here) as (url, process, _):
        about = httpx2.get(f"{url}api/{KEY}/columns.json", timeout=900).json()
        paths = [f"columns/{column['key']}" for column in about["columns"]]
        paths += [
            "summary",
            "search/1",
            *(f"rows/0/{block}" for block in range(0, min(1000, neurons // 16), 10)),
        ]
        paths += [f"neurons/{n // 1000}/{n}" for n in range(0, neurons, max(1, neurons // 300))]
        for path in paths:
            httpx2.get(f"{url}api/{KEY}/{path}.json", timeout=900).raise_for_status()
        what = f"memory at {neurons:,} neurons"
        line(f"{what}, the most", megabytes(process, "VmHWM"), "MB", 500)
        line(f"{what}, in the end, without mapped files", megabytes(process, "RssAnon"), "MB")


def written(here: Workspace, neurons: int) -> None:
    """The index of a static site as it would be written, and what its folders hold."""
    source = Resources(here)
    folders: Counter[str] = Counter()
    index, pages, sampled, taken = 0, 0, 0, 0.0
    for number, (path, make) in enumerate(source.paths(KEY)):
        folders[path.rpartition("/")[0]] += 1
        if "/neurons/" not in path:
            index += len(make())
        elif number % (neurons // 200 or 1) == 0:
            began = time.process_time()
            pages, sampled = pages + len(make()), sampled + 1
            taken += time.process_time() - began
    line("index of a static site, a neuron", index / neurons, "bytes", 3000)
    line("files in its fullest folder", max(folders.values()), "files", 10_000)
    line("a neuron's file", pages / sampled / 1000, "kB")
    line("writing one", taken / sampled * 1000, "ms of CPU")


def main() -> None:
    """Print a line for each measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=307_200, help="for the server's memory")
    parser.add_argument("--keep", type=Path, help="where the first workspace is, or is to stay")
    given = parser.parse_args()
    print("| what | figure | aim | |\n|---|---|---|---|")
    with made(given.keep, given.neurons, simulated=True) as here:
        shutil.rmtree(here.root / ".cache", ignore_errors=True)
        served(here, given.neurons)
        written(here, given.neurons)
    with made(None, given.many, simulated=False) as here:
        remembered(here, given.many)


if __name__ == "__main__":
    main()
