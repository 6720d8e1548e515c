"""Every simulator against a real server: what it can serve ends in values or in a named cause.

The model is far too small to follow instructions; what it says is not looked at, only that nothing
is made up where it says nothing that can be used.
"""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import live_server
import numpy as np
import pytest

from neuron_explainer import registry
from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import BackendSettings
from neuron_explainer.llm.compose import LLMSettings, open_llm
from neuron_explainer.records import Explanation, FloatArray, NeuronId, Stimulus

pytestmark = pytest.mark.enable_socket

CAUSES = {"no-valid-number", "malformed-reply", "cut-short", "context-overflow"}
SHORT = (b"<s>", b" Once", b" upon", b" a")
Outcome = list[FloatArray] | str
# With a vocabulary of 512 prompts are longer than estimated, so the examples are not left to it.
ROOM = {"few_shot": 0}


@pytest.fixture(scope="module")
def url(assets: Path) -> Iterator[str]:
    """A server that answers for the whole file."""
    with live_server.running(assets) as found:
        yield found


def _stimulus(tokens: tuple[bytes, ...]) -> Stimulus:
    scored = np.arange(len(tokens)) > 0
    return Stimulus(tokens, scored, scored & (np.arange(len(tokens)) % 2 > 0), pair=(3, 2))


def _outcomes(
    url: str, name: str, options: Mapping[str, Any], tokens: tuple[bytes, ...], neurons: int
) -> list[Outcome]:
    """Values or causes, of neurons that are all simulated at once."""

    async def one(simulator: Any, index: int) -> Outcome:
        neuron = NeuronId("tiny", "blocks.0.mlp.hook_post", index)
        explanation = Explanation(neuron, "test", f"words of {index} letters")
        try:
            made = await simulator.simulate(explanation, [_stimulus(tokens)])
        except NeuronFailure as failure:
            return failure.cause
        return [simulation.activations for simulation in made]

    async def all_of_them() -> list[Outcome]:
        settings = LLMSettings(BackendSettings(base_url=url))
        llm = open_llm("openai/stories", settings, sleep=lambda _: asyncio.sleep(0))
        simulator = registry.make("simulators", name, options, llm=llm)
        try:
            return await asyncio.gather(*(one(simulator, index) for index in range(neurons)))
        finally:
            await llm.close()

    return asyncio.run(all_of_them())


@pytest.mark.parametrize(
    ("name", "options", "neurons"),
    [
        ("numbers", {}, 16),
        ("numbers", {"logprobs": False}, 3),
        ("numbers", {"schema": False, **ROOM}, 3),
        ("numbers", {"dense": True}, 3),
        ("detection", {}, 3),
        ("fuzzing", {}, 3),
        ("pair-detection", {}, 3),
        ("one-at-a-time", ROOM, 3),
    ],
)
def test_neurons_simulated_at_once_end_in_values_or_in_a_cause(
    url: str, name: str, options: Mapping[str, Any], neurons: int
) -> None:
    outcomes = _outcomes(url, name, options, SHORT, neurons)
    assert len(outcomes) == neurons
    for outcome in outcomes:
        if isinstance(outcome, str):
            assert outcome in CAUSES
            continue
        (values,) = outcome
        assert np.isnan(values[0])
        known = values[np.isfinite(values)]
        assert known.size
        assert ((known >= 0) & (known <= 10)).all()


def test_an_enforced_form_gives_numbers_that_can_be_read(url: str) -> None:
    outcomes = _outcomes(url, "numbers", {}, SHORT, 2)
    assert any(not isinstance(outcome, str) for outcome in outcomes)


def test_a_server_that_does_not_echo_is_refused_with_what_would_work(url: str) -> None:
    with pytest.raises(LLMError, match="use simulator one-at-a-time or numbers"):
        _outcomes(url, "all-at-once", ROOM, SHORT, 1)


@pytest.mark.parametrize(
    "name", ["numbers", "one-at-a-time", "detection", "fuzzing", "pair-detection"]
)
def test_a_sequence_that_is_too_long_for_the_context_is_refused(url: str, name: str) -> None:
    tokens = tuple(f" word{number}".encode() for number in range(900))
    long = tokens if name != "one-at-a-time" else (tokens[0], b" ".join(tokens))
    assert _outcomes(url, name, {}, long, 1) == ["context-overflow"]
