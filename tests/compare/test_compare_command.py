"""`compare` on runs: what it reads, what it refuses, what it writes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from commands import Command, files, in_process

from neuron_explainer.runs import Run
from neuron_explainer.workspace import Workspace

RUN, SMALLER = "tiny-token-lookup", "lookup-3"
CSV = "method,neuron,score\na,0,0.5\na,1,0.2\nb,0,0.1\nb,1,0.3\n"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def two_runs(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The small workspace with a second run of smaller tables. Not to be changed."""
    root = tmp_path_factory.mktemp("compare") / "workspace"
    shutil.copytree(small_workspace.root, root)
    with pytest.MonkeyPatch.context() as patch:
        run = in_process(patch, _Silent())  # type: ignore[arg-type]
        here = ("--workspace", root)
        made = [
            ("explain", "--table-size", 3, "--neurons", "0-59", "--run", SMALLER),
            ("simulate", SMALLER, "--simulator", "token-lookup", "--simulator", "shuffled"),
            ("score", SMALLER),
        ]
        for arguments in made:
            assert run(*arguments, *here).code == 0
    return Workspace(root)


class _Silent:
    """Stands for pytest's capture in a fixture of a module."""

    out = err = ""

    def readouterr(self) -> "_Silent":
        return self


@pytest.fixture
def own(two_runs: Workspace, tmp_path: Path) -> Workspace:
    """A copy to change."""
    root = tmp_path / "workspace"
    shutil.copytree(two_runs.root, root)
    return Workspace(root)


Report = Callable[..., dict[str, Any]]


@pytest.fixture
def report(command: Command, tmp_path: Path) -> Report:
    """Runs `compare` with few resamples and gives its JSON."""

    def run(here: Workspace, *arguments: object) -> dict[str, Any]:
        few = ("--resamples", 200, "--json", "--workspace", here.root, "--to", tmp_path / "to")
        return command("compare", *(arguments or (RUN, SMALLER)), *few).json()

    return run


def test_two_runs_are_paired_and_held_against_nulls_and_lookup(
    two_runs: Workspace, report: Report
) -> None:
    found = report(two_runs)
    lines = {line["name"]: line for line in found["lines"]}
    assert [lines[name]["role"] for name in (RUN, SMALLER)] == ["method", "method"]
    assert {"constant", f"shuffled, {RUN}", f"shuffled, {SMALLER}"} < lines.keys()
    assert lines["constant"]["mean"] is None
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"]) == (SMALLER, RUN)
    assert pair["contrast"]["difference"]["value"] < 0
    low, high = pair["contrast"]["difference"]["interval"].values()
    assert low < pair["contrast"]["difference"]["value"] < high
    assert pair["contrast"]["n"] <= lines[RUN]["neurons"]
    assert lines[SMALLER]["gap_closed"]["value"] < 1
    assert found["facts"] == {"subject": "tiny", "split": "valid", "simulator": "token-lookup"}


def test_neurons_that_only_one_run_has_are_left_out_and_counted(
    two_runs: Workspace, report: Report
) -> None:
    lines = {line["name"]: line for line in report(two_runs)["lines"]}
    sites = len(Run(two_runs, RUN).sites())
    assert lines[RUN]["absent"] == 0
    assert lines[SMALLER]["absent"] == 4 * sites
    assert lines[RUN]["neurons"] == lines[SMALLER]["neurons"]


def test_the_neurons_they_disagree_on_come_with_both_explanations(
    two_runs: Workspace, report: Report
) -> None:
    first, *others = report(two_runs)["disagreements"]
    assert all(text for text in first["explanations"])
    sizes = [abs(one["scores"][0] - one["scores"][1]) for one in (first, *others)]
    assert sizes == sorted(sizes, reverse=True)


def test_the_report_is_written_once_more_with_the_same_bytes(
    own: Workspace, command: Command
) -> None:
    arguments = ("compare", RUN, SMALLER, "--resamples", 200, "--workspace", own.root)
    before = files(own.root)
    done = command(*arguments)
    assert done.code == 0, done.err
    written = files(own.root)
    folder = own.scoring / "comparisons" / f"{RUN}-vs-{SMALLER}"
    assert {own.root / name for name in written.keys() - before.keys()} >= {
        folder / "report.md",
        folder / "report.json",
    }
    assert before.items() <= written.items()
    assert command(*arguments).out == done.out
    assert files(own.root) == written
    assert orjson.loads((folder / "report.json").read_bytes())["pairs"]
    assert "Differences" in done.out
    assert str(folder / "report") in done.out.replace("\n", "")


def test_runs_of_other_simulators_are_refused_unless_a_reason_is_given(
    own: Workspace, command: Command, report: Report
) -> None:
    Run(own, SMALLER).simulations("token-lookup").update(
        {"config": {"simulator": "numbers", "llm": "scripted/x", "splits": ["valid"]}}
    )
    before = files(own.root)
    done = command("compare", RUN, SMALLER, "--workspace", own.root)
    assert done.code == 2
    assert f"simulator's simulator: {RUN} and {SMALLER} have token-lookup and numbers" in done.err
    assert "--allow" in done.err
    assert files(own.root) == before
    found = report(own, RUN, SMALLER, "--allow", "both read the same table")
    assert found["facts"]["allowed"] == "both read the same table"
    assert found["facts"]["differences"]


def test_runs_over_other_records_are_refused(own: Workspace, command: Command) -> None:
    folder = Run(own, SMALLER).folder
    site = Run(own, SMALLER).sites()[0]
    folder.update({"inputs": {**folder.manifest()["inputs"], site: "other"}})
    done = command("compare", RUN, SMALLER, "--workspace", own.root)
    assert done.code == 2
    assert f"record set: {RUN} and {SMALLER} have different ones of {site}" in done.err


def test_a_run_selected_on_the_reported_split_is_flagged_and_on_another_is_not(
    own: Workspace, report: Report
) -> None:
    folder = Run(own, SMALLER).folder
    for split, flagged in (("valid", True), ("calibration", False)):
        folder.update(
            {"selection": {"among": 4, "split": split, "runs": [{"run": RUN, "digest": ""}]}}
        )
        (guard,) = report(own)["guards"]
        assert guard["flagged"] is flagged
        assert ("fair" in guard["verdict"]) is not flagged
        if flagged:
            assert guard["null"] == f"shuffled, {SMALLER}"
            assert guard["null_upper_bound"]
            assert guard["above_null"]["difference"]["value"] > 0


def test_spending_becomes_tokens_and_cost_a_neuron(own: Workspace, report: Report) -> None:
    run = Run(own, SMALLER)
    neurons = sum(run.folder.read_all(f"{site}/explanations").num_rows for site in run.sites())
    spent = {"prompt_tokens": 8 * neurons, "completion_tokens": 2 * neurons, "cost": 0.5}
    run.folder.update({"spending": {**spent, "cache_hits": 0}})
    run.simulations("token-lookup").update({"spending": {**spent, "cache_hits": 3}})
    lines = {line["name"]: line for line in report(own)["lines"]}
    assert lines[SMALLER]["budget"]["tokens"] == pytest.approx(20)
    assert lines[SMALLER]["budget"]["cost"] == pytest.approx(1 / neurons)
    assert lines[SMALLER]["budget"]["cached"]
    assert lines[RUN]["budget"] == {"tokens": 0, "cost": 0, "cached": False}
    assert lines[RUN]["on_front_by_tokens"]
    assert not lines[SMALLER]["on_front_by_tokens"]


def test_two_seeds_of_one_method_are_named_with_a_comma(
    two_runs: Workspace, report: Report
) -> None:
    found = report(two_runs, RUN, f"{SMALLER},{RUN}")
    assert [line["seeds"] for line in found["lines"][:2]] == [1, 2]
    contrast = found["pairs"][0]["contrast"]
    alone = report(two_runs)["pairs"][0]["contrast"]
    assert contrast["difference"]["value"] > alone["difference"]["value"]


def test_another_metric_can_be_compared_and_an_unknown_one_names_the_nearest(
    two_runs: Workspace, report: Report, command: Command
) -> None:
    assert report(two_runs, RUN, SMALLER, "--metric", "correlation_random_only")["metric"] == (
        "correlation_random_only"
    )
    here = ("--workspace", two_runs.root)
    done = command("compare", RUN, SMALLER, "--metric", "corelation_random_only", *here)
    assert done.code == 2
    assert "correlation_random_only" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((RUN,), "compare needs two runs or more"),
        ((), "compare needs two runs or more"),
        ((RUN, "none"), "there is no run 'none'"),
        ((RUN, f"{SMALLER}/numbers"), "numbers has not simulated run"),
        ((RUN, SMALLER, "--split", "test"), "no test scores of a simulator in common"),
        ((RUN, SMALLER, "--split", "train"), "choose valid or test"),
        ((RUN, SMALLER, "--null", "x"), "belong to --csv"),
        (("--csv", "x.csv", "--selected", "a"), "write METHOD=K"),
        (("--plan", "--sd", "-1"), "above 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    two_runs: Workspace, command: Command, arguments: tuple[str, ...], said: str
) -> None:
    before = files(two_runs.root)
    done = command("compare", *arguments, "--workspace", two_runs.root)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert files(two_runs.root) == before


def _verdicts(run: Run, label: str, config: dict[str, Any], mean: float) -> None:
    """Scores as of a simulator that judges sequences; every fourth neuron is undefined."""
    folder = run.simulations(label)
    folder.open({**config, "splits": ["valid"]})
    folder.update({"predicts": "sequences"})
    for site in run.sites():
        for shard, _ in run.folder.shards(f"{site}/explanations"):
            neurons = np.arange(shard.start, shard.stop, dtype=np.int32)
            undefined = neurons % 4 == 0
            values = mean + 0.1 * np.sin(neurons)
            for_each = {
                "balanced_accuracy_top_and_random": pa.array(values, mask=undefined),
                "balanced_accuracy_top_and_random_undefined": pa.array(
                    ["truth is constant" if missing else None for missing in undefined]
                ),
            }
            table = pa.table({"neuron": pa.array(neurons), **for_each})
            folder.write({f"{site}/{shard.file('scores')}": table})


def test_simulators_that_judge_sequences_are_compared_by_their_own_metric(
    own: Workspace, report: Report
) -> None:
    for name, mean in ((RUN, 0.6), (SMALLER, 0.7)):
        _verdicts(Run(own, name), "detection", {"simulator": "detection"}, mean)
        shuffled = {"simulator": "detection", "shuffled": True}
        _verdicts(Run(own, name), "detection-shuffled", shuffled, 0.5)
    found = report(own, RUN, SMALLER, "--simulator", "detection")
    assert (found["metric"], found["chance"]) == ("balanced_accuracy_top_and_random", 0.5)
    (pair,) = found["pairs"]
    assert pair["contrast"]["difference"]["value"] == pytest.approx(0.1)
    assert pair["undefined_as_chance"]["difference"]["value"] == pytest.approx(0.075)
    lines = {line["name"]: line for line in found["lines"]}
    assert f"shuffled, {SMALLER}" in lines
    assert lines[RUN]["undefined"] == {"truth is constant": lines[RUN]["neurons"] // 4}
    assert any("predicts tokens" in note for note in found["notes"])
    assert found["reliability"] == []


def test_which_simulator_is_asked_when_runs_share_several(own: Workspace, command: Command) -> None:
    for name in (RUN, SMALLER):
        _verdicts(Run(own, name), "detection", {"simulator": "detection"}, 0.6)
    done = command("compare", RUN, SMALLER, "--workspace", own.root)
    assert done.code == 2
    assert "--simulator takes one of detection, token-lookup" in done.err


def test_a_plan_needs_only_a_spread(command: Command) -> None:
    assert command("compare", "--plan", "--sd", 0.1, "--json").json() == {
        "plans": [{"needed": {"0.01": 787, "0.02": 199, "0.05": 34}, "spread": 0.1}]
    }
    assert "787 for ±0.01" in command("compare", "--plan", "--sd", 0.1).out


def test_a_plan_from_two_runs_writes_nothing(two_runs: Workspace, command: Command) -> None:
    before = files(two_runs.root)
    done = command("compare", "--plan", RUN, SMALLER, "--workspace", two_runs.root)
    assert done.code == 0
    assert "neurons for 80 % power" in done.out
    assert files(two_runs.root) == before


def test_a_table_is_compared_into_any_folder(tmp_path: Path, command: Command) -> None:
    path, to = tmp_path / "scores.csv", tmp_path / "out"
    path.write_text(CSV)
    done = command("compare", "--csv", path, "--to", to)
    assert done.code == 0, done.err
    assert "a against b" in done.out
    assert (to / "report.md").read_text().startswith("# a against b\n")
    assert "--null METHOD" in done.out


def test_the_lookup_may_cover_more_sites_than_the_runs_compared(
    own: Workspace, command: Command, report: Report
) -> None:
    here = ("--workspace", own.root)
    for name, rows in (("few", 3), ("more", 9)):
        explain = ("--layer", 0, "--table-size", rows, "--neurons", "0-19", "--run", name)
        command("explain", *explain, *here)
        command("simulate", name, "--simulator", "token-lookup", *here)
        command("score", name, *here)
    lines = report(own, "few", "more", "--simulator", "token-lookup")["lines"]
    assert {line["neurons"] for line in lines if line["name"].startswith("token lookup")} == {20}
