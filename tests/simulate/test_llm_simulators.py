"""All simulators that ask a language model, by what they share: truth in, truth out."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from random import Random
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hostile import HOSTILE, sequences
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracle import ALL, BARE, PLAIN, Neuron, Oracle, levels

from neuron_explainer import registry
from neuron_explainer.errors import ConfigError, LLMError, NeuronFailure
from neuron_explainer.llm.base import LLM, Capabilities
from neuron_explainer.records import Explanation, NeuronId, Simulation, Stimulus
from neuron_explainer.score.classification import HALF_WAY, auroc, balanced_accuracy

Floats = NDArray[np.float64]
CHAT = Capabilities(True, False, 20, True)
WORDS = (b" tea", b" milk", b" the", b" a", b"\n", b",", b" ran", b" York", b"ville", b"\xc3")


def _quiet(token: bytes, before: bytes) -> int:
    return {b" tea": 10, b" milk": 7, b"\n": 3}.get(token, 0)


def _after_a(token: bytes, before: bytes) -> int:
    return 8 if before.endswith(b" a") else 1 if token == b" York" else 0


def _odd(token: bytes, before: bytes) -> int:
    return (len(before) * 7 + sum(token)) % 11


NEURONS: Mapping[str, Neuron] = {"drinks": _quiet, "what follows a": _after_a, "all sorts": _odd}


@dataclass(frozen=True)
class Case:
    """A simulator with a server that it can work with."""

    simulator: str
    can: Capabilities
    options: Mapping[str, Any]

    def make(self, llm: LLM) -> Any:
        return registry.make("simulators", self.simulator, self.options, llm=llm)


CASES = {
    "all-at-once": Case("all-at-once", PLAIN, {}),
    "all-at-once without examples": Case("all-at-once", PLAIN, {"few_shot": 0}),
    "one-at-a-time chat": Case("one-at-a-time", CHAT, {}),
    "one-at-a-time plain": Case("one-at-a-time", PLAIN, {}),
    "numbers chat": Case("numbers", CHAT, {}),
    "numbers plain": Case("numbers", PLAIN, {}),
    "numbers bare": Case("numbers", BARE, {}),
    "numbers dense": Case("numbers", CHAT, {"dense": True}),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def stimulus(tokens: Sequence[bytes], *, bos: bool = False) -> Stimulus:
    """A sequence that is scored but for its BOS."""
    scored = np.ones(len(tokens), np.bool_)
    scored[:1] &= not bos
    return Stimulus(tuple(tokens), scored)


def simulate(simulator: Any, text: str, stimuli: Sequence[Stimulus]) -> list[Simulation]:
    """What a simulator makes of one explanation."""
    neuron = NeuronId("tiny", "blocks.0.mlp.hook_post", 3)
    made: list[Simulation] = asyncio.run(
        simulator.simulate(Explanation(neuron, "test", text), stimuli)
    )
    return made


def _stimuli(number: int = 8, length: int = 24) -> list[Stimulus]:
    random = Random(5)
    return [stimulus(random.choices(WORDS, k=length)) for _ in range(number)]


def _correlation(made: Sequence[Simulation], neuron: Neuron, stimuli: Sequence[Stimulus]) -> float:
    truth = np.concatenate([levels(neuron, text.tokens) for text in stimuli])
    predicted = np.concatenate([simulation.activations for simulation in made])
    return float(np.corrcoef(truth, predicted)[0, 1])


@each_case
@pytest.mark.parametrize("ten_in_two", [False, True])
@pytest.mark.parametrize("text", NEURONS)
def test_an_oracle_scores_at_least_095(case: Case, ten_in_two: bool, text: str) -> None:
    llm = Oracle(NEURONS, case.can, sure=0.9, ten_in_two=ten_in_two)
    made = simulate(case.make(llm), text, _stimuli())
    assert all(np.isfinite(simulation.activations).all() for simulation in made)
    assert all(simulation.activations.dtype == np.float32 for simulation in made)
    assert _correlation(made, NEURONS[text], _stimuli()) >= 0.95


@each_case
def test_a_liar_and_an_explanation_of_another_neuron_score_about_0(case: Case) -> None:
    lies: dict[str, Neuron] = {
        "drinks": lambda token, before: crc32(before + token + b"lie") % 11,
        "all sorts": NEURONS["all sorts"],
    }
    stimuli = _stimuli(12, 40)
    for text in lies:
        made = simulate(case.make(Oracle(lies, case.can)), text, stimuli)
        assert abs(_correlation(made, NEURONS["drinks"], stimuli)) < 0.2


def _telling() -> Neuron:
    """A neuron that tells positions apart, also of equal tokens."""
    return lambda token, before: (len(before) + 3 * sum(token) + len(token)) % 11


@each_case
def test_no_hostile_sequence_is_lost_or_shifted(case: Case) -> None:
    neuron = _telling()
    stimuli = [stimulus(tokens) for tokens in sequences(1000)]
    llm = Oracle({"x": neuron}, case.can, sure=1.0)
    made = simulate(case.make(llm), "x", stimuli)
    for simulation, text in zip(made, stimuli, strict=True):
        np.testing.assert_allclose(
            simulation.activations, levels(neuron, text.tokens), atol=1e-6, err_msg=repr(text)
        )


@pytest.mark.parametrize("can", [CHAT, PLAIN, BARE], ids=["chat", "plain", "bare"])
def test_no_hostile_text_gets_the_verdict_of_another(can: Capabilities) -> None:
    def fires(text: bytes, before: bytes) -> int:
        return crc32(text) % 2

    stimuli = [stimulus(tokens) for tokens in sequences(1000)]
    detection = registry.make("simulators", "detection", {}, llm=Oracle({"x": fires}, can))
    yes, no = (9.0, 1.0) if can.top_logprobs else (10.0, 0.0)
    for made, text in zip(simulate(detection, "x", stimuli), stimuli, strict=True):
        expected = yes if fires(b"".join(text.tokens), b"") else no
        np.testing.assert_allclose(made.activations, expected, rtol=1e-6)


@pytest.mark.parametrize("can", [CHAT, PLAIN, BARE], ids=["chat", "plain", "bare"])
def test_no_hostile_text_loses_its_marks_or_gets_the_verdict_of_another(can: Capabilities) -> None:
    def fits(marked: bytes, text: bytes) -> int:
        return crc32(marked + b" in " + text) % 2

    rng = np.random.default_rng(0)
    stimuli = [stimulus(tokens) for tokens in sequences(1000)]
    stimuli = [
        replace(text, highlighted=rng.random(len(text.tokens)) < 0.4) if place % 9 else text
        for place, text in enumerate(stimuli)
    ]
    fuzzing = registry.make("simulators", "fuzzing", {}, llm=Oracle({"x": fits}, can))
    yes, no = (9.0, 1.0) if can.top_logprobs else (10.0, 0.0)
    for made, text in zip(simulate(fuzzing, "x", stimuli), stimuli, strict=True):
        if text.highlighted is None:
            assert np.isnan(made.activations).all()
            continue
        pairs = groupby(
            zip(text.tokens, text.highlighted.tolist(), strict=True), lambda pair: pair[1]
        )
        inside = [b"".join(token for token, _ in group) for strong, group in pairs if strong]
        expected = yes if fits(b"|".join(inside), b"".join(text.tokens)) else no
        np.testing.assert_allclose(made.activations, expected, rtol=1e-6)


def test_an_oracle_that_detects_is_always_right_and_a_liar_no_better_than_chance() -> None:
    def fires(text: bytes, before: bytes) -> int:
        return int(b" tea" in text)

    def lies(text: bytes, before: bytes) -> int:
        return crc32(text) % 2

    stimuli = _stimuli(300, 8)
    truth = np.array([[b" tea" in text.tokens for text in stimuli]])
    for neuron, low, high in ((fires, 1.0, 1.0), (lies, 0.4, 0.6)):
        llm = Oracle({"x": neuron}, CHAT)
        made = simulate(registry.make("simulators", "detection", {}, llm=llm), "x", stimuli)
        said = np.array([[simulation.activations[0] for simulation in made]])
        for score in (partial(balanced_accuracy, threshold=HALF_WAY), auroc):
            value = score(truth, said, np.ones_like(truth)).at(0).value
            assert value is not None
            assert low <= value <= high


@each_case
@settings(max_examples=40, deadline=None)
@given(tokens=st.lists(st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=6)), max_size=8))
def test_no_sequence_is_lost_or_shifted(case: Case, tokens: list[bytes]) -> None:
    neuron = _telling()
    made = simulate(case.make(Oracle({"x": neuron}, case.can, sure=1.0)), "x", [stimulus(tokens)])
    np.testing.assert_allclose(made[0].activations, levels(neuron, tokens), atol=1e-6)


@each_case
@pytest.mark.parametrize("text", ["a\nb", "<start>\nx\t unknown\n<end>", "{x} {{", "\0\ud800é", ""])
def test_an_explanation_may_hold_anything(case: Case, text: str) -> None:
    line = " ".join(text.replace("\ud800", "?").replace("\0", " ").split())
    llm = Oracle({line: _quiet}, case.can, sure=1.0)
    made = simulate(case.make(llm), text, [stimulus([b" a", b" tea"])])
    np.testing.assert_allclose(made[0].activations, [0.0, 10.0], atol=1e-6)


@each_case
def test_a_first_token_that_is_not_scored_is_neither_shown_nor_predicted(case: Case) -> None:
    llm = Oracle(NEURONS, case.can, sure=1.0)
    made = simulate(case.make(llm), "drinks", [stimulus([b"<BOS!>", b" a", b" tea"], bos=True)])
    np.testing.assert_allclose(made[0].activations, [np.nan, 0.0, 10.0], atol=1e-6)
    assert not any("BOS!" in str(request.prompt) for request in llm.requests)


@each_case
def test_nothing_to_predict_asks_nothing(case: Case) -> None:
    llm = Oracle(NEURONS, case.can)
    silent = Stimulus((b" a", b" b"), np.zeros(2, np.bool_))
    empty = stimulus([])
    made = simulate(case.make(llm), "drinks", [silent, empty])
    assert [len(simulation.activations) for simulation in made] == [2, 0]
    assert np.isnan(made[0].activations).all()
    assert simulate(case.make(llm), "drinks", []) == []
    assert not llm.requests


@each_case
def test_the_same_request_comes_again_byte_for_byte(case: Case) -> None:
    first, again = Oracle(NEURONS, case.can), Oracle(NEURONS, case.can)
    for llm in (first, again):
        simulate(case.make(llm), "drinks", _stimuli(3))
    assert [request.key("m") for request in first.requests] == [
        request.key("m") for request in again.requests
    ]


@each_case
def test_examples_are_dropped_where_the_context_is_short_and_overflow_is_told(case: Case) -> None:
    stimuli = _stimuli(2, 10)
    sizes = []
    for context in (None, 1500, 900, 700):
        llm = Oracle(NEURONS, replace(case.can, context=context))
        made = simulate(case.make(llm), "drinks", stimuli)
        assert _correlation(made, NEURONS["drinks"], stimuli) >= 0.95
        sizes.append(len(str(llm.requests[0].prompt)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] or case.options.get("few_shot") == 0
    llm = Oracle(NEURONS, replace(case.can, context=60))
    with pytest.raises(NeuronFailure, match=r"least \d+ tokens, .* context of .* is 60") as caught:
        simulate(case.make(llm), "drinks", stimuli)
    assert caught.value.cause == "context-overflow"
    assert not llm.requests


@pytest.mark.parametrize(
    ("name", "can", "lack"),
    [
        ("all-at-once", CHAT, "completions"),
        ("all-at-once", replace(PLAIN, prompt_logprobs=False), "prompt_logprobs"),
        ("one-at-a-time", BARE, "top_logprobs"),
    ],
)
def test_what_the_model_lacks_is_told_before_anything_is_sent(
    name: str, can: Capabilities, lack: str
) -> None:
    llm = Oracle(NEURONS, can)
    with pytest.raises(LLMError, match=f"gives no {lack}"):
        simulate(registry.make("simulators", name, {}, llm=llm), "drinks", _stimuli(1))
    assert not llm.requests


@pytest.mark.parametrize("name", ["all-at-once", "one-at-a-time", "numbers", "detection"])
def test_a_failed_request_fails_the_neuron_after_the_others_have_come(name: str) -> None:
    class Failing(Oracle):
        failed = 0

        async def complete(self, request: Any) -> Any:
            response = await super().complete(request)
            if len(self.requests) == 1:
                raise NeuronFailure("timeout", "too slow")
            await asyncio.sleep(0)
            self.failed += 1
            return response

    llm = Failing(NEURONS, ALL)
    with pytest.raises(NeuronFailure, match="too slow"):
        simulate(registry.make("simulators", name, {}, llm=llm), "drinks", _stimuli(6))
    assert llm.failed == len(llm.requests) - 1


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("all-at-once", "alternatives", 0),
        ("one-at-a-time", "few_shot", -1),
        ("numbers", "few_shot", -1),
        ("detection", "sequences", 0),
        ("fuzzing", "few_shot", -1),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(name: str, option: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{option} is {value}; it must be at least"):
        registry.make("simulators", name, {option: value}, llm=Oracle(NEURONS))


@pytest.mark.parametrize(
    "name", ["all-at-once", "one-at-a-time", "numbers", "detection", "fuzzing", "pair-detection"]
)
def test_every_neuron_is_simulated_with_its_own_explanation(name: str) -> None:
    simulator = registry.make("simulators", name, {}, llm=Oracle(NEURONS))
    assert simulator.name == name
    assert simulator.assign([3, 5], 0) == {3: 3, 5: 5}
