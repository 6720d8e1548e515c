"""Real text, a model that answers at once, and replies made up in the shapes of real ones."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import (
    Capabilities,
    Masses,
    Reading,
    Request,
    Response,
)
from neuron_explainer.records import Explanation, NeuronId, Stimulus
from neuron_explainer.simulate.all_at_once import AllAtOnceSimulator

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"
SEQUENCES, LENGTH, ALTERNATIVES = 10, 64, 20
EXPLANATION = (
    "words for kinds of weather, such as “rain” and “storm”, and words for moods in similes that "
    "name the weather"
)


def gpt2_tokenizer() -> Backend:
    """GPT-2's byte-level BPE."""
    folder = ASSETS / "gpt2-bpe"
    made = Backend(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def real_excerpts(tokenizer: Backend, neurons: int) -> list[list[Stimulus]]:
    """For each neuron sequences of its own, from real text."""
    text = (ASSETS / "text" / "wikitext2_valid.txt").read_text("utf-8")
    ids = tokenizer.encode(text[: 8 * neurons * SEQUENCES * LENGTH]).ids
    bytes_of = {index: tokenizer.decode([index]).encode() for index in set(ids)}
    scored = np.ones(LENGTH, np.bool_)
    sequences = [
        Stimulus(tuple(bytes_of[index] for index in ids[begin : begin + LENGTH]), scored)
        for begin in range(0, neurons * SEQUENCES * LENGTH, LENGTH)
    ]
    return [sequences[begin : begin + SEQUENCES] for begin in range(0, len(sequences), SEQUENCES)]


@dataclass
class Instant:
    """A model that answers at once what was prepared for the last sequence of a prompt."""

    able: Capabilities
    replies: Mapping[str, Response] = field(default_factory=dict)
    masses: Masses | None = None
    asked: list[Request] = field(default_factory=list)  # kept while nothing is prepared
    model: str = "instant"

    async def capabilities(self) -> Capabilities:
        """As it was told."""
        return self.able

    async def complete(self, request: Request) -> Response:
        """The prepared reply."""
        if not self.replies:
            self.asked.append(request)
            raise NeuronFailure("unprepared", "nothing is prepared")
        return self.replies[sequence_of(request)]

    async def read(self, reading: Reading) -> Masses:
        """The prepared masses."""
        del reading
        assert self.masses is not None
        return self.masses

    async def close(self) -> None:
        """Nothing is open."""


def sequence_of(request: Request) -> str:
    """The last block of a prompt, which tells sequences apart."""
    prompt = request.prompt
    text = prompt if isinstance(prompt, str) else prompt[-1].content
    return text[text.rindex("<start>") :]


def explained(neuron: int) -> Explanation:
    """Every neuron has an explanation of its own."""
    identity = NeuronId("random", "blocks.0.mlp.hook_post", neuron)
    return Explanation(identity, "made-up", f"{EXPLANATION} ({neuron})")


async def requests_of(simulator: Any, excerpts: Sequence[Sequence[Stimulus]]) -> list[Request]:
    """What a simulator asks of a model that answers nothing."""
    for neuron, stimuli in enumerate(excerpts):
        with suppress(NeuronFailure):
            await simulator.simulate(explained(neuron), stimuli)
    asked: list[Request] = simulator.llm.asked
    return asked


def alternatives(random: np.random.Generator, number: int) -> list[dict[str, float]]:
    """Texts with their log probabilities; half of them are numbers."""
    texts = [*map(str, range(11)), *(f" w{index}" for index in range(ALTERNATIVES - 11))]
    made = np.round(-random.gamma(2.0, 2.0, (number, ALTERNATIVES)), 4).tolist()
    return [dict(zip(texts, values, strict=True)) for values in made]


def in_columns(tokenizer: Backend, text: str, random: np.random.Generator) -> dict[str, Any]:
    """A text as the completions protocol shows its log probabilities."""
    tokens = [tokenizer.decode([index]) for index in tokenizer.encode(text).ids]
    tops = alternatives(random, len(tokens))
    tops = [top | {token: -0.5} for token, top in zip(tokens, tops, strict=True)]
    return {
        "tokens": tokens,
        "token_logprobs": [None, *[-0.5] * (len(tokens) - 1)],
        "top_logprobs": [None, *tops[1:]],
        "text_offset": np.cumsum([0, *map(len, tokens[:-1])]).tolist(),
    }


def echoed(tokenizer: Backend, request: Request, random: np.random.Generator) -> bytes:
    """The reply to an all-at-once request, as a server sends it."""
    assert isinstance(request.prompt, str)
    columns = in_columns(tokenizer, f"{request.prompt}\n", random)
    choice = {"text": f"{request.prompt}\n", "finish_reason": "length", "logprobs": columns}
    return orjson.dumps({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 1300}})


def listed(
    tokenizer: Backend, request: Request, random: np.random.Generator, *, logprobs: bool
) -> bytes:
    """The reply to a request of `numbers`: six of the tokens fire."""
    del request
    places = sorted(random.choice(LENGTH, 6, replace=False).tolist())
    entries = [{"index": place, "activation": 1 + place % 10} for place in places]
    text = orjson.dumps({"activations": entries}).decode()
    choice: dict[str, Any] = {"message": {"content": text}, "finish_reason": "stop"}
    if logprobs:
        columns = in_columns(tokenizer, text, random)
        tops = [columns["top_logprobs"][-1], *columns["top_logprobs"][1:]]
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": -0.5,
                    "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()],
                }
                for token, top in zip(columns["tokens"], tops, strict=True)
            ]
        }
    return orjson.dumps({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 1300}})


async def readings_of(excerpts: Sequence[Sequence[Stimulus]]) -> list[Reading]:
    """What `all-at-once` asks of a model in process."""
    asked: list[Reading] = []

    class Asked(Instant):
        async def read(self, reading: Reading) -> Masses:
            asked.append(reading)
            raise NeuronFailure("unprepared", "nothing is prepared")

    able = Capabilities(False, True, 20, False, True, reading=True)
    for neuron, stimuli in enumerate(excerpts):
        with suppress(NeuronFailure):
            await AllAtOnceSimulator(Asked(able)).simulate(explained(neuron), stimuli)
    return asked


def seconds_of(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that `work` takes."""
    start = clock()
    work()
    return clock() - start
