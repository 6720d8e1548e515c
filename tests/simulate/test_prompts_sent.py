"""Prompts as they are sent. After a change on purpose: UPDATE_GOLDEN=1 pytest tests/simulate"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import ALL, BARE, PLAIN, Neuron, Oracle, written

from neuron_explainer import registry
from neuron_explainer.llm.base import Capabilities, Request
from neuron_explainer.records import Explanation, NeuronId, Stimulus

GOLDEN = Path(__file__).parent / "golden"
NEURONS: Mapping[str, Neuron] = {"hot drinks": lambda token, _: 7 if token == b" tea" else 0}
NEURON = NeuronId("tiny", "blocks.0.mlp.hook_post", 3)
TEXTS = (
    (b"<|endoftext|>", b"She", b" drank", b" tea", b"\n", b"\xe2\x98", b"\x95", b"<end>"),
    (b"<|endoftext|>", b"A", b"\tcold", b" day", "«".encode()),
)


def _asked(name: str, can: Capabilities, stimuli: list[Stimulus], **options: Any) -> list[Request]:
    llm = Oracle(NEURONS, can)
    simulator = registry.make("simulators", name, options, llm=llm)
    asyncio.run(simulator.simulate(Explanation(NEURON, "test", "hot drinks"), stimuli))
    return llm.requests


def _stimulus(tokens: tuple[bytes, ...]) -> Stimulus:
    scored = np.arange(len(tokens)) > 0
    return Stimulus(tokens, scored, scored & (np.arange(len(tokens)) % 4 > 1), pair=(3, 2))


@pytest.mark.parametrize(
    ("file", "name", "can", "options", "which"),
    [
        ("all-at-once", "all-at-once", PLAIN, {}, 0),
        ("one-at-a-time-chat", "one-at-a-time", ALL, {}, 2),
        ("one-at-a-time-plain", "one-at-a-time", PLAIN, {}, 2),
        ("numbers-sparse-chat", "numbers", BARE, {}, 0),
        ("numbers-dense-plain", "numbers", PLAIN, {"dense": True}, 0),
        ("detection-chat", "detection", BARE, {}, 0),
        ("fuzzing-chat", "fuzzing", BARE, {}, 0),
        ("pair-detection-chat", "pair-detection", BARE, {}, 0),
        ("fuzzing-plain", "fuzzing", PLAIN, {"few_shot": 1}, 0),
    ],
)
def test_prompts_are_as_they_were(
    file: str, name: str, can: Capabilities, options: Mapping[str, Any], which: int
) -> None:
    request = _asked(name, can, [_stimulus(tokens) for tokens in TEXTS], **options)[which]
    path = GOLDEN / f"{file}.txt"
    text = written(request.prompt) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text, "see this file's first line"


def _shared(texts: Sequence[str]) -> str:
    """What all of them begin with."""
    first, last = min(texts), max(texts)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(character for character, _ in same)


@pytest.fixture(scope="module")
def gpt2(assets: Path) -> Any:
    """GPT-2's tokenizer."""
    from transformers import GPT2Tokenizer

    folder = assets / "gpt2-bpe"
    return GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


@pytest.fixture(scope="module")
def excerpts(gpt2: Any, assets: Path) -> list[Stimulus]:
    """Ten sequences of 64 tokens of real text."""
    text = max((assets / "text").rglob("*.txt"), key=lambda path: path.stat().st_size)
    ids = gpt2(text.read_text("utf-8")[:20_000]).input_ids
    pieces = [gpt2.decode([token]).encode() for token in ids]
    return [_stimulus((b"", *pieces[at : at + 64])) for at in range(1000, 1640, 64)]


def test_all_at_once_sends_at_most_350_new_tokens_a_sequence(
    gpt2: Any, excerpts: list[Stimulus]
) -> None:
    prompts = [str(request.prompt) for request in _asked("all-at-once", PLAIN, excerpts)]
    other = _asked("all-at-once", PLAIN, [_stimulus(TEXTS[1])])
    shared = len(_shared([*prompts, str(other[0].prompt)]))
    new = [len(gpt2(prompt[shared:]).input_ids) for prompt in prompts]
    assert max(new) <= 350
    assert len(gpt2(prompts[0][:shared]).input_ids) <= 1500


def test_the_tokenizer_begins_a_token_at_every_unknown(gpt2: Any, excerpts: list[Stimulus]) -> None:
    prompt = str(_asked("all-at-once", PLAIN, excerpts[:1])[0].prompt)
    tokens = gpt2.convert_ids_to_tokens(gpt2(prompt).input_ids)
    assert tokens.count("Ġunknown") == prompt.count(" unknown")


def test_one_at_a_time_sends_little_that_the_request_before_had_not(
    gpt2: Any, excerpts: list[Stimulus]
) -> None:
    requests = _asked("one-at-a-time", ALL, excerpts[:1])
    texts = [written(request.prompt) for request in requests]
    assert all(request.max_tokens == 2 for request in requests)
    new = [len(gpt2(b[len(_shared([a, b])) :]).input_ids) for a, b in pairwise(texts)]
    assert max(new) <= 30


def test_numbers_detection_and_fuzzing_share_what_stands_before_the_sequences() -> None:
    stimuli = [_stimulus(TEXTS[number % 2]) for number in range(12)]
    for name in ("numbers", "detection", "fuzzing"):
        texts = [written(request.prompt) for request in _asked(name, ALL, stimuli)]
        assert len(texts) > 1
        assert _shared(texts).count("The neuron responds to: hot drinks") == 1
