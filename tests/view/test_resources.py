"""Every resource of the viewer against the files that it is read from."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_workspace import RECORDS, RUNS, SITE, SUBJECT, MadeWorkspace

from neuron_explainer.config import ScoreSettings
from neuron_explainer.record_set import RecordSet
from neuron_explainer.runs import Run
from neuron_explainer.score import summary as score_summary
from neuron_explainer.tokens import escape
from neuron_explainer.view.contract import BLOCK, Unavailable, key_of, number, significant
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.words import buckets_for
from neuron_explainer.workspace import Workspace

TINY = "blocks.0.mlp.hook_post"
KEY = key_of("tiny", TINY)
RUN = "tiny-token-lookup"
MADE = key_of(SUBJECT, SITE)


def close(shown: float | None, stored: float | None) -> bool:
    """Whether a number is the stored one but for rounding, or both are undefined."""
    if shown is None or stored is None:
        return shown is stored
    return shown == pytest.approx(stored, rel=1e-3)


@pytest.fixture(scope="module")
def resources(small_workspace: Workspace) -> Resources:
    return Resources(small_workspace)


@pytest.fixture(scope="module")
def many(made: MadeWorkspace) -> Resources:
    return Resources(Workspace(made.root))


def test_the_list_says_what_the_manifests_say(
    resources: Resources, small_workspace: Workspace
) -> None:
    listed = orjson.loads(resources.workspace("served", {"try": False, "judge": True}))
    assert listed["live"] == {"try": False, "judge": True}
    assert listed["problems"] == []
    assert [subject["name"] for subject in listed["subjects"]] == ["tiny"]
    site = listed["sites"][KEY]
    assert (site["layer"], site["unit"], site["neurons"], site["complete"]) == (
        0,
        "neuron",
        512,
        True,
    )
    assert RUN in site["runs"]
    latents = listed["sites"][key_of("tiny", "blocks.2.hook_resid_post/topk")]
    assert latents["unit"] == "latent"
    run = listed["runs"][RUN]
    assert run["main"] == {"simulator": "token-lookup", "metric": "correlation_top_and_random"}
    nulls = {each["name"]: each["null"] for each in run["simulators"]}
    assert nulls == {"constant": True, "shuffled": True, "token-lookup": False}
    assert sorted(nulls) == Run(small_workspace, RUN).simulators()


def test_columns_hold_the_stored_numbers(resources: Resources, small_workspace: Workspace) -> None:
    about = orjson.loads(resources.columns(KEY))
    assert (about["rows"], about["neurons"]) == (512, None)
    stored = RecordSet(small_workspace.data, "tiny", TINY).folder.read_all("neurons")
    scores = Run(small_workspace, RUN).simulations("token-lookup").read_all(f"{TINY}/scores")
    seen = set()
    for column in about["columns"]:
        values = orjson.loads(resources.column(KEY, column["key"]))["values"]
        if column["kind"] == "statistic":
            wanted = dict(enumerate(stored[column["key"]].to_pylist()))
        elif (column["run"], column["simulator"]) == (RUN, "token-lookup"):
            wanted = dict(
                zip(scores["neuron"].to_pylist(), scores[column["metric"]].to_pylist(), strict=True)
            )
        else:
            continue
        seen.add(column["label"])
        for row, value in enumerate(values):
            assert close(value, wanted.get(row))
    assert {"density", "kurtosis", "correlation population"} <= seen


def test_a_row_holds_explanations_and_the_tokens_at_the_maxima_of_the_top_records(
    resources: Resources, small_workspace: Workspace
) -> None:
    rows = orjson.loads(resources.rows(KEY, 0, 1))["rows"]
    assert [row["neuron"] for row in rows] == list(range(BLOCK, 2 * BLOCK))
    record_set = RecordSet(small_workspace.data, "tiny", TINY)
    run = Run(small_workspace, RUN)
    for row in rows:
        neuron = record_set.neuron(row["neuron"])
        explanation = run.explanation(neuron.neuron)
        assert explanation is not None
        assert row["explanations"][RUN] == explanation.text
        peaks = []
        for record in neuron.of_kind("top"):
            hidden = np.where(record.scored, record.activations, -np.inf)
            peaks.append((-float(hidden.max()), escape(record.tokens[int(hidden.argmax())])))
        wanted = list(dict.fromkeys(token for peak, token in sorted(peaks, key=lambda p: p[0])))
        assert row["tokens"] == wanted[:6]


def test_a_neuron_is_what_the_store_has_of_it(
    resources: Resources, small_workspace: Workspace
) -> None:
    page = orjson.loads(resources.neuron(KEY, 0, 7))
    neuron = RecordSet(small_workspace.data, "tiny", TINY).neuron(7)
    assert page["id"] == str(neuron.neuron)
    assert (page["previous"], page["next"]) == (6, 8)
    assert neuron.statistics is not None
    assert page["statistics"]["density"] == pytest.approx(neuron.statistics.density, rel=1e-5)
    assert page["histogram"]["counts"] == neuron.statistics.histogram.tolist()
    assert len(page["histogram"]["edges"]) == len(page["histogram"]["counts"])
    assert len(page["records"]) == len(neuron.records)
    for shown, record in zip(page["records"], neuron.records, strict=True):
        assert shown["tokens"] == [escape(token) for token in record.tokens]
        assert shown["activations"] == pytest.approx(record.activations.tolist(), rel=1e-3)
        assert shown["unscored"] == np.flatnonzero(~record.scored).tolist()
        assert (shown["kind"], shown["split"], shown["band"]) == (
            record.kind,
            record.split,
            record.band,
        )
        assert (shown["share"] is not None) == (record.kind == "quantile")
    assert neuron.promoted is not None
    assert [each["token"] for each in page["promoted"]] == [escape(t) for t, _ in neuron.promoted]
    assert len(page["token_table"]) == 50
    highest = [row["activation"] for row in page["token_table"]]
    assert highest == sorted(highest, reverse=True)


def test_simulations_stand_beside_their_records(
    resources: Resources, small_workspace: Workspace
) -> None:
    page = orjson.loads(resources.neuron(KEY, 0, 7))
    folder = Run(small_workspace, RUN).simulations("token-lookup")
    stored = folder.read_neuron(f"{TINY}/simulations", 7).to_pylist()
    wanted = {(row["kind"], row["split"], row["sequence"]): row["activations"] for row in stored}
    seen = 0
    for record in page["records"]:
        for simulation in record["simulations"]:
            if (simulation["run"], simulation["simulator"]) != (RUN, "token-lookup"):
                continue
            predicted = wanted[record["kind"], record["split"], record["sequence"]]
            assert simulation["activations"] == pytest.approx(predicted, rel=1e-3)
            counted = np.setdiff1d(np.arange(len(predicted)), record["unscored"])
            pair = np.array(record["activations"])[counted], np.array(predicted)[counted]
            if simulation["correlation"] is None:
                assert np.ptp(pair[0]) == 0 or np.ptp(pair[1]) == 0
            else:
                r = np.corrcoef(*pair)[0, 1]
                assert simulation["correlation"] == pytest.approx(r, abs=2e-3)
            seen += 1
    assert seen == len(stored)


def test_a_score_is_the_stored_one_and_its_interval_holds_it(
    resources: Resources, small_workspace: Workspace
) -> None:
    stored = Run(small_workspace, RUN).simulations("token-lookup").read_all(f"{TINY}/scores")
    for neuron in range(0, 64, 9):
        page = orjson.loads(resources.neuron(KEY, 0, neuron))
        (told,) = (each for each in page["explanations"] if each["run"] == RUN)
        (scores,) = (each for each in told["scores"] if each["simulator"] == "token-lookup")
        value = scores["values"]["correlation_top_and_random"]
        assert value["value"] == pytest.approx(
            stored["correlation_top_and_random"][neuron].as_py(), rel=1e-5
        )
        low, high = value["interval"]
        assert low <= value["value"] <= high
        assert 0 < high - low < 1
        (constant,) = (each for each in told["scores"] if each["simulator"] == "constant")
        undefined = constant["values"]["correlation_top_and_random"]
        assert undefined == {"value": None, "interval": None, "undefined": "prediction is constant"}
    assert resources.neuron(KEY, 0, 7) == resources.neuron(KEY, 0, 7)


def test_a_summary_is_that_of_score(resources: Resources, small_workspace: Workspace) -> None:
    shown = orjson.loads(resources.summary(KEY))
    rows = score_summary.rows_of(Run(small_workspace, RUN), ScoreSettings())
    wanted = {(row.run, row.simulator): row for row in rows if row.site == TINY}
    seen = 0
    for line in shown["scores"]:
        row = wanted.get((line["run"], line["simulator"]))
        if row is None:
            continue
        figure = row.correlation["top_and_random"]
        assert line["n"] == figure.n
        assert close(line["mean"], figure.mean)
        assert line["undefined"] == pytest.approx(figure.undefined_share)
        if figure.interval is not None:
            ends = [figure.interval.low, figure.interval.high]
            assert line["interval"] == pytest.approx(ends, rel=1e-5)
        assert sum(line["histogram"]["counts"]) == figure.defined
        assert line["reasons"] == dict(figure.reasons)
        seen += 1
    assert seen == len(wanted) >= 3


def test_neurons_that_are_no_range_are_named(many: Resources, made: MadeWorkspace) -> None:
    some = Resources(Workspace(made.root), neurons=[3, 700, 1199])
    about = orjson.loads(some.columns(MADE))
    assert (about["rows"], about["neurons"]) == (3, [3, 700, 1199])
    assert [row["neuron"] for row in orjson.loads(some.rows(MADE, 0, 0))["rows"]] == [3, 700, 1199]
    whole = orjson.loads(many.column(MADE, "density"))["values"]
    assert orjson.loads(some.column(MADE, "density"))["values"] == [
        whole[n] for n in (3, 700, 1199)
    ]
    page = orjson.loads(some.neuron(MADE, 0, 700))
    assert (page["previous"], page["next"]) == (3, 1199)
    with pytest.raises(Unavailable, match="was not collected"):
        some.neuron(MADE, 0, 4)
    for bucket in range(buckets_for(3)):
        for rows in orjson.loads(some.search(MADE, bucket))["words"].values():
            assert set(rows) <= {0, 1, 2}


def test_one_run_can_be_all_that_there_is(made: MadeWorkspace) -> None:
    one = Resources(Workspace(made.root), only=RUNS[1])
    assert list(one.catalog().runs) == [RUNS[1]]
    page = orjson.loads(one.neuron(MADE, 0, 5))
    assert [each["run"] for each in page["explanations"]] == [RUNS[1]]


def test_a_neuron_is_read_without_the_rest_of_its_shard(made: MadeWorkspace) -> None:
    folder = RecordSet(made.root / "data", SUBJECT, SITE).folder
    before = pa.total_allocated_bytes()
    table = folder.read_neuron("records", 600)
    taken = pa.total_allocated_bytes() - before
    whole = folder.read("records-00512-01023.parquet")
    assert len(table) == RECORDS
    assert taken < whole.nbytes / 8
    several = folder.read_neurons("records", [3, 600, 1100])
    assert several is not None
    assert np.unique(several["neuron"].to_numpy()).tolist() == [3, 600, 1100]
    assert len(several) == 3 * RECORDS


@settings(deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(1, 6))
def test_rounding_keeps_significant_digits(value: float, digits: int) -> None:
    (rounded,) = significant(np.array([value]), digits).tolist()
    if not np.isfinite(value):
        assert rounded == value or np.isnan(value)
        return
    wanted = float(f"{value:.{digits}g}")
    if 1e-290 < abs(value) < 1e290:
        assert rounded == pytest.approx(wanted, rel=10.0 ** (1 - digits), abs=0)
    if 1e-12 < abs(value) < 1e12:  # such are written without needless digits
        assert len(f"{rounded!r}") <= len(f"{wanted!r}") + 1
    assert number(value, digits) == wanted


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_keys_are_harmless_file_names(names: list[str]) -> None:
    key = key_of(*names)
    assert all(character.isascii() for character in key)
    assert not set(key) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert key.strip(".")
    assert len(key) <= 140


@settings(deadline=None)
@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=2),
    st.lists(st.text(min_size=1), min_size=1, max_size=2),
)
def test_other_names_have_other_keys(first: list[str], second: list[str]) -> None:
    assert (key_of(*first) == key_of(*second)) == (first == second)


def every(resources: Resources, site: str) -> dict[str, Any]:
    """All resources of a site, parsed."""
    return {path: orjson.loads(make()) for path, make in resources.paths(site)}


def test_what_is_imported_is_shown_with_what_it_has(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    """Without statistics, with a simulator called `imported` that is not scored yet."""
    from neuron_explainer import workspace
    from neuron_explainer.interchange.openai_export import export_run
    from neuron_explainer.interchange.openai_import import import_explanations

    export_run(small_workspace.root, RUN, "token-lookup", tmp_path / "out", False)
    here = workspace.init(tmp_path / "imported")
    exported = next(path for path in (tmp_path / "out").rglob("explanations") if path.is_dir())
    import_explanations(exported, here.root, "theirs")
    resources = Resources(here)
    site = next(iter(resources.catalog().sites))
    neuron = orjson.loads(resources.rows(site, 0, 0))["rows"][0]["neuron"]
    found = every(resources, site)
    page = found[f"{site}/neurons/0/{neuron}.json"]
    assert page["statistics"] is None
    assert page["explanations"][0]["scores"][0]["simulator"] == "imported"
    assert page["explanations"][0]["scores"][0]["values"] == {}
    assert found[f"{site}/summary.json"]["scores"] == []


def test_what_the_weights_say_is_shown_where_it_was_collected(tmp_path: Path) -> None:
    here = MadeWorkspace(tmp_path / "here", 20, runs=RUNS[:1], simulated=False).write()
    folder = RecordSet(here.data, SUBJECT, SITE).folder
    effects = pa.table({"neuron": [3, 3, 3], "token": [5, 6, 7], "effect": [0.5, -0.1, -0.9]})
    directions = ["output", "output", "input"]
    like = pa.table(
        {"neuron": [3] * 3, "direction": directions, "other": [4, 9, 4], "cosine": [0.9, -0.5, 0.1]}
    )
    folder.write({"input_tokens-00000-00019.parquet": effects, "nearest-00000-00019.parquet": like})
    resources = Resources(here)
    page = orjson.loads(resources.neuron(MADE, 0, 3))
    assert [each["effect"] for each in page["excites"]] == [0.5]
    assert [each["effect"] for each in page["inhibits"]] == [-0.9, -0.1]
    assert [(each["direction"], each["neuron"]) for each in page["nearest"]] == [
        *(("output", 4), ("output", 9), ("input", 4))
    ]
    assert page["nearest"][0]["explanation"].startswith("mentions of")
    other = orjson.loads(resources.neuron(MADE, 0, 5))
    assert (other["excites"], other["nearest"]) == ([], [])
