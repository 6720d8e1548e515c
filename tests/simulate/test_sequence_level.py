"""Planted neurons through detection and fuzzing, from the stage to the table of scores."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from commands import Command, in_process
from oracle import ALL, BARE, Neuron, Oracle

from neuron_explainer import workspace
from neuron_explainer.config import ScoreSettings, SimulateSettings
from neuron_explainer.errors import ConfigError
from neuron_explainer.interchange.openai_import import import_records
from neuron_explainer.llm.base import Capabilities
from neuron_explainer.llm.compose import Stack, wrap
from neuron_explainer.records import Explanation, NeuronId
from neuron_explainer.runs import Run, explanation_table
from neuron_explainer.score import summary
from neuron_explainer.score.stage import SEQUENCE_SCORES, SiteScores, score
from neuron_explainer.simulate import stage
from neuron_explainer.store import Shard
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
SIZE = 24
WORDS = tuple(f" {first}{second}" for first in "bdgklm" for second in ("ap", "en", "ot", "ul"))
VALID = ScoreSettings()


def _sequence(random: Random, word: str | None) -> list[str]:
    tokens = random.choices(WORDS, k=8)
    if word is not None:
        tokens[random.randrange(8)] = word
    return tokens


def _record(random: Random, word: str, top: bool) -> dict[str, Any]:
    tokens = _sequence(random, word if top else None)
    activations = [random.uniform(8, 10) if token == word else -0.1 for token in tokens]
    return {"tokens": tokens, "activations": activations}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Neurons each of which fires on one word, and a run that says of each which."""
    root = tmp_path_factory.mktemp("planted")
    made, random = workspace.init(root / "workspace"), Random(0)
    folder = root / "0"
    folder.mkdir()
    for index, word in enumerate(WORDS):
        neuron = {
            "neuron_id": {"layer_index": 0, "neuron_index": index},
            "most_positive_activation_records": [_record(random, word, True) for _ in range(20)],
            "random_sample": [_record(random, word, False) for _ in range(20)],
        }
        (folder / f"{index}.json").write_text(json.dumps(neuron))
    import_records(root, made.data, "planted")
    run = Run(made, "words")
    run.folder.open({"subject": "planted"})
    explanations = [
        Explanation(NeuronId("planted", SITE, index), "test", word.strip())
        for index, word in enumerate(WORDS)
    ]
    run.folder.write(
        {f"{SITE}/{Shard(0, SIZE).file('explanations')}": explanation_table(explanations)}
    )
    return made


def _knows(word: bytes) -> Neuron:
    """Of a text whether the word is in it; of marks in a text whether they are on the word."""

    def fires(text: bytes, whole: bytes) -> int:
        named = set(text.replace(b"|", b" ").split())
        return int(named == {word} if whole else word in named)

    return fires


def _lies(neuron: Neuron) -> Neuron:
    return lambda text, whole: 1 - neuron(text, whole)


def _guesses(word: bytes) -> Neuron:
    return lambda text, whole: crc32(word + text + b"!" + whole) % 2


TRUE: Mapping[str, Neuron] = {word.strip(): _knows(word.strip().encode()) for word in WORDS}


def _through(
    planted: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    simulator: str,
    neurons: Mapping[str, Neuron],
    label: str,
    can: Capabilities = ALL,
    **options: Any,
) -> SiteScores:
    """What an oracle that knows `neurons` by their explanations scores in the stages."""

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Stack]:
        yield wrap(Oracle(neurons, can))

    monkeypatch.setattr(stage, "opened", opened)
    run = Run(planted, "words")
    asyncio.run(stage.simulate(run, simulator, SimulateSettings(), options=options, label=label))
    (made,) = score(run, label, VALID)
    assert set(made.scores) == set(SEQUENCE_SCORES)
    return made


@pytest.mark.parametrize("can", [ALL, BARE], ids=["log probabilities", "words"])
@pytest.mark.parametrize("simulator", ["detection", "fuzzing"])
def test_an_oracle_is_right_and_a_liar_wrong(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch, simulator: str, can: Capabilities
) -> None:
    lies = {text: _lies(neuron) for text, neuron in TRUE.items()}
    kind = "sure" if can == ALL else "plain"
    right = _through(planted, monkeypatch, simulator, TRUE, f"{simulator}-true-{kind}", can)
    wrong = _through(planted, monkeypatch, simulator, lies, f"{simulator}-lies-{kind}", can)
    for name in SEQUENCE_SCORES:
        assert right.scores[name].reasons == (None,) * SIZE
        assert (right.scores[name].values >= 0.95).all()
        assert (wrong.scores[name].values < 0.1).all()


@pytest.mark.parametrize("simulator", ["detection", "fuzzing"])
def test_another_neurons_explanation_and_a_guess_score_about_chance(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch, simulator: str
) -> None:
    guesses = {text: _guesses(text.encode()) for text in TRUE}
    label = f"{simulator}-guesses"
    guessed = _through(planted, monkeypatch, simulator, guesses, label)
    label = f"{simulator}-shuffled"
    shuffled = _through(planted, monkeypatch, simulator, TRUE, label, shuffled=True)
    for name in SEQUENCE_SCORES:
        assert np.nanmean(guessed.scores[name].values) == pytest.approx(0.5, abs=0.1)
        assert np.nanmean(shuffled.scores[name].values) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("simulator", ["detection", "fuzzing"])
def test_a_model_that_always_says_yes_or_every_other_time_scores_chance(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch, simulator: str
) -> None:
    says = iter([1, 0] * 10_000)
    kinds: dict[str, Neuron] = {"yes": lambda *_: 1, "turns": lambda *_: next(says)}
    for kind, answer in kinds.items():
        made = _through(
            planted, monkeypatch, simulator, dict.fromkeys(TRUE, answer), f"{simulator}-{kind}"
        )
        for name in SEQUENCE_SCORES:
            mean = np.nanmean(made.scores[name].values)
            assert mean == pytest.approx(0.5, abs=0.0 if kind == "yes" else 0.1)


def test_what_was_highlighted_is_stored_with_whether_it_was_true(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _through(planted, monkeypatch, "fuzzing", TRUE, "fuzzing")
    folder = Run(planted, "words").simulations("fuzzing")
    rows = folder.read(f"{SITE}/{Shard(0, SIZE).file('simulations')}").to_pylist()
    assert folder.manifest()["predicts"] == "sequences"
    shown = [row for row in rows if row["highlighted"] is not None]
    for row in rows:
        assert (row["highlighted"] is None) == (row["genuine"] is None)
        assert (row["highlighted"] is None) == (row["activations"][0] is None)
    for row in shown:
        assert len(row["highlighted"]) == len(row["activations"]) == 8
        yes = 9.0 if row["genuine"] else 1.0
        assert row["activations"] == pytest.approx([yes] * 8)
    for index in range(SIZE):
        for split in ("calibration", "valid"):
            some = [r["genuine"] for r in shown if (r["neuron"], r["split"]) == (index, split)]
            assert abs(2 * sum(some) - len(some)) <= 1
    tops = [row for row in rows if row["kind"] == "top"]
    assert all(row["highlighted"] for row in tops)
    assert not all(row["highlighted"] for row in rows)


def test_summary_and_programs_are_told_what_is_predicted_and_what_chance_is(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _through(planted, monkeypatch, "detection", TRUE, "detection")
    _through(planted, monkeypatch, "detection", TRUE, "detection-other", shuffled=True)
    run = Run(planted, "words")
    rows = {row.label: row for row in summary.rows_of(run, VALID)}
    row = rows["detection"]
    assert (row.correlation, row.null) == ({}, False)
    assert set(row.verdicts) == {"balanced_accuracy", "auroc"}
    assert rows["detection-other"].null
    cells = summary.verdict_cells(row)
    assert cells["n"] == str(SIZE)
    assert cells["auroc"] == "1.000 [1.000 1.000]"
    told = summary.as_json(row, seed=0)
    assert (told["predicts"], told["chance"]) == ("sequences", 0.5)
    assert set(told["scores"]) == set(SEQUENCE_SCORES)  # type: ignore[call-overload]


def test_a_neuron_that_fires_in_all_sequences_or_in_none_is_undefined_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = workspace.init(tmp_path / "workspace"), tmp_path / "in" / "0"
    folder.mkdir(parents=True)
    for index, values in enumerate(([9.0, 0.0], [0.0, 0.0], [9.0, 9.0])):
        record = {"tokens": [" a", " b"], "activations": values}
        neuron = {
            "neuron_id": {"layer_index": 0, "neuron_index": index},
            "most_positive_activation_records": [record] * 4,
            "random_sample": [record] * 3,
        }
        (folder / f"{index}.json").write_text(json.dumps(neuron))
    import_records(folder.parent, made.data, "planted")
    run = Run(made, "words")
    run.folder.open({"subject": "planted"})
    told = [Explanation(NeuronId("planted", SITE, index), "test", "x") for index in range(3)]
    run.folder.write({f"{SITE}/{Shard(0, 3).file('explanations')}": explanation_table(told)})
    neurons: dict[str, Neuron] = {"x": lambda *_: 1}
    detection = _through(made, monkeypatch, "detection", neurons, "detection")
    fuzzing = _through(made, monkeypatch, "fuzzing", neurons, "fuzzing")
    for name in SEQUENCE_SCORES:
        assert detection.scores[name].reasons == ("truth is constant",) * 3
        assert fuzzing.scores[name].reasons[1:] == ("no sequences",) * 2
    lines = summary.remarks(run, summary.rows_of(run, VALID))
    assert f"{SITE}, detection: 100.0% undefined (truth is constant)" in lines


def test_shuffled_refuses_to_stand_for_a_simulator_that_judges_sequences(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="simulate with detection and --option shuffled=true"):
        _through(planted, monkeypatch, "shuffled", TRUE, "shuffled", of="detection")


# ── the command line ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command line, in the planted workspace."""
    monkeypatch.chdir(planted.root)
    return in_process(monkeypatch, capsys)


def _script(path: Path, field: str) -> Path:
    """Says yes and no in turns, about as many texts as there are."""
    rules = [
        {
            "pattern": rf"{last}\t[^\n]*\n<end>$",
            "reply": json.dumps(
                {"verdicts": [{"index": at, field: at % 2 == 0} for at in range(last + 1)]}
            ),
        }
        for last in range(5)
    ]
    path.write_text(json.dumps(rules))
    return path


def test_simulate_score_and_show_on_the_command_line(command: Command, tmp_path: Path) -> None:
    for name, field in (("fuzzing", "correct"), ("detection", "fires")):
        script = _script(tmp_path / f"{name}.json", field)
        simulate = ("simulate", "words", "--simulator", name, "--llm", f"scripted/{script}")
        done = command(*simulate, "--as", f"my-{name}")
        assert (done.code, done.err) == (0, "")
        assert f"{name}: {SIZE} neurons simulated now" in done.out
    done = command("score", "words", "--simulator", "my-fuzzing", "--simulator", "my-detection")
    assert (done.code, done.err) == (0, "")
    for expected in ("chance 0.5", "balanced accuracy [95 %]", "AUROC [95 %]", SITE, "my-fuzzing"):
        assert expected in done.out
    assert "correlation" not in done.out
    assert "whole-table baseline" not in done.out
    rows: Any = command("score", "words", "--simulator", "my-detection", "--json").json()["rows"]
    (row,) = (row for row in rows if row["label"] == "my-detection")
    assert (row["predicts"], row["chance"]) == ("sequences", 0.5)
    assert row["scores"]["auroc_top_and_random"]["n"] == SIZE
    plans: Any = command(*simulate, "--as", "planned", "--dry-run", "--json").json()["plans"]
    assert plans[0]["forecast"]["requests"] > 0
    paid = command(*simulate, "--as", "paid-for-nothing", "--quantile")
    assert paid.code == 2
    assert "detection is not scored on quantile records" in paid.err
    shown = command("show", "planted/0/3", "--plain")
    assert (shown.code, shown.err) == (0, "")
    assert "my-detection has AUROC 0." in shown.out.replace("\n", " ")
    assert "scores undefined" not in shown.out
    wrong = (*simulate, "--as", "my-null", "--option", "shuffled=true")
    assert command(*wrong).code == 0
    command("score", "words", "--simulator", "my-null")
    shown = command("show", "planted/0/3", "--plain")
    assert "my-null" not in shown.out
