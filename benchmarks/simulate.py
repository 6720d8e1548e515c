"""What simulating costs: around the language model, in process, and in tokens.

Without `--device` everything runs on one thread. Figures of the first part use replies that are
made up beforehand, shaped like a server's, so that nothing but this package takes time; those of
the second a model of random weights. Needs ../shared/assets (see CONTRIBUTING). See README.md here.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from collect import Line, keep_memory, report
from in_process import LARGE, LEAST, SMALL, local_lines, random_llama
from instant import (
    ASSETS,
    LENGTH,
    SEQUENCES,
    Instant,
    echoed,
    explained,
    gpt2_tokenizer,
    listed,
    readings_of,
    real_excerpts,
    requests_of,
    seconds_of,
    sequence_of,
)
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend

from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.explain.highlight import Highlight
from neuron_explainer.llm import cache, wire
from neuron_explainer.llm.base import (
    LLM,
    Capabilities,
    Masses,
    Message,
    Request,
    Response,
    Usage,
)
from neuron_explainer.llm.local_prompts import common
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Simulation, Stimulus
from neuron_explainer.score.panel import score_all
from neuron_explainer.simulate.all_at_once import AllAtOnceSimulator
from neuron_explainer.simulate.numbers import NumbersSimulator

ROUNDS = 10  # over the neurons, where they are timed without a model
FRAME = 4  # tokens around a chat message


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="for the model in process, such as cuda")
    parser.add_argument("--quick", action="store_true", help="a smoke test: figures mean nothing")
    options = parser.parse_args()
    if not ASSETS.is_dir():
        sys.exit(f"no assets in {ASSETS}")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    keep_memory()
    tokenizer = gpt2_tokenizer()
    excerpts = real_excerpts(tokenizer, 2 if options.quick else 12)
    repeats = 1 if options.quick else options.repeats
    title = f"around the model, {SEQUENCES} × {LENGTH} tokens, replies made up for timing"
    report(title, overhead_lines(tokenizer, excerpts, repeats))
    with tempfile.TemporaryDirectory() as folder:
        sizes = LEAST if options.quick else SMALL if options.device == "cpu" else LARGE
        local = random_llama(Path(folder), tokenizer, sizes, options.device)
        report("all-at-once in process, random Llama", local_lines(local, excerpts, repeats))
        report("tokens, GPT-2's", token_lines(tokenizer, Path(folder)))


async def simulated(
    simulator: Any, excerpts: Sequence[Sequence[Stimulus]]
) -> list[list[Simulation]]:
    """What a simulator makes of every neuron."""
    return [
        await simulator.simulate(explained(neuron), stimuli)
        for neuron, stimuli in enumerate(excerpts)
    ]


def scored(simulator: Any, excerpts: Sequence[Sequence[Stimulus]]) -> None:
    """All that a neuron takes but the model: prompts, replies, alignment, expectations, scores."""
    made = asyncio.run(simulated(simulator, excerpts))
    predicted = np.array([[one.activations for one in some] for some in made], np.float32)
    truth = np.random.default_rng(3).standard_normal(predicted.shape, np.float32)
    truth, predicted = (array.reshape(len(made), 2, -1) for array in (truth, predicted))
    mask = np.ones(truth[:, 0].shape, np.bool_)
    score_all(
        truth[:, 0],
        predicted[:, 0],
        mask,
        calibration_truth=truth[:, 1],
        calibration_predicted=predicted[:, 1],
        calibration_mask=mask,
    )


def overhead_lines(
    tokenizer: Backend, excerpts: Sequence[Sequence[Stimulus]], repeats: int
) -> list[Line]:
    """Neurons a second, and what decoding and the cache take beside."""
    random = np.random.default_rng(0)
    plain, chat = Capabilities(False, True, 20, False, True), Capabilities(True, False, 20, True)
    gauss = random.standard_normal((SEQUENCES * LENGTH, 11)).astype(np.float32)
    read = Instant(replace(plain, reading=True), masses=Masses(gauss, Usage(requests=1)))
    jobs: dict[str, tuple[Any, int]] = {
        "all-at-once, from a model in process": (AllAtOnceSimulator(read), 1000),
    }
    beside: list[Line] = []
    for what, able, make, shape, aim in (
        ("all-at-once, from a server", plain, AllAtOnceSimulator, echoed, 150),
        ("numbers, without log probabilities", chat, _numbers(False), _listed(False), 500),
        ("numbers, with log probabilities", chat, _numbers(True), _listed(True), 500),
    ):
        requests = asyncio.run(requests_of(make(Instant(able)), excerpts))
        bodies = [shape(tokenizer, request, random) for request in requests]
        replies = [
            wire.answer(wire.decode(body), request, "m")
            for body, request in zip(bodies, requests, strict=True)
        ]
        by_sequence = {
            sequence_of(one): other for one, other in zip(requests, replies, strict=True)
        }
        jobs[what] = (make(Instant(able, by_sequence)), aim)
        beside += decoding_lines(what, requests, bodies, replies)
    lines = []
    for what, (simulator, aim) in jobs.items():
        neurons = ROUNDS * list(excerpts)
        work = partial(scored, simulator, neurons)
        taken = [seconds_of(work) for _ in range(repeats)]
        rate = len(neurons) / statistics.median(taken)
        lines.append(Line(what, f"{rate:,.0f} neurons/s", "", f"≥ {aim:,}", rate >= aim))
    return [*lines, *beside, cache_line(gauss)]


def _numbers(logprobs: bool) -> Callable[[LLM], NumbersSimulator]:
    return lambda llm: NumbersSimulator(llm, logprobs=logprobs)


def _listed(logprobs: bool) -> Callable[..., bytes]:
    return lambda *arguments: listed(*arguments, logprobs=logprobs)


def decoding_lines(
    what: str, requests: Sequence[Request], bodies: Sequence[bytes], replies: Sequence[Response]
) -> list[Line]:
    """A server's JSON, and the same reply from the cache."""
    neurons = len(requests) / SEQUENCES

    def decode() -> None:
        for body, request in zip(bodies, requests, strict=True):
            wire.answer(wire.decode(body), request, "m")

    kept = [cache.encode(reply) for reply in replies]
    decoded = 1e3 * seconds_of(decode) / neurons
    cached = 1e3 * seconds_of(lambda: [cache.decode(reply) for reply in kept]) / neurons
    return [
        Line(f"  beside, {what.split(',', 1)[1].strip()}: decode JSON", f"{decoded:.2f} ms/neuron"),
        Line("    the same from the cache", f"{cached:.2f} ms/neuron"),
    ]


def cache_line(values: NDArray[np.float32]) -> Line:
    """A neuron's masses into bytes and back."""
    masses, number = Masses(values, Usage(requests=1)), 200

    def both() -> None:
        for _ in range(number):
            cache.decode_masses(cache.encode_masses(masses))

    milliseconds = 1e3 * seconds_of(both) / number
    return Line("  beside, in process: to the cache and back", f"{milliseconds:.3f} ms/neuron")


def token_lines(tokenizer: Backend, folder: Path) -> list[Line]:
    """Prompts as they are sent, about real records of a small model trained on real text."""
    corpus = folder / "corpus.txt"
    corpus.write_text((ASSETS / "text" / "wikitext2_valid.txt").read_text("utf-8")[:150_000])
    subject = SubjectSettings(model=str(ASSETS / "gpt2-local"))
    sites = ("blocks.2.mlp.hook_post",)
    collect(folder / "data", subject, CollectSettings(corpus=str(corpus), sites=sites))
    records = RecordSet(folder / "data", subject.folder_name, sites[0])
    chosen = [records.neuron(index) for index in range(0, records.width, records.width // 30)]
    asked = Instant(Capabilities(True, False))
    for neuron in chosen:
        with suppress(NeuronFailure):
            asyncio.run(Highlight(llm=asked).explain(neuron))
    sizes = [size_of(tokenizer, request.prompt) for request in asked.asked]
    stimuli = [[one.stimulus for one in neuron.split("valid")] for neuron in chosen]
    readings = asyncio.run(readings_of(stimuli))
    news, wholes = [], []
    for reading in readings:
        prefix = tokenizer.encode(reading.prefixes[0]).ids
        for body in reading.bodies:
            whole = tokenizer.encode(reading.prefixes[0] + reading.head + body).ids
            news.append(len(whole) - common(np.array(prefix), np.array(whole)))
            wholes.append(len(whole))
    explain, most = statistics.mean(sizes), max(sizes)
    new = statistics.mean(news)
    return [
        Line(
            f"explain with highlight, {len(sizes)} neurons",
            f"{explain:,.0f} a neuron",
            f"at most {most:,}",
            "≤ 1,100",
            most <= 1100,
        ),
        Line(
            f"simulate with all-at-once, {len(news)} sequences",
            f"{new:,.0f} new a sequence",
            f"at most {max(news):,}; {statistics.mean(wholes):,.0f} with the reusable prefix",
            "≤ 350",
            new <= 350,
        ),
    ]


def size_of(tokenizer: Backend, prompt: tuple[Message, ...] | str) -> int:
    """A prompt's tokens, those around chat messages included."""
    if isinstance(prompt, str):
        return len(tokenizer.encode(prompt).ids)
    return sum(len(tokenizer.encode(message.content).ids) + FRAME for message in prompt)


if __name__ == "__main__":
    main()
