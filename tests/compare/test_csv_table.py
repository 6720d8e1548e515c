"""Tables of method, neuron and value: what is read, what is refused, and a published comparison."""

from pathlib import Path

import numpy as np
import pytest

from neuron_explainer.compare.csv_table import Roles, read
from neuron_explainer.compare.results import Comparison, compare
from neuron_explainer.compare.statistics import Estimate, Resampling
from neuron_explainer.compare.table import Table
from neuron_explainer.errors import ConfigError, DataError, UserError

HEAD = "method,neuron,score\n"
SMALL = HEAD + "a,0,0.5\na,1,0.2\na,2,0.4\nb,0,0.1\nb,1,0.3\nb,2,0.2\n"
FAST = Resampling(resamples=999)
NO_ROLES = Roles()


def table(folder: Path, text: str, roles: Roles = NO_ROLES) -> Table:
    path = folder / "scores.csv"
    path.write_text(text, "utf-8")
    return read(path, roles)


def ends(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None
    assert estimate.interval is not None
    return estimate.interval.low, estimate.interval.high


@pytest.fixture(scope="module")
def prism(assets: Path) -> Comparison:
    path = assets / "neuron-data" / "prism_gpt2xl_auc.csv"
    methods = ["bills", "prism_max_of_5", "prism_mean_of_5", "random_descriptions_max_of_5"]
    null = "random_descriptions_max_of_5"
    roles = Roles(methods, {"prism_max_of_5": 5, null: 5}, null)
    return compare(read(path, roles), Resampling())


def test_the_published_comparison_is_reproduced(prism: Comparison) -> None:
    contrasts = {pair.a: pair.contrast for pair in prism.pairs}
    best, mean, chance = (contrasts[line.name] for line in prism.lines[1:4])
    assert best is not None
    assert mean is not None
    assert chance is not None
    assert round(best.difference.value, 3) == 0.203
    assert round(mean.difference.value, 3) == 0.007
    assert ends(mean.difference) == pytest.approx((-0.06, 0.07), abs=0.006)
    assert ends(best.difference)[0] > 0.1
    low, high = ends(chance.difference)
    assert low < 0 < high
    assert chance.difference.value == pytest.approx(0.0095, abs=1e-6)
    assert all(found.n == 60 for found in (best, mean, chance))


def test_the_best_of_five_is_flagged_and_held_against_five_random_descriptions(
    prism: Comparison,
) -> None:
    best, null = prism.guards
    assert (best.name, best.flagged, best.among) == ("prism_max_of_5", True, 5)
    assert best.above_null is not None
    assert best.above_null.difference.value == pytest.approx(0.203 - 0.0095, abs=0.001)
    assert "inflated" in best.verdict
    assert null.above_null is None


def test_three_layers_are_not_drawn_whole_and_the_report_says_so(prism: Comparison) -> None:
    assert all(pair.contrast and pair.contrast.clusters is None for pair in prism.pairs)
    assert any("3 layers are too few" in note for note in prism.notes)
    assert list(prism.pairs[0].layers) == [0, 20, 40]


def test_methods_are_paired_on_the_neurons_that_all_have(tmp_path: Path) -> None:
    made = table(tmp_path, SMALL + "a,3,0.9\nb,4,0.8\n")
    assert made.labels == ["0", "1", "2"]
    assert [method.absent for method in made.methods] == [1, 1]
    assert made.metric == "score"
    np.testing.assert_allclose(made.methods[0].means, [0.5, 0.2, 0.4])


def test_an_empty_value_is_undefined_with_its_cause_and_both_policies_are_reported(
    tmp_path: Path,
) -> None:
    text = "method,neuron,score,cause\n" + "".join(
        f"a,{n},{'' if n < 3 else 0.5},{'timeout' if n < 2 else ''}\nb,{n},0.4,\n"
        for n in range(12)
    )
    found = compare(table(tmp_path, text, Roles(["b", "a"])), FAST)
    (pair,) = found.pairs
    assert found.lines[1].undefined == {"timeout": 2, "no value": 1}
    assert pair.contrast is not None
    assert pair.undefined_as_chance is not None
    assert pair.contrast.n == 9
    assert pair.contrast.difference.value == pytest.approx(0.1)
    assert pair.undefined_as_chance.n == 12
    assert pair.undefined_as_chance.difference.value == pytest.approx((9 * 0.1 - 3 * 0.4) / 12)
    assert pair.policies_disagree


def test_seeds_are_averaged_on_a_neuron_before_neurons_are_compared(tmp_path: Path) -> None:
    rows = [f"a,{n},{seed},{0.1 * n + 0.01 * seed}" for n in range(4) for seed in (0, 2)]
    rows += [f"b,{n},0,{0.1 * n}" for n in range(4)]
    found = compare(table(tmp_path, "method,neuron,seed,r\n" + "\n".join(rows)), FAST)
    assert [line.seeds for line in found.lines] == [2, 1]
    assert found.lines[0].seed_spread == pytest.approx(0.01 * np.sqrt(2))
    assert found.lines[1].seed_spread is None
    assert found.pairs[0].contrast is not None
    assert found.pairs[0].contrast.difference.value == pytest.approx(-0.01)


def test_nulls_and_lookup_are_lines_of_every_table(tmp_path: Path) -> None:
    text = SMALL + "".join(
        f"{name},{neuron},{value + 0.01 * neuron}\n"
        for name, value in [("constant", 0.0), ("shuffled", 0.0), ("token-lookup", 0.6)]
        for neuron in range(3)
    )
    found = compare(table(tmp_path, text), FAST)
    roles = {line.name: line.role for line in found.lines}
    assert roles == {
        **{"a": "method", "b": "method", "constant": "null"},
        **{"shuffled": "null", "token-lookup": "lookup"},
    }
    assert found.lines[0].above_lookup is not None
    assert found.lines[0].above_lookup.value == pytest.approx(1.1 / 3 - 0.61)
    assert found.lines[0].gap_closed is not None
    assert found.lines[0].gap_closed.value == pytest.approx((1.1 / 3 - 0.01) / 0.6)


def test_all_pairs_are_adjusted_together(tmp_path: Path) -> None:
    text = SMALL + "c,0,0.4\nc,1,0.4\nc,2,0.1\n"
    made = table(tmp_path, text)
    against_first = [(pair.a, pair.b) for pair in compare(made, FAST).pairs]
    assert against_first == [("b", "a"), ("c", "a")]
    everything = compare(made, FAST, all_pairs=True).pairs
    assert {frozenset((pair.a, pair.b)) for pair in everything} == {
        frozenset(names) for names in ("ab", "ac", "bc")
    }


def test_what_a_neuron_costs_is_read_and_the_front_named(tmp_path: Path) -> None:
    text = "method,neuron,score,tokens,cost\n" + "".join(
        f"dear,{n},0.5,100,0.1\ncheap,{n},0.4,10,0.01\nbad,{n},0.3,50,0.05\nfree,{n},0.2,,\n"
        for n in range(3)
    )
    lines = {line.name: line for line in compare(table(tmp_path, text), FAST).lines}
    on = {name for name, line in lines.items() if line.on_front_by_tokens}
    assert on == {"dear", "cheap"}
    assert on == {name for name, line in lines.items() if line.on_front_by_cost}
    assert lines["free"].budget.tokens is None


@pytest.mark.parametrize(
    ("text", "roles", "said"),
    [
        ("method,score\na,1\n", Roles(), "no column 'neuron'"),
        ("method,neuron\na,1\n", Roles(), "which column"),
        ("method,neuron,x,y\na,1,1,1\n", Roles(), "--metric takes one of x, y"),
        (HEAD, Roles(), "no rows"),
        (HEAD + "a,0,high\n", Roles(), "line 2: score 'high' is no number"),
        (HEAD + "a,0,inf\n", Roles(), "line 2: score is not finite"),
        (HEAD + "a,0\n", Roles(), "line 2: it has not as many cells"),
        (HEAD + "a,0,1\na,0,2\n", Roles(), "line 3: a has a value for this neuron already"),
        (SMALL, Roles(["a", "z"]), "no method 'z'"),
        (SMALL, Roles(null="z"), "no method 'z'"),
        (SMALL, Roles(selected={"z": 3}), "no method 'z'"),
        (HEAD + "a,0,1\nb,1,1\n", Roles(), "nothing to compare"),
        (HEAD + "shuffled,0,1\n", Roles(), "nothing to compare"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, text: str, roles: Roles, said: str
) -> None:
    with pytest.raises(UserError, match=said) as raised:
        table(tmp_path, text, roles)
    assert isinstance(raised.value, ConfigError | DataError)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="no table"):
        read(tmp_path / "binary.csv")
