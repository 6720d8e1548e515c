"""Reading a model in process: the same numbers as from whole prompts, whatever the model."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import transformers
from reading_parts import TOKENS, Unread, explained, simulated, stimuli
from tokenizers import AddedToken, normalizers

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import BackendSettings, Masses, Reading, Usage, reader
from neuron_explainer.llm.cache import decode_masses
from neuron_explainer.llm.compose import LLMSettings, Stack, open_llm
from neuron_explainer.llm.forecast import FORECAST, Forecast
from neuron_explainer.llm.limits import Caps
from neuron_explainer.llm.local import Local
from neuron_explainer.llm.local_prompts import Tokens
from neuron_explainer.llm.local_reading import LocalReader
from neuron_explainer.records import Fit
from neuron_explainer.simulate.all_at_once import AllAtOnceSimulator

BODIES = tuple(
    "<start>\n" + "\n".join(f"{word}\t unknown" for word in text.split()) + "\n<end>"
    for text in ("a b c", "one ten 10 1", "x", "the tenth of ten tens is 10 or 1")
)
NUMBERS = tuple(map(str, range(11)))
READING = Reading(
    ("Numbers follow.\na\t10\nb\t0\n\n", ""), "About tens:\n", BODIES, "\t", NUMBERS, 1e-3
)
PLACES = sum(body.count("\t") for body in BODIES)


def load(folder: Path, attention: str = "sdpa") -> Local:
    local = Local(str(folder), BackendSettings(dtype="float32"))
    local.network.set_attn_implementation(attention)
    return local


@pytest.fixture(scope="module")
def stories(assets: Path) -> Local:
    """A Llama that writes 10 in two tokens, with room for an example in its context."""
    local = load(assets / "stories260K" / "hf")
    local.network.config.max_position_embeddings = 2048
    return local


def fresh(local: Local) -> LocalReader:
    return LocalReader(local.network, Tokens(local.tokenizer, local.vocabulary, local.context))


def read(some: LocalReader, reading: Reading = READING) -> Masses:
    return some.read(reading, threading.Event())


def plainly(local: Local, reading: Reading = READING) -> Masses:
    """By nothing but plain forward passes of whole texts."""
    some = fresh(local)
    some._compared = True
    return read(some, reading)


def shares(masses: Masses) -> torch.Tensor:
    return torch.tensor(masses.values).softmax(1)


def same(some: Masses, others: Masses) -> bool:
    return bool((shares(some) - shares(others)).abs().max() < 1e-4)


@pytest.mark.parametrize(("attention", "few_shot"), [("eager", 0), ("sdpa", 0), ("sdpa", 1)])
def test_a_llama_is_read_as_from_whole_prompts(assets: Path, attention: str, few_shot: int) -> None:
    local = load(assets / "stories260K" / "hf", attention)
    local.network.config.max_position_embeddings = 2048
    texts = ("numbers such as 10", "a girl")  # the second with the first one's prefix
    sequences = stimuli(TOKENS[few_shot:])
    made = simulated(local, sequences, *texts, few_shot=few_shot)
    wanted = simulated(Unread(local), sequences, *texts[1:], few_shot=few_shot)
    assert np.isfinite(np.concatenate(made)).all()
    for some, other in zip(made[len(sequences) :], wanted, strict=True):
        np.testing.assert_allclose(some, other, atol=1e-4)
    assert local._reader._head is not None
    assert local._reader._halves._believed


@pytest.mark.parametrize("few_shot", [0, 1])
def test_a_gpt_2_is_read_as_from_whole_prompts(assets: Path, few_shot: int) -> None:
    local = load(assets / "gpt2-local")  # its context of 256 has no room for an example
    made = simulated(local, stimuli(TOKENS[:2]), "tens", few_shot=few_shot)
    wanted = simulated(Unread(local), stimuli(TOKENS[:2]), "tens")
    for some, other in zip(made, wanted, strict=True):
        np.testing.assert_allclose(some, other, atol=1e-4)
    assert local._reader._head is not None


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
CAPPED = GROUPED | {"head_dim": 8, "final_logit_softcapping": 3.0}
OTHERS: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
NEO: dict[str, Any] = {
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 16,
    "initializer_range": 0.3,
}
SHARED, SCALED, WHOLE = "shared", "shared, by its own head", "whole"
KINDS: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "qwen2": (transformers.Qwen2Config, GROUPED, SHARED),
    "gpt2": (transformers.GPT2Config, OTHERS, SHARED),
    "bloom": (transformers.BloomConfig, OTHERS | {"hidden_size": 32}, SHARED),
    "gpt-neo with a window": (transformers.GPTNeoConfig, NEO, SHARED),
    "phi, whose head has a bias": (transformers.PhiConfig, SIZES, SHARED),
    "granite": (transformers.GraniteConfig, SIZES | {"logits_scaling": 8.0}, SCALED),
    "cohere": (transformers.CohereConfig, SIZES | {"logit_scale": 0.25}, SCALED),
    "gemma2": (
        transformers.Gemma2Config,
        CAPPED | {"layer_types": ["full_attention"] * 2},
        SCALED,
    ),
    "gemma2 with a window": (transformers.Gemma2Config, CAPPED | {"sliding_window": 16}, WHOLE),
    "mistral with a window": (transformers.MistralConfig, GROUPED | {"sliding_window": 16}, WHOLE),
    "mamba": (transformers.MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2}, WHOLE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_unusual_models_are_read_rightly_or_plainly(
    kind: str, assets: Path, tmp_path: Path
) -> None:
    config, options, how = KINDS[kind]
    torch.manual_seed(0)
    make: Any = transformers.AutoModelForCausalLM
    make.from_config(
        config(**options, vocab_size=4096, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    ).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(assets / "gpt2-local")
    tokenizer.save_pretrained(tmp_path)
    local = Local(str(tmp_path), BackendSettings())
    some = fresh(local)
    assert same(read(some), plainly(local))
    head = some._head
    assert (WHOLE if head is None else SHARED if head._plain else SCALED) == how


def test_a_place_at_which_no_token_begins_is_undefined_and_no_other_is(stories: Local) -> None:
    tokenizer = type(stories.tokenizer).from_pretrained(stories._source)
    tokenizer.add_tokens([AddedToken("ten\t un", normalized=False)])
    index = tokenizer.convert_tokens_to_ids("ten\t un")
    vocabulary = [*stories.vocabulary, b"ten\t un"]
    assert index == 512
    tokens = Tokens(tokenizer, vocabulary, None)
    _, task = tokens.task(replace(READING, prefixes=("",)), threading.Event())
    assert [prompt.read.tolist() for prompt in task.prompts] == [
        [True] * 3,
        [True, False, True, True],
        [True],
        [True, True, True, False, True, True, True, True, True],
    ]


def test_a_tokenizer_that_composes_characters_loses_no_place(stories: Local) -> None:
    tokenizer = type(stories.tokenizer).from_pretrained(stories._source)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), backend.normalizer])
    body = "<start>\ne\u0301\t unknown\nb\t unknown\n<end>"
    tokens = Tokens(tokenizer, stories.vocabulary, None)
    _, task = tokens.task(replace(READING, bodies=(body,)), threading.Event())
    (prompt,) = task.prompts
    text = b"".join(stories.vocabulary[index] for index in prompt.ids).decode()
    assert "\u00e9\t" in text
    assert prompt.read.all()
    written = [stories.vocabulary[index] for index in prompt.ids[prompt.last]]
    assert written == [b"\t", b"\t"]


class Crowded:
    """Makes a model run out of memory at more than a number of rows."""

    def __init__(self, local: Local, most: int) -> None:
        self.rows: list[int] = []

        def check(_: Any, __: Any, options: dict[str, Any]) -> None:
            self.rows.append(options["input_ids"].shape[0])
            if self.rows[-1] > most:
                raise torch.OutOfMemoryError

        self.hook = local.network.base_model.register_forward_pre_hook(check, with_kwargs=True)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(stories: Local) -> None:
    expected = plainly(stories)
    some = fresh(stories)
    read(some, replace(READING, bodies=BODIES[:1]))
    crowded = Crowded(stories, most=1)
    try:
        made = read(some)
        tried = len(crowded.rows)
        again = read(some)
    finally:
        crowded.hook.remove()
    assert same(made, expected)
    assert {4, 2, 1} <= set(crowded.rows[:tried])
    assert same(again, expected)
    assert set(crowded.rows[tried:]) == {1}  # it has learnt


def test_a_sequence_that_never_fits_fails_its_neuron(stories: Local) -> None:
    crowded = Crowded(stories, most=0)
    try:
        with pytest.raises(NeuronFailure, match="use --llm-dtype") as caught:
            read(fresh(stories))
    finally:
        crowded.hook.remove()
    assert caught.value.cause == "out-of-memory"


def test_batches_by_a_budget_change_nothing(stories: Local) -> None:
    some = fresh(stories)
    some._budget = 1
    assert same(read(some), plainly(stories))


@pytest.mark.parametrize("heeds", [True, False])
def test_where_masks_are_refused_or_ignored_tens_are_told_plainly(
    stories: Local, heeds: bool
) -> None:
    def refuse(_: Any, arguments: Any, options: dict[str, Any]) -> Any:
        if options.get("attention_mask") is not None and options["attention_mask"].ndim == 4:
            if heeds:
                raise ValueError("attention_mask has 4 dimensions")
            options["attention_mask"] = torch.zeros_like(options["attention_mask"])
        return arguments, options

    some, expected = fresh(stories), plainly(stories)
    hook = stories.network.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        made = read(some)
    finally:
        hook.remove()
    assert some._halves._believed is False
    assert some._head is not None
    assert same(made, expected)


def test_what_is_shared_is_run_once_and_told(stories: Local) -> None:
    some = fresh(stories)
    read(some)
    lengths = [
        len(ids)
        for ids in some._tokens.encoded(
            [READING.prefixes[0] + READING.head + body for body in BODIES]
        )
    ]
    usage = read(some, replace(READING, head="About ones:\n")).usage
    assert usage.requests == 1
    assert usage.prompt_tokens == pytest.approx(sum(lengths), abs=len(BODIES) * 2)
    prefix = len(some._prefix)
    assert prefix >= 20
    assert usage.cached_tokens >= (len(BODIES) - 1) * prefix
    before = some._passes.run
    shorter = replace(READING, prefixes=(READING.prefixes[0][:20],))
    assert same(read(some, shorter), plainly(stories, shorter))
    assert len(some._prefix) == prefix  # the longer one serves the shorter
    assert some._passes.run > before


def test_the_first_prefix_that_leaves_room_is_taken(assets: Path) -> None:
    local = load(assets / "stories260K" / "hf")
    some = fresh(local)
    long = replace(READING, prefixes=("word " * 600, *READING.prefixes))
    second = read(some, long)
    assert same(second, plainly(local))
    assert second.prefix == 1
    assert read(some).prefix == 0
    with pytest.raises(NeuronFailure, match=r"prompt's \d+ tokens .* 512 that") as caught:
        read(some, replace(READING, prefixes=("word " * 600,)))
    assert caught.value.cause == "context-overflow"


def reading_with(stack: Stack, *readings: Reading) -> list[Masses]:
    async def run() -> list[Masses]:
        try:
            return [await reader(stack).read(one) for one in readings]
        finally:
            await stack.close()

    return asyncio.run(run())


def test_finished_neurons_are_kept_and_accounted_for(assets: Path, tmp_path: Path) -> None:
    spec = f"local/{assets}/stories260K/hf"
    settings = LLMSettings(BackendSettings(), cache=tmp_path / "replies.sqlite")
    stack = open_llm(spec, settings)
    (first,) = reading_with(stack, READING)
    assert stack.spending.usage == first.usage
    again = open_llm(spec, settings)
    (kept,) = reading_with(again, READING)
    assert kept.values.tobytes() == first.values.tobytes()
    assert kept.values.shape == (PLACES, 11)
    assert kept.prefix == first.prefix == 0
    assert again.spending.cache_hits == 1
    assert again.spending.usage.tokens == 0
    assert again.spending.used.prompt_tokens == stack.spending.used.prompt_tokens > 0


def test_masses_that_were_saved_without_their_prefix_are_read() -> None:
    line = orjson.dumps({"shape": [1, 2], "usage": Usage(7)})
    old = decode_masses(line + b"\n" + np.array([[0.5, 1.5]], np.float32).tobytes())
    assert (old.values.tolist(), old.usage, old.prefix) == ([[0.5, 1.5]], Usage(7), None)


def test_a_simulation_says_how_many_examples_its_reading_had_room_for(
    assets: Path, stories: Local
) -> None:
    small = load(assets / "gpt2-local")  # a context of 256
    for local, few_shot, fit in ((small, 1, Fit(0, 1)), (stories, 1, Fit(1, 0))):
        made = asyncio.run(
            AllAtOnceSimulator(local, few_shot=few_shot).simulate(
                explained("tens"), stimuli(TOKENS[:2])
            )
        )
        assert [simulation.fit for simulation in made] == [fit, fit]


def test_a_cap_on_tokens_holds(assets: Path) -> None:
    stack = open_llm(f"local/{assets}/stories260K/hf", LLMSettings(caps=Caps(tokens=10)))
    with pytest.raises(NeuronFailure, match="--max-tokens 10 is reached"):
        reading_with(stack, READING, replace(READING, head="Another:\n"))


def test_a_forecast_counts_a_reading_and_reads_nothing(stories: Local) -> None:
    forecast = Forecast(stories)
    with pytest.raises(NeuronFailure) as caught:
        simulated(forecast, stimuli(), "tens", few_shot=1)
    assert caught.value.cause == FORECAST
    assert forecast.asked.requests == 1
    assert forecast.asked.prompt_tokens > 1000


def test_what_cannot_be_read_says_so(stories: Local) -> None:
    with pytest.raises(LLMError, match="cannot be read in process"):
        reader(Unread(stories))


def test_cancelling_waits_until_the_model_is_left_alone(assets: Path) -> None:
    local = load(assets / "stories260K" / "hf")
    local._reader._budget = 1
    running = threading.Event()
    local.network.base_model.register_forward_pre_hook(lambda *_: running.set())

    async def run() -> None:
        simulator = AllAtOnceSimulator(local, few_shot=0)
        task = asyncio.create_task(simulator.simulate(explained("tens"), stimuli()))
        await asyncio.to_thread(running.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        running.clear()
        assert not local._lock.locked()
        await asyncio.sleep(0.05)
        assert not running.is_set()
        await reader(local).read(READING)  # and it can be used again

    asyncio.run(run())
