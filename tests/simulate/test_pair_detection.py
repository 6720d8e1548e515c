"""Heads judged by prose: what is asked about a pair, and what the planted head's oracle scores."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import planted_head
import pytest
from commands import Command, in_process
from hostile import sequences
from hypothesis import given
from hypothesis import strategies as st
from oracle import ALL, BARE, PLAIN, Neuron, Oracle, Parrot, marked, written
from planted_head import SITE

from neuron_explainer import pair_text, registry
from neuron_explainer.config import ScoreSettings, SimulateSettings
from neuron_explainer.errors import NeuronFailure
from neuron_explainer.few_shot_heads import load_few_shot_heads
from neuron_explainer.llm.base import LLM, Capabilities
from neuron_explainer.llm.compose import Stack, wrap
from neuron_explainer.records import Explanation, NeuronId, Pair, Simulation, Stimulus
from neuron_explainer.runs import Run, explanation_table
from neuron_explainer.score.stage import SEQUENCE_SCORES, score
from neuron_explainer.simulate import stage
from neuron_explainer.store import Shard
from neuron_explainer.workspace import Workspace

HEAD = NeuronId("planted", SITE, 0)
BEFORE, SAME = "each token and the one just before it", "a token and the same one earlier"


def _adjacent(marks: bytes, text: bytes) -> int:
    """What is true of the planted head: the key is right before the query."""
    key, _, query = marks.partition(b"|query:")
    return int(bool(query) and key + b"query:" + query in text)


def _equal(marks: bytes, text: bytes) -> int:
    key, _, query = marks.partition(b"|query:")
    return int(key.removeprefix(b"key:").strip() == query.strip())


def _lies(marks: bytes, text: bytes) -> int:
    return 1 - _adjacent(marks, text)


TRUE: Mapping[str, Neuron] = {BEFORE: _adjacent, SAME: _equal}


@pytest.fixture(scope="module")
def told(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The planted heads, and a run that says what head 0 connects, and of head 1 what is wrong."""
    here = planted_head.collected(tiny, tmp_path_factory.mktemp("heads"), pairs=120)
    run = Run(here, "told")
    run.folder.open({"subject": "planted"})
    made = [
        Explanation(NeuronId("planted", SITE, head), "test", text)
        for head, text in enumerate((BEFORE, SAME))
    ]
    run.folder.write({f"{SITE}/{Shard(0, 2).file('explanations')}": explanation_table(made)})
    return here


def _scores(
    told: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch, llm: LLM, **options: Any
) -> dict[str, float]:
    """What head 0 scores, in both metrics."""

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Stack]:
        yield wrap(llm)

    monkeypatch.setattr(stage, "opened", opened)
    run = Run(Workspace(shutil.copytree(told.root, folder / "own")), "told")
    asyncio.run(stage.simulate(run, "pair-detection", SimulateSettings(), options=options))
    (found,) = score(run, "pair-detection", ScoreSettings())
    assert set(found.scores) == set(SEQUENCE_SCORES)
    return {name: float(scores.values[0]) for name, scores in found.scores.items()}


@pytest.mark.parametrize("can", [ALL, PLAIN, BARE], ids=["chat", "plain", "words"])
def test_an_oracle_of_the_planted_head_is_right_and_a_liar_wrong(
    told: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: Capabilities
) -> None:
    right = _scores(told, tmp_path / "right", monkeypatch, Oracle(TRUE, can))
    wrong = _scores(told, tmp_path / "wrong", monkeypatch, Oracle({**TRUE, BEFORE: _lies}, can))
    assert min(right.values()) >= 0.99
    assert max(wrong.values()) <= 0.01


@pytest.mark.parametrize("says", [0, 1])
def test_a_constant_judge_is_exactly_at_chance(
    told: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: int
) -> None:
    llm = Oracle(dict.fromkeys(TRUE, lambda *_: says), BARE)
    assert set(_scores(told, tmp_path, monkeypatch, llm).values()) == {0.5}


def test_another_heads_explanation_scores_about_chance(
    told: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _scores(told, tmp_path, monkeypatch, Oracle(TRUE), shuffled=True)
    assert list(found.values()) == pytest.approx([0.5, 0.5], abs=0.1)


# ── what is asked ─────────────────────────────────────────────────────────────────────────────


def _stimulus(*tokens: bytes, pair: Pair, bos: bool = False) -> Stimulus:
    scored = np.arange(len(tokens)) >= bos
    return Stimulus(tokens, scored, pair=pair)


def _simulate(llm: LLM, *stimuli: Stimulus, **options: Any) -> list[Simulation]:
    made = registry.make("simulators", "pair-detection", options, llm=llm)
    simulated: list[Simulation] = asyncio.run(
        made.simulate(Explanation(HEAD, "test", BEFORE), stimuli)
    )
    return simulated


def test_query_and_key_are_marked_and_no_activation_is_told() -> None:
    llm = Oracle(TRUE, BARE)
    first = _stimulus(b"<BOS>", b"A", b" cat", b" sat", pair=(3, 2), bos=True)
    second = _stimulus(b"<BOS>", "«".encode(), b" b", pair=(2, 2), bos=True)
    made = _simulate(llm, first, second)
    assert [one.activations[1] for one in made] == [10.0, 0.0]
    assert np.isnan(made[0].activations[0])
    (request,) = llm.requests
    asked = written(request.prompt).rpartition("<start>")[2]
    assert "\tA«key: cat»«query: sat»\n" in asked
    assert "\t\\««query and key: b»\n" in asked
    assert "BOS" not in asked


def test_the_examples_are_judged_as_they_are_told_and_half_of_them_are_strong() -> None:
    llm = Oracle(TRUE, BARE)
    _simulate(llm, _stimulus(b"a", b" b", pair=(1, 0)))
    prompt: Any = llm.requests[0].prompt
    _, *turns, _ = prompt
    answers = [json.loads(turn.content)["verdicts"] for turn in turns[1::2]]
    verdicts = [entry["writes"] for answer in answers for entry in answer]
    assert len(answers) == len(load_few_shot_heads()) == 2
    assert sum(verdicts) == len(verdicts) / 2
    for turn, head in zip(turns[::2], load_few_shot_heads(), strict=True):
        assert head.explanation in turn.content


def test_weak_pairs_of_the_examples_are_not_what_the_explanation_says() -> None:
    brackets, same = load_few_shot_heads()
    for shown in brackets.records:
        query, key = shown.weak
        assert (query, key) != shown.strong
        assert shown.tokens[query].strip() not in {b")", b"]"} or key != shown.strong[1]
    for shown in same.records:
        words = [shown.tokens[place].strip().lower() for place in shown.weak]
        assert words[0] != words[1]


def _seen(tokens: Sequence[bytes], pair: Pair) -> tuple[bytes, bytes]:
    """What a reader of a marked line is to find: the marks, and the text with them in place."""
    roles = {pair[1]: b"key:", pair[0]: b"query:" if pair[0] != pair[1] else b"query and key:"}
    marks = [roles[place] + tokens[place] for place in sorted(roles)]
    text = [roles.get(place, b"") + token for place, token in enumerate(tokens)]
    return b"|".join(marks), b"".join(text)


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_a_marked_text_gives_back_its_tokens_and_its_pair(
    tokens: list[bytes], data: st.DataObject
) -> None:
    query = data.draw(st.integers(0, len(tokens) - 1))
    pair = query, data.draw(st.integers(0, query))
    assert marked(pair_text.marked(tokens, pair)) == _seen(tokens, pair)


@pytest.mark.parametrize("can", [ALL, PLAIN, BARE], ids=["chat", "plain", "words"])
def test_no_hostile_text_gets_the_verdict_of_another(can: Capabilities) -> None:
    def says(marks: bytes, text: bytes) -> int:
        return crc32(marks + b" in " + text) % 2

    stimuli = [_stimulus(*tokens, pair=(len(tokens) - 1, 0)) for tokens in sequences(300)]
    made = _simulate(Oracle({BEFORE: says}, can), *stimuli)
    yes, no = (9.0, 1.0) if can.top_logprobs else (10.0, 0.0)
    for simulation, stimulus in zip(made, stimuli, strict=True):
        expected = yes if says(*_seen(stimulus.tokens, (len(stimulus.tokens) - 1, 0))) else no
        np.testing.assert_allclose(simulation.activations, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("yes", "not JSON alone"),
        ('{"verdicts":[]}', "index 0 is missing"),
        ('{"verdicts":[{"index":0,"fires":true}]}', 'no "writes"'),
        ('{"verdicts":[{"index":0,"writes":"true"}]}', "is not true or false"),
        ('{"verdicts":[{"index":1,"writes":true}]}', "index 1 is not one"),
    ],
)
def test_a_malformed_reply_is_asked_again_and_then_a_failure(reply: str, says: str) -> None:
    pair = _stimulus(b"a", b" b", pair=(1, 0))
    good = '{"verdicts":[{"index":0,"writes":true}]}'
    assert _simulate(Parrot([reply, good]), pair)[0].activations.tolist() == [10.0, 10.0]
    llm = Parrot([reply])
    with pytest.raises(NeuronFailure, match=says) as caught:
        _simulate(llm, pair)
    assert caught.value.cause == "malformed-reply"
    assert len(llm.requests) == 2


def test_a_record_without_a_pair_is_a_failure_and_asks_nothing() -> None:
    llm = Oracle(TRUE)
    with pytest.raises(NeuronFailure, match="not one of an attention head"):
        _simulate(llm, replace(_stimulus(b"a", b"b", pair=(1, 0)), pair=None))
    assert not llm.requests


# ── the command line ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(
    told: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """The command line, in a copy of the workspace."""
    monkeypatch.chdir(shutil.copytree(told.root, tmp_path / "own"))
    return in_process(monkeypatch, capsys)


def _script(path: Path, judged: int) -> Path:
    """A model that explains, and says yes and no in turns about up to `judged` texts."""
    rules = [
        {
            "pattern": rf"{last}\t[^\n]*\n<end>$",
            "reply": json.dumps(
                {"verdicts": [{"index": at, "writes": at % 2 == 0} for at in range(last + 1)]}
            ),
        }
        for last in range(judged)
    ]
    explains = {"pattern": "^Excerpts:", "reply": ["from a word to the last", "from it to a comma"]}
    path.write_text(json.dumps([*rules, explains]))
    return path


def test_heads_are_explained_forecast_judged_scored_selected_and_compared(
    command: Command, tmp_path: Path
) -> None:
    model = ("--llm", f"scripted/{_script(tmp_path / 'script.json', 5)}")
    simulate = ("simulate", "told", "--simulator", "pair-detection", *model)
    plans: Any = command(*simulate, "--dry-run", "--json").json()["plans"]
    assert plans[0]["forecast"]["requests"] == 2 * 24  # 120 pairs of two splits, 5 a request
    done = command(*simulate)
    assert (done.code, done.err) == (0, "")
    assert command(*simulate, "--as", "null", "--option", "shuffled=true").code == 0
    best = command(
        *("explain", "--subject", "planted", "--site", SITE, "--explainer", "attention-head"),
        *("--best-of", "2", "--simulator", "pair-detection", "--run", "best", *model),
    )
    assert (best.code, best.err) == (0, "")
    assert command("simulate", "best", "--simulator", "pair-detection", *model).code == 0
    for run in ("told", "best"):
        done = command("score", run)
        assert (done.code, done.err) == (0, "")
        assert "AUROC" in done.out
    done = command("compare", "told", "best", "--simulator", "pair-detection")
    assert (done.code, done.err) == (0, "")
    assert "no pair lookup: explain with --explainer pair-lookup, simulate with" in " ".join(
        done.out.split()
    )
    assert "pair-detection" in command("show", f"planted/{SITE}/0", "--plain").out


def test_heads_are_judged_by_no_simulator_of_neurons(command: Command, tmp_path: Path) -> None:
    model = ("--llm", f"scripted/{_script(tmp_path / 'script.json', 1)}")
    done = command("simulate", "told", "--simulator", "detection", *model)
    assert done.code == 2
    assert "detection simulates neurons" in done.err
