"""Reading a model in process, next to running every prompt whole and to a bare forward pass."""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
import transformers
from collect import Line
from instant import readings_of, seconds_of
from tokenizers import Tokenizer as Backend

from neuron_explainer.llm.base import BackendSettings, Reading
from neuron_explainer.llm.local import Local
from neuron_explainer.llm.local_prompts import Tokens, common
from neuron_explainer.llm.local_reading import LocalReader
from neuron_explainer.llm.local_states import NONE, Passes
from neuron_explainer.records import Stimulus

SMALL: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
LARGE: dict[str, Any] = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32}
LEAST: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def random_llama(folder: Path, tokenizer: Backend, sizes: Mapping[str, Any], device: str) -> Local:
    """A Llama of random weights and GPT-2's vocabulary; in bfloat16 where it is not on the CPU."""
    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    torch.manual_seed(0)
    kind = "float32" if device == "cpu" else "bfloat16"
    config = transformers.LlamaConfig(
        **sizes,
        intermediate_size=4 * sizes["hidden_size"],
        num_key_value_heads=sizes["num_attention_heads"],
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=4096,
        dtype=kind,
    )
    make: Any = transformers.AutoModelForCausalLM
    with torch.device(device):
        make.from_config(config, dtype=getattr(torch, kind)).save_pretrained(folder)
    fast: Any = transformers.PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer).save_pretrained(folder)
    return Local(str(folder), BackendSettings(device=device, dtype=kind))


@dataclass(frozen=True, slots=True)
class Ways:
    """Three ways to run a model over the sequences of one neuron."""

    local: Local
    reading: Reading

    def naively(self) -> None:
        """Every prompt whole, the logits of the whole vocabulary."""
        _, task = self.tokens().task(self.reading, Event())
        for prompt in task.prompts:
            ids = torch.tensor(prompt.ids[None], device=self.local.device)
            logits = self.local.network(input_ids=ids, use_cache=False).logits[0]
            torch.log_softmax(logits[prompt.reads].float(), -1).cpu()

    def tokens(self) -> Tokens:
        """The model's tokenizer."""
        return Tokens(self.local.tokenizer, self.local.vocabulary, self.local.context)

    def bare(self) -> tuple[Callable[[], Any], int]:
        """One forward pass over nothing but the tokens that differ, after a cache of the rest."""
        _, task = self.tokens().task(self.reading, Event())
        ids = [prompt.ids for prompt in task.prompts]
        shared = min(common(ids[0], other) for other in ids[1:])
        states = Passes(self.local.network).extended(NONE, ids[0][:shared])
        rows = [some[shared:] for some in ids]
        padded = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros((len(rows), shared + padded.shape[1]), np.int64)
        for number, row in enumerate(rows):
            padded[number, : len(row)] = row
            mask[number, : shared + len(row)] = 1
        device = self.local.device
        given = {
            "input_ids": torch.tensor(padded, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }
        layers = [[part.expand(len(rows), -1, -1, -1) for part in pair] for pair in states.layers]

        def run() -> None:
            past: Any = transformers.DynamicCache()
            for number, (keys, values) in enumerate(layers):
                past.update(keys, values, number)
            self.local.network.base_model(**given, past_key_values=past, use_cache=True)

        return run, sum(map(len, rows))


def local_lines(local: Local, excerpts: Sequence[Sequence[Stimulus]], repeats: int) -> list[Line]:
    """`all-at-once` in process next to the naive way and to the least that any way takes."""
    readings = asyncio.run(readings_of(excerpts[: repeats + 1]))
    reader = LocalReader(local.network, Tokens(local.tokenizer, local.vocabulary, local.context))
    reader.read(readings[0], Event())  # the prefix, and the comparison with a plain pass
    seconds: dict[str, list[float]] = {"fast": [], "naive": [], "bare": []}
    differing = []
    for reading in readings[1:]:
        ways = Ways(local, reading)
        bare, tokens = ways.bare()
        differing.append(tokens)
        works: dict[str, Callable[[], Any]] = {
            "fast": partial(reader.read, reading, Event()),
            "naive": ways.naively,
            "bare": bare,
        }
        for name, work in works.items():
            seconds[name].append(timed(local, work))
    fast, naive, bare_seconds = seconds["fast"], seconds["naive"], seconds["bare"]
    median = statistics.median
    faster = median(n / f for n, f in zip(naive, fast, strict=True))
    over = median(f / b for f, b in zip(fast, bare_seconds, strict=True))
    parameters = sum(parameter.numel() for parameter in local.network.parameters()) / 1e6
    rate = median(tokens / taken for tokens, taken in zip(differing, fast, strict=True))
    return [
        Line(f"{parameters:,.0f} million parameters, {local.network.dtype}", ""),
        Line("a neuron, as it is read", f"{median(fast):.3f} s", f"{rate:,.0f} new tokens/s"),
        Line(
            "  naively: whole prompts, whole vocabulary",
            f"{median(naive):.3f} s",
            f"{faster:.1f} × that of reading",
            "≥ 6 ×",
            faster >= 6,
        ),
        Line(
            "  bare: the tokens that differ",
            f"{median(bare_seconds):.3f} s",
            f"reading takes {over:.2f} ×",
            "≤ 1.3 ×",
            over <= 1.3,
        ),
    ]


def timed(local: Local, work: Callable[[], Any]) -> float:
    """Seconds until the device has done the work: of the processor, where that is the device."""
    if local.device.type == "cpu":
        return seconds_of(work)

    def waited() -> None:
        work()
        torch.cuda.synchronize()

    return seconds_of(waited, time.perf_counter)
