"""Structured replies: read as they are asked for, asked for once more, and never half believed."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import BARE, PLAIN, Parrot

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import Capabilities, Choice, Logprobs, Message
from neuron_explainer.llm.schema import problem
from neuron_explainer.records import Explanation, FloatArray, NeuronId, Stimulus
from neuron_explainer.simulate.detection import DetectionSimulator
from neuron_explainer.simulate.numbers import NumbersSimulator
from neuron_explainer.simulate.replies import Form

SPARSE = Form("activations", "activation", tuple(range(11)), complete=False)
DENSE = Form("activations", "activation", tuple(range(11)), complete=True)
VERDICTS = Form("verdicts", "fires", (True, False), complete=True)
GOOD = '{"activations":[{"index":1,"activation":7}]}'
STIMULUS = Stimulus((b"The", b" cat", b" sat"), np.ones(3, np.bool_))


def _simulate(simulator: Any, stimuli: Sequence[Stimulus] = (STIMULUS,)) -> list[FloatArray]:
    explanation = Explanation(NeuronId("tiny", "blocks.0.mlp.hook_post", 3), "test", "cats")
    made = asyncio.run(simulator.simulate(explanation, stimuli))
    return [simulation.activations for simulation in made]


@given(st.dictionaries(st.integers(0, 63), st.integers(0, 10)))
def test_what_is_written_is_read(values: dict[int, int]) -> None:
    text = SPARSE.write(values)
    entries = SPARSE.read(text, 64)
    assert {index: entry.value for index, entry in entries.items()} == values
    assert all(text[slice(*entry.span)] == str(entry.value) for entry in entries.values())


@pytest.mark.parametrize("form", [SPARSE, DENSE, VERDICTS])
def test_the_schema_takes_what_the_form_writes_and_nothing_beside_it(form: Form) -> None:
    value = form.values[-1]
    good = {form.name: [{"index": 0, form.field: value}]}
    assert problem(good, form.schema) is None
    for wrong in ({}, good | {"more": 1}, {form.name: [{"index": 0, form.field: "7"}]}):
        assert problem(wrong, form.schema) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON alone"),
        ("Sure! " + GOOD, "not JSON alone"),
        (GOOD + "\nHope this helps.", "not JSON alone"),
        (GOOD[:-3], "not JSON alone"),
        ("[" * 5000, "not JSON alone"),
        ("[]", "not an object"),
        ("{}", 'no "activations"'),
        ('{"activations":{}}', "not a list"),
        ('{"activations":[],"note":"none"}', "unexpected key 'note'"),
        ('{"activations":[[1,7]]}', "an entry is not an object"),
        ('{"activations":[{"index":1}]}', 'an entry has no "activation"'),
        ('{"activations":[{"index":1,"activation":7,"token":" cat"}]}', "unexpected key 'token'"),
        ('{"activations":[{"index":3,"activation":7}]}', "index 3 is not one from 0 to 2"),
        ('{"activations":[{"index":-1,"activation":7}]}', "index -1 is not one"),
        ('{"activations":[{"index":"1","activation":7}]}', "index '1' is not one"),
        ('{"activations":[{"index":true,"activation":7}]}', "index True is not one"),
        ('{"activations":[{"index":1,"activation":11}]}', "at index 1 is not from 0 to 10"),
        ('{"activations":[{"index":1,"activation":-1}]}', "at index 1 is not from 0 to 10"),
        ('{"activations":[{"index":1,"activation":7.0}]}', "at index 1 is not from 0 to 10"),
        ('{"activations":[{"index":1,"activation":"7"}]}', "at index 1 is not from 0 to 10"),
        ('{"activations":[{"index":1,"activation":null}]}', "at index 1 is not from 0 to 10"),
        ('{"activations":[{"index":1,"activation":true}]}', "at index 1 is not from 0 to 10"),
        (
            '{"activations":[{"index":1,"activation":7},{"index":1,"activation":7}]}',
            "index 1 is listed twice",
        ),
        ('{"activations":[{"index":1,"activation":7,"activation":2}]}', 'more than one "activ'),
        ('{"activations":[{"index":1,"\\u0061ctivation":7}]}', "not written plainly"),
        ('{"activations":[{"index":1,"activation":NaN}]}', "not JSON alone"),
    ],
)
def test_what_was_not_asked_for_is_an_error_that_says_where(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SPARSE.read(text, 3)


def test_a_dense_reply_that_leaves_a_row_out_is_an_error() -> None:
    with pytest.raises(ValueError, match="index 0 is missing"):
        DENSE.read(GOOD, 3)


def test_a_verdict_is_true_or_false_and_no_number() -> None:
    with pytest.raises(ValueError, match="is not true or false"):
        VERDICTS.read('{"verdicts":[{"index":0,"fires":1}]}', 1)


def test_a_reply_in_a_code_fence_is_that_reply() -> None:
    text = f"```json\n{GOOD}\n```"
    (entry,) = SPARSE.read(text, 3).values()
    assert text[slice(*entry.span)] == "7"


@given(st.text(max_size=60))
def test_no_reply_whatever_breaks_the_reader(text: str) -> None:
    for wrapped in (text, f'{{"activations":[{text}]}}', GOOD.replace("7", text)):
        try:
            entries = SPARSE.read(wrapped, 3)
        except ValueError:
            continue
        assert all(0 <= index < 3 for index in entries)


@pytest.mark.parametrize("can", [BARE, PLAIN], ids=["chat", "plain"])
def test_a_bad_reply_is_asked_for_once_more_with_what_was_wrong(can: Capabilities) -> None:
    llm = Parrot(['{"activations":[{"index":9,"activation":7}]}', GOOD], can)
    (values,) = _simulate(NumbersSimulator(llm, logprobs=False))
    assert values.tolist() == [0.0, 7.0, 0.0]
    first, second = llm.requests
    assert (first.sample, second.sample) == (0, 1)
    if isinstance(second.prompt, str):
        assert isinstance(first.prompt, str)
        assert second.prompt.startswith(first.prompt + str(llm.replies[0]))
        assert "the index 9 is not one from 0 to 2" in second.prompt
    else:
        assert second.prompt[:-2] == first.prompt
        assert second.prompt[-2] == Message("assistant", str(llm.replies[0]))
        assert "the index 9 is not one from 0 to 2" in second.prompt[-1].content


@pytest.mark.parametrize("reply", ["I cannot do that.", "{}", "", GOOD[:20]])
def test_two_bad_replies_fail_the_neuron_and_are_not_zeros(reply: str) -> None:
    llm = Parrot([reply])
    with pytest.raises(NeuronFailure, match="asked again") as caught:
        _simulate(NumbersSimulator(llm))
    assert caught.value.cause == "malformed-reply"
    assert len(llm.requests) == 2


def test_a_reply_that_was_cut_off_says_so() -> None:
    with pytest.raises(NeuronFailure, match="cut off at the limit"):
        _simulate(NumbersSimulator(Parrot([Choice(GOOD[:20], "length")])))


def test_an_empty_list_is_a_silent_sequence() -> None:
    (values,) = _simulate(NumbersSimulator(Parrot(['{"activations":[]}'])))
    assert values.tolist() == [0.0, 0.0, 0.0]


def _with_tokens(tokens: list[str], tops: dict[int, dict[str, float]]) -> Choice:
    found = [tops.get(place, {"x": 0.0}) for place in range(len(tokens))]
    return Choice("".join(tokens), "stop", Logprobs(tokens, [0.0] * len(tokens), found))


CHAT = Capabilities(True, False, 5)
START = '{"activations":[{"index":1,"activation":'
EVEN = {"7": np.log(0.5), "9": np.log(0.5)}


@pytest.mark.parametrize(
    ("tokens", "tops", "expected"),
    [
        ([START, "7", "}]}"], {1: EVEN}, 8.0),
        ([START, "7}", "]}"], {1: EVEN}, 7.0),  # the number shares a token
        ([START[:-1], ":7", "}]}"], {1: EVEN}, 7.0),
        ([START, "7", "}]}"], {1: {"x": 0.0}}, 7.0),  # no number among the alternatives
        ([START, "10", "}]}"], {1: {"10": np.log(0.5), "0": np.log(0.5)}}, 5.0),
        (
            [START, "1", "0", "}]}"],
            {1: {"1": np.log(0.5), "0": np.log(0.5)}, 2: {"0": np.log(0.8)}},
            0.5 * (0.8 * 10 + 0.2),
        ),
    ],
)
def test_a_number_is_the_mean_of_what_could_have_stood_there_where_that_can_be_read(
    tokens: list[str], tops: dict[int, dict[str, float]], expected: float
) -> None:
    (values,) = _simulate(NumbersSimulator(Parrot([_with_tokens(tokens, tops)], CHAT)))
    np.testing.assert_allclose(values, [0.0, expected, 0.0], rtol=1e-6)


def test_tokens_that_do_not_spell_the_reply_are_not_believed() -> None:
    choice = Choice(GOOD, "stop", Logprobs(["7"], [0.0], [EVEN]))
    (values,) = _simulate(NumbersSimulator(Parrot([choice], CHAT)))
    assert values.tolist() == [0.0, 7.0, 0.0]


def test_tokens_after_the_end_of_the_answer_do_no_harm() -> None:
    tokens = [START, "7", "}]}", "\n\n", "The"]
    columns = _with_tokens(tokens, {1: EVEN}).tokens
    llm = Parrot([Choice("".join(tokens[:3]), "stop", columns)], PLAIN)
    (values,) = _simulate(NumbersSimulator(llm))
    assert values.tolist() == [0.0, 8.0, 0.0]
    assert llm.requests[0].stop == ("\n\n",)


def test_log_probabilities_and_schema_are_asked_for_where_the_model_has_them_and_wanted() -> None:
    can = Capabilities(True, False, 5, json_schema=True)
    choice = _with_tokens([START, "7", "}]}"], {1: EVEN})
    for wanted, top, schema in ((True, 5, True), (False, None, False)):
        llm = Parrot([choice], can)
        _simulate(NumbersSimulator(llm, logprobs=wanted, schema=wanted))
        assert llm.requests[0].top_logprobs == top
        assert (llm.requests[0].json_schema is not None) is schema


def _verdicts(fires: Sequence[bool]) -> str:
    return VERDICTS.write(dict(enumerate(fires)))


def test_a_verdict_is_given_to_every_token_of_its_own_sequence() -> None:
    texts = [f"text {number}".encode() for number in range(7)]
    stimuli = [Stimulus((b"<BOS>", text), np.array([False, True])) for text in texts]
    llm = Parrot([_verdicts([True, False, True, False]), _verdicts([False, False, True])])
    made = _simulate(DetectionSimulator(llm, sequences=4), stimuli)
    rows = [str(request.prompt[-1]).split("\\n")[2:-1] for request in llm.requests]
    shown = [row.split("\\t")[1] for batch in rows for row in batch]
    said = dict(zip(shown, [10, 0, 10, 0, 0, 0, 10], strict=True))
    assert sorted(shown) == [text.decode() for text in texts]
    assert shown != sorted(shown)
    for values, text in zip(made, texts, strict=True):
        np.testing.assert_array_equal(values, [np.nan, said[text.decode()]])


def test_another_seed_asks_about_other_sequences_together() -> None:
    stimuli = [Stimulus((f"text {number}".encode(),), np.ones(1, np.bool_)) for number in range(10)]
    asked = []
    for seed in (0, 0, 1):
        llm = Parrot([_verdicts([True] * 5)])
        _simulate(DetectionSimulator(llm, seed=seed), stimuli)
        asked.append([request.key("m") for request in llm.requests])
    assert asked[0] == asked[1] != asked[2]


def test_a_verdict_is_a_probability_where_it_can_be_read() -> None:
    tokens = ['{"verdicts":[{"index":0,"fires":', "true", "}]}"]
    top = {"true": np.log(0.6), "false": np.log(0.2), "maybe": np.log(0.2)}
    llm = Parrot([_with_tokens(tokens, {1: top})], CHAT)
    (values,) = _simulate(DetectionSimulator(llm))
    np.testing.assert_allclose(values, [7.5] * 3)


def test_a_verdict_too_few_is_asked_for_again_and_then_fails_the_neuron() -> None:
    llm = Parrot([_verdicts([True])])
    with pytest.raises(NeuronFailure, match="index 1 is missing") as caught:
        _simulate(DetectionSimulator(llm), [STIMULUS, STIMULUS])
    assert caught.value.cause == "malformed-reply"
    assert len(llm.requests) == 2


def test_sequences_without_a_scored_token_are_in_no_request() -> None:
    silent = Stimulus((b"a",), np.zeros(1, np.bool_))
    llm = Parrot([_verdicts([True])])
    made = _simulate(DetectionSimulator(llm), [silent, STIMULUS])
    assert np.isnan(made[0]).all()
    assert made[1].tolist() == [10.0] * 3
    assert _simulate(DetectionSimulator(Parrot([])), [silent])[0].size == 1
