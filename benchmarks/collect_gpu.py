"""What collecting costs on a GPU, next to the bare forward pass: see README.md.

Needs neither network nor assets: the models are random, but for the embedded example. Every part
prints its lines as soon as it has them, and one that fails or does not fit says so and is left out.
"""

import argparse
import gzip
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor

from neuron_explainer.collect.batches import Batch
from neuron_explainer.collect.dense import maxima_of
from neuron_explainer.collect.fitting import Fitting
from neuron_explainer.collect.fused import Fused
from neuron_explainer.collect.kept import Sizes, _worth
from neuron_explainer.collect.moments import MomentAccumulator, _counts, _power_sums
from neuron_explainer.collect.overlap import Overlap
from neuron_explainer.collect.reservoirs import Reservoir
from neuron_explainer.collect.site import SiteCollector
from neuron_explainer.collect.stage import collect
from neuron_explainer.collect.state import Commit
from neuron_explainer.collect.token_table import TableLayout, TokenTableAccumulator
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import NeuronRecord
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.base import Latents
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.sparse import SparseSubject

DOCUMENTS = 400
EXAMPLE = Path(__file__).resolve().parents[1] / "data" / "tiny"
Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
Step = Callable[[Batch], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """A random model, the text it reads, and the corpus to which its time is projected."""

    name: str
    build: Callable[[], Any]
    vocabulary: int
    tokens: int  # of an excerpt, without BOS
    corpus: int  # excerpts
    sites: str = "blocks.{}.mlp.hook_post"
    batches: int = 6
    parts: bool = True  # whether each part of the work is timed alone, too


def gpt2(layers: int, width: int, heads: int, vocabulary: int) -> Any:
    """GPT-2 of that shape."""
    config = transformers.GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=1024,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
    )
    return transformers.GPT2LMHeadModel(config)


def llama(layers: int, width: int, inner: int, heads: int, vocabulary: int) -> Any:
    """Llama 3 of that shape, with a quarter as many keys and values as queries."""
    config = transformers.LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
    )
    return transformers.LlamaForCausalLM(config)


SHAPES = {
    "gpt2-xl": Shape("GPT-2 XL", partial(gpt2, 48, 1600, 25, 50_257), 50_257, 64, 50_000),
    "llama-8b": Shape(
        "Llama 8B",
        partial(llama, 32, 4096, 14_336, 32, 128_256),
        128_256,
        95,
        1_000_000,
        batches=4,
        parts=False,
    ),
}
TINY = {
    "gpt2-xl": Shape("GPT-2, tiny", partial(gpt2, 2, 64, 4, 500), 500, 64, 50_000),
    "llama-8b": Shape("Llama, tiny", partial(llama, 2, 64, 224, 4, 500), 500, 95, 1_000_000),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch-tokens", type=int, default=65_536)
    parser.add_argument("--batches", type=int, default=0, help="that are collected and timed")
    parser.add_argument("--tiny", action="store_true", help="small models, to see that it runs")
    parser.add_argument("--profile", action="store_true", help="the most costly GPU kernels, too")
    parser.add_argument("--plain", action="store_true", help="compile nothing")
    parts = "same,halved,gpt2-xl,latents,llama-8b,agreement"
    parser.add_argument("--parts", default=parts, help="which, in order")
    options = parser.parse_args()
    if options.tiny:
        options.batch_tokens = min(options.batch_tokens, 2048)
    if not options.plain:
        Fused.at_once = True  # a pass of thousands of batches comes to that after some of them
    torch.set_grad_enabled(False)
    started = time.perf_counter()
    say(f"{describe(options.device)}; torch {torch.__version__}")
    for part in options.parts.split(","):
        with guarded(part, options.device):
            run_part(part, options)
        say(f"[{part}: {time.perf_counter() - started:.0f} s so far]\n")


def run_part(part: str, options: argparse.Namespace) -> None:
    """One of the parts, by its name."""
    if part == "same":
        same_on_both(options.device)
        say_fused()
    elif part == "agreement":
        agreement(options.device)
    elif part == "halved":
        halved(options)
    elif part == "latents":
        latents(options)
    else:
        shape = (TINY if options.tiny else SHAPES)[part]
        Measurement.prepare(shape, options).report(options.profile)


def say_fused() -> None:
    """Whether the chains of steps could be compiled."""
    chains: dict[str, Fused[Any]] = {
        "offers": _worth,
        "powers": _power_sums,
        "histogram": _counts,
    }
    for name, fused in chains.items():
        say(f"  {name}: {'compiled' if fused.broken is None else fused.broken[:300]}")


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


@contextmanager
def guarded(part: str, device: str) -> Iterator[None]:
    """A part that fails is left out, whatever it is."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the others are still worth their time
        traceback.print_exc()
        say(f"{part} FAILED: {type(error).__name__}: {str(error).splitlines()[:1]}")
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def describe(device: str) -> str:
    """What the figures are measured on."""
    if not device.startswith("cuda"):
        return device
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB"


def finish(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def tokenizer_of(vocabulary: int) -> Any:
    """One word for each row of a vocabulary."""
    words = {"<bos>": vocabulary - 1} | {f"w{index}": index for index in range(vocabulary - 1)}
    backend = Backend(WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = WhitespaceSplit()
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(tokenizer_object=backend, bos_token="<bos>")


def zipf(vocabulary: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The probability of each token but BOS, the more frequent the lower its number."""
    weights = 1.0 / (np.arange(vocabulary - 1, dtype=np.float64) + 2.7)
    return np.asarray(weights / weights.sum(), np.float64)


def batch_of(positions: Sequence[int], vocabulary: int, tokens: int) -> Batch:
    """Excerpts of random words that follow Zipf's law."""
    random = np.random.default_rng([7, positions[0]])
    words = random.choice(vocabulary - 1, (len(positions), tokens), p=zipf(vocabulary))
    ids = np.concatenate([np.full((len(positions), 1), vocabulary - 1), words], 1)
    scored = np.ones(ids.shape, bool)
    scored[:, 0] = False
    return Batch(np.array(positions, np.int64), ids.astype(np.int64), scored)


class NoMoments(MomentAccumulator):
    """Stands in for moments, density and histogram, to see what they cost."""

    def update(self, rows: Tensor) -> None:
        """Do nothing."""

    def weigh(self, *_: Any) -> Commit:
        """Do nothing."""
        return lambda: None


class RecordsOnly(SiteCollector):
    """Keeps no moments."""

    def _place(self, device: torch.device) -> None:
        super()._place(device)
        self.moments = NoMoments(self.neurons, device)


class Measurement:
    """One model, its batches, and how long each way to run them takes."""

    def __init__(self, shape: Shape, options: argparse.Namespace, subject: Any, model: Any) -> None:
        self.shape = shape
        self.device: str = options.device
        self.subject = subject
        self.model = model
        widths = subject.sites()
        self.sites = {
            site: widths[site]
            for layer in range(subject.layers)
            if (site := shape.sites.format(layer)) in widths
        }
        size = max(1, options.batch_tokens // (shape.tokens + 1))
        self.batches = [
            batch_of(range(first, first + size), shape.vocabulary, shape.tokens)
            for first in range(0, (options.batches or shape.batches) * size, size)
        ]
        self.neurons = sum(self.sites.values())
        most = DEFAULTS.memory_mb * 2**20 // 2 // (4 * self.neurons)
        self.layout = TableLayout(np.arange(min(most, shape.vocabulary - 1)), False, 0, 0, 1)

    @classmethod
    def prepare(cls, shape: Shape, options: argparse.Namespace) -> "Measurement":
        """Build the model on the device."""
        start = time.perf_counter()
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, options.dtype))
        try:
            with torch.device(options.device):
                model = shape.build()
        finally:
            torch.set_default_dtype(torch.float32)
        subject = HuggingFaceSubject(model, tokenizer_of(shape.vocabulary))
        made = cls(shape, options, subject, model)
        say(
            f"{shape.name}, random, {options.dtype}: {len(made.sites)} sites, {made.neurons:,} "
            f"neurons; {len(made.batches)} batches of {made.batches[0].tokens.shape} tokens; "
            f"built in {time.perf_counter() - start:.1f} s"
        )
        return made

    @property
    def tokens(self) -> int:
        """Of one batch, BOS not counted."""
        return int(self.batches[0].scored.sum())

    def seconds(self, step: Step, batches: Sequence[Batch]) -> list[float]:
        """Of each batch."""
        taken = []
        for batch in batches:
            finish(self.device)
            start = time.perf_counter()
            with torch.inference_mode():
                step(batch)
            finish(self.device)
            taken.append(time.perf_counter() - start)
        return taken

    def trunk(self, batch: Batch) -> None:
        """All blocks, without the vocabulary head."""
        self.model.base_model(torch.from_numpy(batch.tokens).to(self.device), use_cache=False)

    def full(self, batch: Batch) -> None:
        """All blocks and the logits of every position, an eighth of the batch at a time."""
        for tokens in torch.from_numpy(batch.tokens).to(self.device).chunk(8):
            self.model(tokens, use_cache=False)

    def observing(self, make: Callable[[int], Callable[[Batch, Tensor], None]]) -> Step:
        """A pass in which every site has its own observer, made of its width."""
        observers = {site: make(width) for site, width in self.sites.items()}
        overlap = Overlap()

        def step(batch: Batch) -> None:
            of_batch = {
                site: overlap.behind(site, partial(observe, batch))
                for site, observe in observers.items()
            }
            self.subject.observe(torch.from_numpy(batch.tokens), of_batch)
            overlap.finish()

        return step

    def collecting(self, *, whole: bool) -> Step:
        """All neurons' records, with or without moments, histogram and token table."""
        excerpts = sum(len(batch.positions) for batch in self.batches)
        remembered = min(excerpts, max(1, DEFAULTS.memory_mb * 2**20 // 16 // self.neurons))
        sizes = Sizes(time=self.shape.tokens + 1, excerpts=self.shape.corpus, remembered=remembered)
        layouts = {"token": self.layout} if whole else {}

        def make(width: int) -> Callable[[Batch, Tensor], None]:
            return (SiteCollector if whole else RecordsOnly)(width, sizes, layouts, 0).update

        return self.observing(make)

    def report(self, profile: bool) -> None:
        """Print all lines."""
        trunk = self.line("trunk forward", self.trunk, None)
        with guarded("full forward", self.device):
            self.line("full forward", self.full, trunk)
        if self.shape.parts:
            with guarded("parts", self.device):
                self.components(trunk)
        for name, whole in (("records", False), ("records, moments, histogram, table", True)):
            with guarded(name, self.device):
                self.passing(name, self.collecting(whole=whole), trunk, profile and whole)

    def line(self, name: str, step: Step, trunk: float | None) -> float:
        """The median time of a batch, after a first one that is not counted."""
        taken = statistics.median(self.seconds(step, self.batches[:3])[1:])
        ratio = "" if trunk is None else f"  {taken / trunk:.2f} × trunk"
        say(f"  {name:44} {1e3 * taken:9.1f} ms  {self.tokens / taken:11,.0f} tokens/s{ratio}")
        return taken

    def components(self, trunk: float) -> None:
        """The trunk with one part of the work alone."""
        makers: Mapping[str, Callable[[int], Callable[[Batch, Tensor], None]]] = {
            "trunk and hooks that do nothing": lambda _: lambda *_: None,
            "… maxima alone": lambda _: maxima_alone,
            "… moments alone": lambda _: moments_alone,
            "… moments and histogram alone": self._moments_alone,
            "… token table alone": self._table_alone,
        }
        for name, make in makers.items():
            with guarded(name, self.device):
                self.line(name, self.observing(make), trunk)

    def _moments_alone(self, width: int) -> Callable[[Batch, Tensor], None]:
        held = MomentAccumulator(width, self.device)
        return lambda batch, values: held.weigh(values, batch.on(values.device))()

    def _table_alone(self, width: int) -> Callable[[Batch, Tensor], None]:
        held = TokenTableAccumulator(self.layout, width, self.device)
        return lambda batch, values: held.weigh(values, batch.on(values.device))()

    def passing(self, name: str, step: Step, trunk: float, profile: bool) -> None:
        """A pass from empty reservoirs on: its first batches keep more than the later ones."""
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
        taken = self.seconds(step, self.batches)
        later = statistics.median(taken[-max(1, len(taken) // 3) :])
        ratios = " ".join(f"{second / trunk:.2f}" for second in taken)
        say(f"  collect {name}: × trunk, batch by batch: {ratios}")
        corpus = self.shape.corpus * self.shape.tokens
        start = sum(second - later for second in taken)
        projected = corpus / self.tokens * later + start
        say(
            f"    {later / trunk:.2f} × trunk at the end, {self.tokens / later:,.0f} tokens/s; "
            f"{self.shape.corpus:,} × {self.shape.tokens} tokens in {projected:,.0f} s "
            f"({projected / 3600:.2f} h), {projected / (corpus / self.tokens * trunk):.2f} × trunk"
        )
        if self.device.startswith("cuda"):
            peak = torch.cuda.max_memory_allocated(self.device) / 2**30
            say(f"    peak GPU memory {peak:.1f} GiB")
        if profile and self.device.startswith("cuda"):
            self.profiled(step)

    def profiled(self, step: Step) -> None:
        """Where the time of a batch goes: the trunk's own kernels are among them."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            last = self.batches[-1]
            self.seconds(step, [Batch(last.positions + 1, last.tokens, last.scored)])
        averages = profile.key_averages()
        for key in ("self_device_time_total", "self_cpu_time_total"):
            say(averages.table(sort_by=key, row_limit=24, max_name_column_width=72))


DEFAULTS = CollectSettings()


def maxima_alone(batch: Batch, values: Tensor) -> None:
    """The per-excerpt maxima of a site."""
    maxima_of(values, batch.on(values.device))


def moments_alone(_: Batch, values: Tensor) -> None:
    """Power sums without a histogram."""
    _power_sums(values, torch.zeros(values.shape[2], device=values.device), None)


def same_on_both(device: str) -> None:
    """The same activations, collected on the device and on the CPU, come to the same."""
    neurons, excerpts, tokens = 512, 600, 24
    sizes = Sizes(time=tokens + 1, excerpts=excerpts, remembered=excerpts)
    layout = TableLayout(np.arange(60), False, 0, 0, 1)
    collectors = [SiteCollector(neurons, sizes, {"token": layout}, 0) for _ in range(2)]
    for first in range(0, excerpts, 120):
        batch = batch_of(range(first, first + 120), 200, tokens)
        batch.scored[::7, 15:] = False  # as of shorter excerpts
        torch.manual_seed(first)
        values = torch.randn(120, tokens + 1, neurons).bfloat16()
        collectors[0].update(batch, values)
        collectors[1].update(batch, values.to(device))
    where = collectors[1].device
    collectors[1].move(torch.device("cpu"))
    states = [collector.state() for collector in collectors]
    for collector in collectors:
        each: list[Reservoir] = [collector.kept.top, collector.kept.random]
        for reservoir in [*each, *collector.kept.bands.reservoirs]:
            reservoir.sort()
    differ = [name for name, held in states[0].items() if not torch.equal(held, states[1][name])]
    apart = {
        name: float((states[0][name] - states[1][name]).abs().max() / states[0][name].abs().max())
        for name in differ
    }
    exact = [name for name in states[0] if name not in differ]
    say(f"collected on {where} and on cpu from the same activations: {len(exact)} tensors equal")
    say(f"  relative differences of the others: {apart or 'none'}")


class ReadLatents:
    """What `Measurement.seconds` asks for: a pass that reads latents at one site."""

    def __init__(self, options: argparse.Namespace, width: int) -> None:
        shape = (TINY if options.tiny else SHAPES)["gpt2-xl"]
        self.of = Measurement.prepare(shape, options)
        self.site = f"blocks.{self.of.subject.layers // 2}.hook_resid_post"
        d_in = self.of.subject.width
        dtype = getattr(torch, options.dtype)
        weight = torch.randn(width, d_in, device=options.device) / d_in**0.5
        autoencoder = Autoencoder(
            encoder_weight=weight.to(dtype),
            encoder_bias=torch.zeros(width, dtype=dtype, device=options.device),
            decoder_weight=weight.to(dtype).T,
            decoder_bias=torch.zeros(d_in, dtype=dtype, device=options.device),
            k=32,
        )
        self.subject = SparseSubject(self.of.subject, {f"{self.site}/sae": autoencoder})
        self.width = width

    def step(self, observe: Callable[[Batch, Latents], None]) -> Step:
        """The trunk up to the site, the encoder, and what `observe` does."""

        overlap = Overlap()

        def run(batch: Batch) -> None:
            observers = {f"{self.site}/sae": overlap.behind(self.site, partial(observe, batch))}
            self.subject.observe_latents(torch.from_numpy(batch.tokens), {}, observers)
            overlap.finish()

        return run

    def report(self) -> None:
        """Print the lines."""
        unit = self.of.line(f"trunk to layer and encoder, {self.width:,}", self.step(nothing), None)
        most = DEFAULTS.memory_mb * 2**20 // 2 // (4 * self.width)
        corpus = self.of.shape.corpus
        sizes = Sizes(time=self.of.shape.tokens + 1, excerpts=corpus, remembered=1000)
        layout = TableLayout(np.arange(min(most, self.of.shape.vocabulary - 1)), False, 0, 0, 1)
        collector = SiteCollector(self.width, sizes, {"token": layout}, 0)
        name = f"{self.width:,} latents, k = 32, all of it"
        self.of.passing(name, self.step(collector.update_latents), unit, False)


def nothing(*_: Any) -> None:
    """Do nothing."""


def latents(options: argparse.Namespace) -> None:
    """An autoencoder of 8 and of 80 times the model's width."""
    for times in (8, 80):
        ReadLatents(options, times * (64 if options.tiny else 1600)).report()


def halved(options: argparse.Namespace) -> None:
    """A device that has too little memory for a batch goes on with halves of it."""
    shape = (TINY if options.tiny else SHAPES)["gpt2-xl"]
    if not options.device.startswith("cuda"):
        say("nothing to halve on a CPU")
        return
    of = Measurement.prepare(shape, options)
    site = next(iter(of.sites))
    sizes = Sizes(time=shape.tokens + 1, excerpts=shape.corpus, remembered=1000)
    found = []
    for scarce in (False, True):
        collector = SiteCollector(of.sites[site], sizes, {"token": of.layout}, 0)

        def take(batch: Batch, collector: SiteCollector = collector) -> None:
            tokens = torch.from_numpy(batch.tokens)
            with torch.inference_mode():
                of.subject.observe(tokens, {site: partial(collector.update, batch)})

        fitting = Fitting(take)
        for number, batch in enumerate(of.batches[:3]):
            if scarce and number == 1:
                torch.cuda.empty_cache()
                total = torch.cuda.get_device_properties(0).total_memory
                most = torch.cuda.memory_allocated() + 700 * 2**20
                torch.cuda.set_per_process_memory_fraction(most / total)
            fitting(batch)
        torch.cuda.set_per_process_memory_fraction(1.0)
        with torch.inference_mode():
            collector.kept.top.sort()
        found.append((collector.kept.top.positions.cpu(), collector.moments.tokens))
        say(f"  notices: {fitting.notices or 'none'}")
    share = float((found[0][0] == found[1][0]).float().mean())
    say(f"  {100 * share:.2f} % of top records alike; tokens {found[0][1]:,} and {found[1][1]:,}")


def agreement(device: str) -> None:
    """The embedded example in each precision, against float32 on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        with gzip.open(EXAMPLE / "corpus.jsonl.gz") as file:
            corpus.write_bytes(b"".join(islice(file, DOCUMENTS)))
        truth = example(Path(folder), corpus, "cpu", "float32")
        for dtype in DTYPES:
            if device != "cpu" or dtype != "float16":  # there that takes minutes
                found = example(Path(folder), corpus, device, dtype)
                say(f"the embedded example, {dtype} on {device} against float32 on cpu")
                for site in found:
                    say(f"  {compared(truth[site], found[site], site)}")


def example(root: Path, corpus: Path, device: str, dtype: Dtype) -> dict[str, Any]:
    """What collect makes of the embedded example, by site."""
    subject = SubjectSettings(model=str(EXAMPLE / "model"), device=device, dtype=dtype)
    sites = ("blocks.0.mlp.hook_post", "blocks.3.mlp.hook_post")
    settings = CollectSettings(corpus=str(corpus), sites=sites)
    data = Path(tempfile.mkdtemp(dir=root))
    start = time.perf_counter()
    done = collect(data, subject, settings)
    say(f"  collect of the example, {dtype} on {device}: {time.perf_counter() - start:.1f} s")
    return {site: RecordSet(data, done.subject, site) for site in sites}


def maximum_and_density(neuron: NeuronRecord) -> tuple[float, float]:
    """Of all its activations."""
    about = neuron.statistics
    assert about is not None
    return float(about.maximum or 0.0), float(about.density or 0.0)


def compared(truth: RecordSet, found: RecordSet, site: str) -> str:
    """How far two record sets of one site agree, in words."""
    shared, largest, densities = [], [], []
    for index in range(0, 512, 8):
        one, other = truth.neuron(index), found.neuron(index)
        tops = [
            {record.sequence for record in neuron.records if record.kind == "top"}
            for neuron in (one, other)
        ]
        shared.append(len(tops[0] & tops[1]) / len(tops[0]))
        mine, theirs = maximum_and_density(one), maximum_and_density(other)
        largest.append(abs(mine[0] - theirs[0]) / max(1e-9, abs(mine[0])))
        densities.append(abs(mine[1] - theirs[1]))
    return (
        f"{site}: {100 * float(np.mean(shared)):.1f} % of top records shared, maximum off by "
        f"{100 * float(np.median(largest)):.2f} % (median), density by "
        f"{float(np.mean(densities)):.5f} (mean)"
    )


if __name__ == "__main__":
    main()
