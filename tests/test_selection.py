"""Best of n: what is chosen, by what, and why not on the split that is reported."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from commands import Command, in_process

from neuron_explainer import registry
from neuron_explainer.config import ScoreSettings, SelectSettings, SimulateSettings
from neuron_explainer.errors import ConfigError, DataError, RunMismatch
from neuron_explainer.explain.lookup import TokenLookup
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import (
    Explanation,
    FloatArray,
    NeuronId,
    NeuronRecord,
    Record,
    Simulation,
    Split,
    TokenTable,
)
from neuron_explainer.runner import failure_table
from neuron_explainer.runs import Run, explanation_table, simulation_table
from neuron_explainer.score.stage import score
from neuron_explainer.selection import Selected, select
from neuron_explainer.simulate.stage import simulate
from neuron_explainer.store import Shard
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.mlp.hook_post"
NEURONS = Shard(0, 32)
SPLITS: tuple[Split, ...] = ("calibration", "valid")
CALIBRATION = SelectSettings("planted")
Predict = Callable[[int, Record], FloatArray]


@pytest.fixture
def here(small_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the small workspace's records, to explain and select in."""
    root = tmp_path / "workspace"
    shutil.copytree(small_workspace.root / "data", root / "data")
    for name in ("explanations", "scoring"):
        (root / name).mkdir()
    return Workspace(root)


def planted(
    here: Workspace,
    name: str,
    predict: Predict,
    splits: tuple[Split, ...] = SPLITS,
    unexplained: frozenset[int] = frozenset(),
    neurons: Shard = NEURONS,
    subject: str = "tiny",
) -> Run:
    """A run and its simulations, each record of a neuron predicted as `predict` says."""
    run = Run(here, name)
    record_set = RecordSet(here.data, "tiny", SITE)
    run.folder.open({"subject": subject, "explainer": "planted"})
    run.folder.update({"inputs": {SITE: record_set.folder.digest()}})
    indices = [index for index in range(neurons.start, neurons.stop) if index not in unexplained]
    explanations = [
        Explanation(NeuronId("tiny", SITE, index), "planted", f"{name} on {index}")
        for index in indices
    ]
    run.folder.write(
        {
            f"{SITE}/{neurons.file('explanations')}": explanation_table(explanations),
            f"{SITE}/{neurons.file('failures')}": failure_table([]),
        }
    )
    folder = run.simulations("planted")
    folder.open({"simulator": "planted", "seed": 0, "splits": splits})
    listed = run.folder.manifest()["shards"]
    folder.update({"inputs": {file: entry["sha256"] for file, entry in listed.items()}})
    records = {
        neuron.neuron.index: neuron.records
        for neuron in record_set.shard(neurons, ["records"], splits)
    }
    simulations = [[Simulation(predict(i, record)) for record in records[i]] for i in indices]
    table = simulation_table(indices, [records[i] for i in indices], simulations)
    folder.write({f"{SITE}/{neurons.file('simulations')}": table})
    return run


def true(_: int, record: Record) -> FloatArray:
    return record.activations


def constant(_: int, record: Record) -> FloatArray:
    return np.ones(len(record.tokens))


def noise(seed: int) -> Predict:
    rng = np.random.default_rng(seed)
    return lambda _, record: rng.normal(size=len(record.tokens))


def texts(run: Run) -> Mapping[int, Explanation]:
    return {
        index: explanation
        for _, file in run.folder.shards(f"{SITE}/explanations")
        for index, explanation in run.explanations(SITE, file).items()
    }


def test_each_neuron_gets_the_explanation_that_is_best_on_calibration(here: Workspace) -> None:
    def good_at(remainder: int) -> Predict:
        """Right about every third neuron on calibration, and about the others on valid."""

        def predict(index: int, record: Record) -> FloatArray:
            right = (index % 3 == remainder) == (record.split == "calibration")
            return record.activations if right else -record.activations

        return predict

    runs = [planted(here, f"run-{n}", good_at(n)) for n in range(3)]
    done = select(Run(here, "best"), runs, CALIBRATION)
    assert done == Selected(done.run, 32, {"run-0": 11, "run-1": 11, "run-2": 10}, 0, {})
    made = texts(done.run)
    assert [made[n].text for n in range(32)] == [f"run-{n % 3} on {n}" for n in range(32)]
    assert [made[n].candidate for n in range(32)] == [f"run-{n % 3}" for n in range(32)]
    manifest = done.run.folder.manifest()
    assert manifest["complete"]
    assert manifest["inputs"] == runs[0].folder.manifest()["inputs"]
    assert manifest["selection"] == {
        "among": 3,
        "split": "calibration",
        "simulator": "planted",
        "runs": [{"run": run.name, "digest": run.folder.digest()} for run in runs],
        "undefined": 0,
    }


def test_a_simulator_of_whole_sequences_selects_by_the_area_under_the_curve(
    here: Workspace,
) -> None:
    def loudest(_: int, record: Record) -> FloatArray:
        return np.full(len(record.tokens), max(record.maximum, 0.0))

    runs = [planted(here, "noise", noise(0)), planted(here, "right", loudest)]
    for run in runs:
        run.simulations("planted").update({"predicts": "sequences"})
    done = select(Run(here, "best"), runs, CALIBRATION)
    assert done.chosen["right"] + done.undefined == 32
    assert done.chosen["right"] > 16


def test_an_undefined_score_loses_and_the_first_of_equals_wins(here: Workspace) -> None:
    runs = [
        planted(here, "constant", constant),
        planted(here, "wrong", lambda _, record: -record.activations),
        planted(here, "as-wrong", lambda _, record: -2 * record.activations),
    ]
    done = select(Run(here, "best"), runs, CALIBRATION)
    assert done.chosen == {"constant": 0, "wrong": 32, "as-wrong": 0}


def test_where_no_candidate_has_a_score_the_first_explanation_is_taken_and_counted(
    here: Workspace,
) -> None:
    runs = [
        planted(here, "a", constant, unexplained=frozenset({0})),
        planted(here, "b", constant),
    ]
    done = select(Run(here, "best"), runs, CALIBRATION)
    assert done.chosen == {"a": 31, "b": 1}
    assert done.undefined == 32


def test_on_noise_selecting_on_the_reported_split_flatters_and_on_calibration_does_not(
    here: Workspace,
) -> None:
    runs = [planted(here, f"run-{seed}", noise(seed)) for seed in range(8)]
    valid = {
        run.name: score(run, "planted", ScoreSettings("valid"))[0].scores[
            "correlation_top_and_random"
        ]
        for run in runs
    }

    def mean_valid(settings: SelectSettings) -> float:
        done = select(Run(here, settings.split), runs, settings)
        made = texts(done.run)
        values = [valid[made[n].candidate or ""].values[n] for n in range(32)]
        return float(np.mean(values))

    chance = np.std([values.values for values in valid.values()])  # of one score
    assert mean_valid(SelectSettings("planted", "valid")) > chance
    assert abs(mean_valid(CALIBRATION)) < 3 * chance / np.sqrt(32)


def test_selecting_again_changes_nothing_and_goes_on_where_it_was_stopped(here: Workspace) -> None:
    runs = [planted(here, "a", true), planted(here, "b", noise(0))]
    first = select(Run(here, "best"), runs, CALIBRATION)
    manifest = first.run.folder.manifest()
    assert select(Run(here, "best"), runs, CALIBRATION).neurons == 0
    assert first.run.folder.manifest() == manifest
    file = f"{SITE}/{NEURONS.file('explanations')}"
    (first.run.folder.path / file).unlink()
    assert select(Run(here, "best"), runs, CALIBRATION).neurons == 32
    assert first.run.folder.manifest() == manifest
    with pytest.raises(RunMismatch, match="selected_from"):
        select(Run(here, "best"), runs[::-1], CALIBRATION)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"subject": "small"}, "'b' explains small, 'a' tiny"),
        ({"neurons": Shard(0, 16)}, "'b' explains other neurons than 'a'"),
    ],
)
def test_runs_that_explain_something_else_are_refused(
    here: Workspace, other: Mapping[str, object], told: str
) -> None:
    runs = [planted(here, "a", true), planted(here, "b", true, **other)]  # type: ignore[arg-type]
    with pytest.raises(DataError, match=told):
        select(Run(here, "best"), runs, CALIBRATION)
    assert not (here.explanations / "best").exists()


def test_runs_on_other_records_are_refused(here: Workspace) -> None:
    runs = [planted(here, "a", true), planted(here, "b", true)]
    runs[1].folder.update({"inputs": {SITE: "another"}})
    with pytest.raises(DataError, match="'b' explains other records than 'a'"):
        select(Run(here, "best"), runs, CALIBRATION)


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "best"]])
def test_there_must_be_two_other_runs(here: Workspace, names: list[str]) -> None:
    with pytest.raises(ConfigError, match="two or more other runs"):
        select(Run(here, "best"), [Run(here, name) for name in names], CALIBRATION)


def test_simulations_that_are_missing_or_of_older_explanations_are_asked_for(
    here: Workspace,
) -> None:
    runs = [planted(here, "a", true), planted(here, "b", true, splits=("valid",))]
    told = "simulate b --simulator planted --split calibration"
    with pytest.raises(DataError, match=told):
        select(Run(here, "best"), runs, CALIBRATION)
    runs[1] = planted(here, "c", true)
    folder = runs[1].simulations("planted")
    folder.update({"inputs": dict.fromkeys(folder.manifest()["inputs"], "older")})
    with pytest.raises(DataError, match="simulate c --simulator planted --split calibration"):
        select(Run(here, "best"), runs, CALIBRATION)


def test_one_split_alone_is_simulated_in_a_folder_of_its_own_and_the_rest_later(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    shutil.copytree(small_workspace.root, tmp_path / "workspace")
    run = Run(Workspace(tmp_path / "workspace"), "tiny-token-lookup")
    shutil.rmtree(run.workspace.scoring)
    alone = SimulateSettings(split="calibration")
    asyncio.run(simulate(run, "token-lookup", alone))
    folder = run.simulations("token-lookup-calibration")
    assert set(folder.read_all(f"{SITE}/simulations")["split"].to_pylist()) == {"calibration"}
    with pytest.raises(DataError, match=r"simulate tiny-token-lookup --simulator token-lookup$"):
        score(run, "token-lookup-calibration", ScoreSettings("valid"))
    asyncio.run(simulate(run, "token-lookup", SimulateSettings()))
    whole = score(run, "token-lookup", ScoreSettings("calibration"))[0].scores
    part = score(run, "token-lookup-calibration", ScoreSettings("calibration"))[0].scores
    for name, figures in whole.items():
        np.testing.assert_array_equal(figures.values, part[name].values)
        assert np.isnan(figures.values).all() == (not name.startswith("correlation"))


def test_the_command_line_selects_and_warns_of_the_reported_split(
    here: Workspace, command: Command
) -> None:
    planted(here, "a", noise(0))
    planted(here, "b", true)
    arguments = ("a", "b", "--simulator", "planted", "--workspace", here.root)
    done = command("select", "best", *arguments)
    assert (done.code, done.err) == (0, "")
    assert "32 neurons selected now by planted on calibration; in all 0 from a, 32 from b" in (
        done.out
    )
    optimistic = command("select", "flattered", *arguments, "--split", "valid")
    assert "note: selected on valid" in optimistic.err
    assert command("select", "best", *arguments, "--json").json()["selected"] == 0
    refused = command("select", "other", *arguments, "--split", "test")
    assert refused.code == 2
    assert "choose calibration or valid" in refused.err


@dataclass(frozen=True, slots=True)
class Guess:
    """A token table that is right where the seed is odd, and knows no token else."""

    temperature: float = 0.0
    seed: int = 0

    name = "guess"

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """As above."""
        right = await TokenLookup().explain(neuron)
        wrong = TokenTable((None,), (b"no such token",), (1.0,), (1.0,), 0.0)
        return right if self.seed % 2 else replace(right, table=wrong)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The command line, which knows `Guess`."""
    known = {**registry._BUILT_IN["explainers"], "guess": f"{__name__}:Guess"}
    monkeypatch.setitem(registry._BUILT_IN, "explainers", known)
    registry.names.cache_clear()
    yield in_process(monkeypatch, capsys)
    registry.names.cache_clear()


def test_best_of_explains_with_other_seeds_simulates_calibration_alone_and_selects(
    here: Workspace, command: Command
) -> None:
    arguments = ("--site", SITE, "--neurons", "0-15", "--workspace", here.root)
    best_of = ("--best-of", 3, "--simulator", "token-lookup")
    asked = ("explain", "--explainer", "guess", *best_of, *arguments)
    planned = command(*asked, "--dry-run")
    assert "guess-best-of-3.3" in planned.out
    assert not list(here.explanations.iterdir())
    done = command(*asked, "--json").json()
    name = "tiny-guess-best-of-3"
    assert done["run"] == name
    assert done["chosen"] == {f"{name}.1": 0, f"{name}.2": 16, f"{name}.3": 0}
    configs = [Run(here, f"{name}.{n}").folder.manifest()["config"] for n in (1, 2, 3)]
    assert [(config["temperature"], config["seed"]) for config in configs] == [
        (1.0, 0),
        (1.0, 1),
        (1.0, 2),
    ]
    assert Run(here, f"{name}.1").simulators() == ["token-lookup-calibration"]
    assert command(*asked, "--json").json()["selected"] == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--best-of", 3), "say whose by --simulator"),
        (("--simulator", "numbers"), "only with --best-of"),
        (("--best-of", 1, "--simulator", "constant"), "runs is 1; it must be at least 2"),
        (
            ("--best-of", 2, "--simulator", "constant", "--option", "temperature=0"),
            "at temperature 0 all 2 explanations would be the same",
        ),
        (
            ("--best-of", 2, "--simulator", "constant", "--explainer", "token-lookup"),
            "unknown option of token-lookup 'temperature'",
        ),
    ],
)
def test_what_best_of_cannot_do_is_told_in_one_line(
    here: Workspace, command: Command, more: tuple[object, ...], told: str
) -> None:
    done = command(
        *("explain", "--explainer", "guess", "--site", SITE, "--workspace", here.root), *more
    )
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert not list(here.explanations.iterdir())
