"""What collecting, scoring and reading cost, next to the subject's own forward pass.

One thread; a random GPT-2 (6 layers, width 384, so 9,216 MLP neurons) over random text whose words
follow Zipf's law. Times are processor time, medians of runs that go side by side, batch by batch;
ratios are medians of the ratios within each run. See README.md here.
"""

import argparse
import ctypes
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor

from neuron_explainer.collect.batches import Batch, batches
from neuron_explainer.collect.kept import Sizes
from neuron_explainer.collect.moments import MomentAccumulator
from neuron_explainer.collect.site import SiteCollector
from neuron_explainer.collect.stage import collect
from neuron_explainer.collect.token_table import TableLayout, token_layout
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.record_set import Corpus, RecordSet
from neuron_explainer.runner import Progress, silent
from neuron_explainer.score.panel import score_all
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.base import Observer, Tokenizer
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.sparse import SparseSubject

LAYERS, WIDTH, HEADS, VOCABULARY, CONTEXT = 6, 384, 6, 50_257, 1024
EXCERPT, PER_DOCUMENT = 64, 10  # tokens an excerpt, excerpts a document
ALL_SITES = [f"blocks.{layer}.mlp.hook_post" for layer in range(LAYERS)]
ONE_SITE = ["blocks.2.mlp.hook_post"]
GROWN = 20_000  # excerpts of the larger corpus
RANDOM_LAYER, READS = 6400, 200
SCORED, SCORED_TOKENS = 10_000, 10 * (EXCERPT + 1)
SUBJECT = SubjectSettings(model="random-gpt2")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
DEFAULTS = CollectSettings()
TRUNK, FULL = "trunk forward", "full forward"
RECORDS, WHOLE = "collect, records only", "  and moments, histogram, token table"
WRITTEN, ONE_LAYER = "  and reading and writing files", "layer 2 alone, with all of that"
PEER = "best peer, as published: 7.1 × trunk, 7.4 GB and 947 MB for a quarter of these tokens"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report; `ok` is None where there is no aim."""

    what: str
    figure: str
    ratios: str = ""
    aim: str = ""
    ok: bool | None = None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=800, help="excerpts of 64 tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--parts", default="memory,time,latents,growth,score,read")
    parser.add_argument("--site", action="append", help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, default=DEFAULTS.memory_mb, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if options.child:
        print(orjson.dumps(collect_alone(options)).decode())
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sizes = [options.sequences // 4, options.sequences // 2, options.sequences]
        make_subject(root / "model")
        for size in sizes:
            make_corpus(root / f"{size}.jsonl", size)
        parts: dict[str, tuple[str, Callable[..., list[Line]], tuple[Any, ...]]] = {
            # before the rest: a child's peak is never reported below what its parent held
            "memory": (f"memory and disk, {LAYERS * 4 * WIDTH:,} neurons", memory_lines, (sizes,)),
            "growth": ("ten times the corpus, processor time of the pass", growth_lines, ()),
            "time": (f"processor time, {sizes[-1]} excerpts", time_lines, (sizes, options.repeats)),
            "latents": ("latents, processor time", latent_lines, (sizes[-1], options.repeats)),
            "score": ("scoring, processor time", scoring_lines, (options.repeats,)),
            "read": ("reading, wall-clock time", reading_lines, (sizes[0],)),
        }
        for name, (title, measure, details) in parts.items():
            if name in options.parts.split(","):
                report(title, measure(root, *details))
    print(PEER)


def keep_memory() -> None:
    """Have glibc keep what is freed, for all alike.

    Otherwise it gives memory back to the system at moments that depend on what ran before, and
    page faults take up to a third of the time of one run and nothing of the next.
    """
    with suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**30)


def report(title: str, lines: Sequence[Line]) -> None:
    """Print `lines` as an aligned table."""
    verdicts = {None: "", True: "ok", False: "missed"}
    rows = [(title, "", "", "aim", "")]
    rows += [(line.what, line.figure, line.ratios, line.aim, verdicts[line.ok]) for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    print(flush=True)


def make_subject(folder: Path) -> None:
    """A random GPT-2 with one word for each row of its vocabulary."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, vocab_size=VOCABULARY, n_positions=CONTEXT
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    words = {"<bos>": VOCABULARY - 1} | {f"w{index}": index for index in range(VOCABULARY - 1)}
    backend = Backend(WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = WhitespaceSplit()
    fast: Any = transformers.PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=backend, bos_token="<bos>")
    tokenizer.save_pretrained(folder)


def make_corpus(path: Path, excerpts: int) -> None:
    """Documents of random words, the more frequent the lower their number."""
    ranks = np.arange(VOCABULARY - 1)
    weights = 1.0 / (ranks + 2.7)
    random = np.random.default_rng(1)
    words = random.choice(ranks, (excerpts, EXCERPT), p=weights / weights.sum())
    with path.open("wb") as file:
        for first in range(0, excerpts, PER_DOCUMENT):
            document = words[first : first + PER_DOCUMENT].ravel()
            file.write(orjson.dumps({"text": " ".join(f"w{word}" for word in document)}) + b"\n")


def settings_for(root: Path, excerpts: int, sites: Sequence[str], memory: int) -> CollectSettings:
    """The default settings but for the memory allowed."""
    corpus = str(root / f"{excerpts}.jsonl")
    return CollectSettings(corpus=corpus, sites=tuple(sites), memory_mb=memory)


def run_collect(
    root: Path,
    name: str,
    excerpts: int,
    subject: Any,
    sites: Sequence[str] = ALL_SITES,
    progress: Progress = silent,
    memory: int = DEFAULTS.memory_mb,
) -> Path:
    """The collect stage as a user runs it; its folder."""
    data = root / name
    settings = settings_for(root, excerpts, sites, memory)
    collect(data, SUBJECT, settings, progress, subject=subject)
    return data / SUBJECT.folder_name


class Stopwatch:
    """Progress that notes the processor time of each stage, and the process's peak until then."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}  # KiB

    @contextmanager
    def __call__(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Time one stage."""
        del total, unit
        start = time.process_time()
        yield lambda _: None
        self.seconds[label] = time.process_time() - start
        self.peaks[label] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def collect_alone(options: argparse.Namespace) -> dict[str, Any]:
    """Collect once, in a process of its own.

    The process's peak in KiB, the bytes of each kind of file it wrote and the seconds of its pass.
    """
    root, excerpts, sites = options.child, options.sequences, options.site or ALL_SITES
    subject = HuggingFaceSubject.load(str(root / "model"))
    watch, name = Stopwatch(), f"alone-{excerpts}"
    folder = run_collect(root, name, excerpts, subject, sites, watch, options.memory)
    sizes: dict[str, int] = {}
    for file in folder.rglob("*.*"):
        if file.is_file():
            kind = "corpus" if file.parent.name == "corpus" else file.name.split("-")[0]
            kind = kind if file.suffix == ".parquet" or kind == "corpus" else "other"
            sizes[kind] = sizes.get(kind, 0) + file.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    of_pass = {"seconds": watch.seconds["collect"], "peak_of_pass": watch.peaks["collect"]}
    return {"peak": peak, "bytes": sizes, **of_pass}


def alone(root: Path, excerpts: int, *options: str) -> Any:
    """What `collect_alone` returns in a process of its own."""
    child = [sys.executable, __file__, "--child", str(root), "--sequences", str(excerpts)]
    return orjson.loads(subprocess.run([*child, *options], check=True, capture_output=True).stdout)


def growth_lines(root: Path, excerpts: int = GROWN // 10) -> list[Line]:
    """The first layer's neurons over a corpus and over one of ten times its size.

    With so little memory that token tables and quantiles use all of it for either.
    """
    results = []
    for size in (excerpts, 10 * excerpts):
        make_corpus(root / f"{size}.jsonl", size)
        results.append(alone(root, size, "--site", "blocks.0.mlp.hook_post", "--memory", "32"))
    times, peaks = ([result[key] for result in results] for key in ("seconds", "peak_of_pass"))
    details = f"{times[0]:.1f} s and {times[1]:.1f} s"
    held = " and ".join(f"{peak / 2**20:.2f} GB" for peak in peaks)
    longer, larger = times[1] / times[0], peaks[1] / peaks[0]
    return [
        Line(f"time, {GROWN:,} excerpts", f"{longer:.2f} ×", details, "≤ 11 ×", longer <= 11),
        Line("peak memory of the pass", f"{larger:.2f} ×", held, "≤ 1.1 ×", larger <= 1.1),
    ]


def memory_lines(root: Path, sizes: Sequence[int]) -> list[Line]:
    """Peak memory of a process that does nothing but collect, and what it leaves on disk."""
    lines: list[Line] = []
    peaks: list[float] = []
    for size in sizes:
        result = alone(root, size)
        peaks.append(result["peak"] / 2**20)
        aims = ("≤ 1.50 GB", peaks[-1] <= 1.5)
        lines.append(Line(f"peak memory, {size} excerpts", f"{peaks[-1]:.2f} GB", "", *aims))
    growth = peaks[-1] / peaks[0]
    what = "  growth, four times the excerpts"
    lines.append(Line(what, f"{growth:.2f} ×", "", "≤ 1.25 ×", growth <= 1.25))
    parts = {name: size / 1e6 for name, size in sorted(result["bytes"].items())}
    total = sum(parts.values())
    details = ", ".join(f"{name} {part:.1f}" for name, part in parts.items())
    return [*lines, Line("disk", f"{total:.1f} MB", details, "≤ 60 MB", total <= 60)]


class NoMoments(MomentAccumulator):
    """Stands in for moments, density and histogram, to see what they cost."""

    def update(self, rows: Tensor) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A subject and a tokenised corpus."""

    subject: HuggingFaceSubject
    model: Any
    corpus: Corpus
    layout: TableLayout
    root: Path
    excerpts: int

    @classmethod
    def prepare(cls, root: Path, excerpts: int) -> "Workload":
        """The model loaded, the corpus tokenised and each file read once."""
        model = transformers.GPT2LMHeadModel.from_pretrained(root / "model")
        tokenizer = transformers.AutoTokenizer.from_pretrained(root / "model")
        subject = HuggingFaceSubject(model, tokenizer)
        corpus = Corpus(
            run_collect(root, f"time-{excerpts}", excerpts, subject, ONE_SITE) / "corpus"
        )
        layout = token_layout(corpus, DEFAULTS.token_minimum, 1 << 20)
        return cls(subject, model, corpus, layout, root, excerpts)

    def batches(self) -> Iterator[Batch]:
        """As collect takes them."""
        return batches(self.corpus, DEFAULTS.batch, DEFAULTS.seed)

    def trunk(self) -> Iterator[None]:
        """All blocks, without the vocabulary head."""
        for batch in self.batches():
            with torch.inference_mode():
                self.model.base_model(torch.from_numpy(batch.tokens), use_cache=False)
            yield

    def full(self) -> Iterator[None]:
        """All blocks and the logits of every position."""
        for batch in self.batches():
            with torch.inference_mode():
                self.model(torch.from_numpy(batch.tokens), use_cache=False)
            yield

    def stream(self, *, statistics: bool) -> Iterator[None]:
        """Collect all layers in memory, with or without moments and token table."""
        count, longest = len(self.corpus), int(self.corpus.lengths.max())
        sizes = Sizes(DEFAULTS.top, DEFAULTS.random, DEFAULTS.per_band, longest, count, count)
        layouts = {"token": self.layout} if statistics else {}
        widths = self.subject.sites()
        collectors = {site: SiteCollector(widths[site], sizes, layouts, 0) for site in ALL_SITES}
        if not statistics:
            for collector in collectors.values():
                collector.moments = NoMoments(collector.neurons)
        for batch in self.batches():
            observers = {
                site: partial(collector.update, batch) for site, collector in collectors.items()
            }
            with torch.inference_mode():
                self.subject.observe(torch.from_numpy(batch.tokens), observers)
            yield

    def latents(self, subject: SparseSubject, site: str, *, kept: bool) -> Iterator[None]:
        """Read an autoencoder's latents, all layers below included, and keep them or not."""
        count, longest = len(self.corpus), int(self.corpus.lengths.max())
        sizes = Sizes(DEFAULTS.top, DEFAULTS.random, DEFAULTS.per_band, longest, count, count)
        collector = SiteCollector(subject.sites()[site], sizes, {"token": self.layout}, 0)
        for batch in self.batches():
            observer = partial(collector.update_latents, batch) if kept else lambda _: None
            with torch.inference_mode():
                subject.observe_latents(torch.from_numpy(batch.tokens), {}, {site: observer})
            yield

    def end_to_end(self, sites: Sequence[str]) -> Iterator[None]:
        """The collect stage without tokenising: read the corpus, run, write every shard."""
        data = self.root / f"time-{self.excerpts}"
        for manifest in data.glob("*/blocks.*/manifest.json"):
            shutil.rmtree(manifest.parent)
        run_collect(self.root, data.name, self.excerpts, self.subject, sites)
        yield


Task = Callable[[], Iterator[None]]  # does a step of its work whenever it is asked for the next


def turns(tasks: Mapping[str, Task], repeats: int) -> dict[str, list[float]]:
    """Seconds of processor time of every task in every turn.

    The tasks go step by step, each in turn, so that what else the machine does slows all alike.
    """
    seconds: dict[str, list[float]] = {name: [0.0] * repeats for name in tasks}
    for turn in range(repeats):
        running = {name: task() for name, task in tasks.items()}
        while running:
            for name, steps in list(running.items()):
                start = time.process_time()
                if next(steps, True):
                    del running[name]
                seconds[name][turn] += time.process_time() - start
    return seconds


def ratio(seconds: Sequence[float], unit: Sequence[float]) -> float:
    """The median ratio within a turn."""
    return statistics.median(one / other for one, other in zip(seconds, unit, strict=True))


def time_lines(root: Path, sizes: Sequence[int], repeats: int) -> list[Line]:
    """Collect next to the forward pass, and how its time grows with the corpus."""
    keep_memory()
    work = Workload.prepare(root, sizes[-1])
    aims: dict[str, dict[str, float]] = {
        RECORDS: {TRUNK: 1.2},
        WHOLE: {TRUNK: 1.4, FULL: 0.7},
        WRITTEN: {TRUNK: 1.4, FULL: 0.7},
        ONE_LAYER: {TRUNK: 0.7},
    }
    tasks: dict[str, Task] = {
        TRUNK: work.trunk,
        FULL: work.full,
        RECORDS: partial(work.stream, statistics=False),
        WHOLE: partial(work.stream, statistics=True),
        WRITTEN: partial(work.end_to_end, ALL_SITES),
        ONE_LAYER: partial(work.end_to_end, ONE_SITE),
    }
    for size in sizes[:-1]:
        smaller = Workload.prepare(root, size)
        tasks[f"  … of {size} excerpts"] = partial(smaller.end_to_end, ALL_SITES)
    seconds = turns(tasks, repeats)
    lines = []
    for name, values in seconds.items():
        of = {unit: ratio(values, seconds[unit]) for unit in (TRUNK, FULL)}
        wanted = aims.get(name, {})
        aim = " and ".join(f"≤ {most} × {unit.split()[0]}" for unit, most in wanted.items())
        ok = all(of[unit] <= most for unit, most in wanted.items()) if wanted else None
        ratios = f"{of[TRUNK]:.2f} × trunk, {of[FULL]:.2f} × full"
        lines.append(Line(name, f"{statistics.median(values):.2f} s", ratios, aim, ok))
    return lines


def latent_lines(root: Path, excerpts: int, repeats: int) -> list[Line]:
    """All that collect keeps of latents, next to trunk and encoder alone."""
    work = Workload.prepare(root, excerpts)
    site = f"blocks.{LAYERS - 1}.hook_resid_post/sae"
    tasks: dict[str, Task] = {}
    for times in (8, 16):
        torch.manual_seed(times)
        weight = torch.randn(times * WIDTH, WIDTH) / WIDTH**0.5
        autoencoder = Autoencoder(
            encoder_weight=weight,
            encoder_bias=torch.zeros(len(weight)),
            decoder_weight=weight.T.contiguous(),
            decoder_bias=torch.zeros(WIDTH),
            k=32,
        )
        subject = SparseSubject(work.subject, {site: autoencoder})
        name = f"{len(weight):,} latents, k = 32"
        tasks[f"trunk and encoder, {name}"] = partial(work.latents, subject, site, kept=False)
        tasks[f"  collect, {name}"] = partial(work.latents, subject, site, kept=True)
    seconds = turns(tasks, repeats)
    lines, unit = [], ""
    for name, values in seconds.items():
        unit = name if name.startswith("trunk") else unit
        of = ratio(values, seconds[unit])
        aims = ("≤ 1.3 ×", of <= 1.3) if unit != name else ("", None)
        lines.append(Line(name, f"{statistics.median(values):.2f} s", f"{of:.2f} ×", *aims))
    return lines


def scoring_lines(_: Path, repeats: int) -> list[Line]:
    """All scores and both calibrations of many neurons."""
    random = np.random.default_rng(2)
    shape = (SCORED, SCORED_TOKENS)
    arrays: dict[str, Any] = {}
    for prefix in ("", "calibration_"):
        truth = random.standard_normal(shape, np.float32)
        arrays[f"{prefix}truth"] = truth
        noisy = truth + random.standard_normal(shape, np.float32)
        arrays[f"{prefix}predicted"] = np.clip(np.round(3 * noisy), 0, 10)
        mask = np.ones(shape, bool)
        mask[:, :: EXCERPT + 1] = False  # BOS
        arrays[f"{prefix}mask"] = mask

    def score() -> Iterator[None]:
        score_all(**arrays)
        yield

    median = statistics.median(turns({"score": score}, repeats)["score"])
    what = f"score {SCORED:,} neurons × 10 excerpts"
    return [Line(what, f"{median:.2f} s", "", "≤ 2 s", median <= 2)]


class RandomLayer:
    """A subject of one wide layer of noise: something to read back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.context = CONTEXT

    def sites(self) -> Mapping[str, int]:
        """One site."""
        return {ONE_SITE[0]: RANDOM_LAYER}

    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        """Noise, for everyone who asks."""
        for observe in observers.values():
            observe(torch.randn(*tokens.shape, RANDOM_LAYER))


def reading_lines(root: Path, excerpts: int) -> list[Line]:
    """One random neuron after another, each with its records, statistics and token table."""
    tokenizer = HuggingFaceSubject.load(str(root / "model")).tokenizer
    folder = run_collect(root, "read", excerpts, RandomLayer(tokenizer), ONE_SITE)
    record_set = RecordSet(folder.parent, folder.name, ONE_SITE[0])
    milliseconds = []
    for index in np.random.default_rng(3).choice(RANDOM_LAYER, READS, replace=False):
        start = time.perf_counter()
        record_set.neuron(int(index))
        milliseconds.append(1e3 * (time.perf_counter() - start))
    first, *others = milliseconds
    median, high = np.quantile(others, [0.5, 0.95])
    what = f"read 1 of {RANDOM_LAYER:,} neurons"
    return [
        Line(f"{what}, the first", f"{first:.1f} ms"),
        Line(f"{what}, median", f"{median:.1f} ms", "", "≤ 5 ms", bool(median <= 5)),
        Line(f"{what}, 95 % of reads", f"{high:.1f} ms"),
    ]


if __name__ == "__main__":
    main()
