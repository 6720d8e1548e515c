"""What can be chosen by name, and what each of them must keep to."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, cast, get_args

import numpy as np
import pytest

from neuron_explainer import registry
from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.explain.base import Explainer
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import Explanation, NeuronRecord, Simulation, Stimulus
from neuron_explainer.registry import Table
from neuron_explainer.runs import Run
from neuron_explainer.score.base import Scorer
from neuron_explainer.simulate.base import Simulator
from neuron_explainer.store import Shard
from neuron_explainer.workspace import Workspace

TABLES: tuple[Table, ...] = get_args(Table)
SITE = "blocks.0.mlp.hook_post"
NEURONS = Shard(0, 8)
# asks a language model, so its own tests bring one
NEEDS_LLM = "llm"


def _offline(table: Table) -> list[str]:
    """The names whose class can be made without a language model."""
    return [
        name
        for name in registry.names(table)
        if NEEDS_LLM not in {field.name for field in fields(registry.resolve(table, name))}
    ]


@pytest.fixture(scope="module")
def shown(small_workspace: Workspace) -> list[NeuronRecord]:
    """What an explainer gets to see of some neurons."""
    records = RecordSet(small_workspace.data, "tiny", SITE)
    return list(records.shard(NEURONS, splits=["train"]))


@pytest.fixture(scope="module")
def explained(small_workspace: Workspace) -> list[Explanation]:
    """Explanations of the same neurons."""
    run = Run(small_workspace, "tiny-token-lookup")
    ((_, file),) = run.folder.shards(f"{SITE}/explanations")
    made = run.explanations(SITE, file)
    return [made[index] for index in range(NEURONS.start, NEURONS.stop)]


@pytest.fixture(scope="module")
def stimuli(small_workspace: Workspace) -> list[Stimulus]:
    """Held-out text of one neuron."""
    records = RecordSet(small_workspace.data, "tiny", SITE).neuron(0)
    return [record.stimulus for record in records.split("valid")]


def _of_pairs(neuron: NeuronRecord) -> NeuronRecord:
    """The neuron's records as if they were those of an attention head."""
    paired = tuple(
        replace(record, pair=(int(np.argmax(record.activations)), 0)) for record in neuron.records
    )
    return replace(neuron, records=paired)


@pytest.mark.parametrize("table", TABLES)
def test_every_registered_name_leads_to_something_that_can_be_called(table: Table) -> None:
    for name in registry.names(table):
        found = registry.resolve(table, name)
        assert callable(found)
        assert found.__doc__


@pytest.mark.parametrize("table", ["explainers", "simulators"])
def test_options_are_fields_of_a_frozen_dataclass_and_the_name_is_the_registered_one(
    table: Table,
) -> None:
    for name in registry.names(table):
        found: Any = registry.resolve(table, name)
        assert is_dataclass(found)
        assert cast(Any, found).__dataclass_params__.frozen
    for name in _offline(table):
        made = registry.make(table, name, {})
        assert made.name == name
        assert registry.make(table, name, registry.options_of(made)) == made


@pytest.mark.parametrize("name", _offline("explainers"))
def test_an_explainer_explains_a_neuron_in_one_line_the_same_each_time(
    name: str, shown: list[NeuronRecord]
) -> None:
    explainer: Explainer = registry.make("explainers", name, {})
    if getattr(explainer, "explains", "neurons") == "heads":
        shown = [_of_pairs(neuron) for neuron in shown]
    first, again = (
        [_result(partial(explainer.explain, neuron)) for neuron in shown] for _ in range(2)
    )
    assert first == again
    explanations = [made for made in first if isinstance(made, Explanation)]
    assert len(explanations) > len(shown) // 2
    for neuron, made in zip(shown, first, strict=True):
        if isinstance(made, Explanation):
            assert made.neuron == neuron.neuron
            assert made.explainer == name
            assert made.text.strip()
            assert made.text.isprintable()
        else:
            assert made  # a failure has a cause


def _result(call: Callable[[], Awaitable[Explanation]]) -> Explanation | str:
    async def wait() -> Explanation | str:
        try:
            return await call()
        except NeuronFailure as failure:
            return failure.cause

    return asyncio.run(wait())


@pytest.mark.parametrize("name", _offline("explainers"))
def test_an_explainer_of_a_silent_neuron_fails_instead_of_making_something_up(
    name: str, shown: list[NeuronRecord]
) -> None:
    silent = NeuronRecord(shown[0].neuron, (), None, shown[0].token_rows)
    explainer: Explainer = registry.make("explainers", name, {})
    assert _result(partial(explainer.explain, silent)) == "never-active"


@pytest.mark.parametrize("name", _offline("simulators"))
def test_a_simulator_predicts_one_number_a_token_the_same_each_time(
    name: str, explained: list[Explanation], stimuli: list[Stimulus]
) -> None:
    simulator: Simulator = registry.make("simulators", name, {})
    if getattr(simulator, "simulates", "neurons") == "heads":
        stimuli = [replace(stimulus, pair=(2, 1)) for stimulus in stimuli]
    for explanation in explained:
        first, again = (asyncio.run(simulator.simulate(explanation, stimuli)) for _ in range(2))
        assert [len(made.activations) for made in first] == [len(text.tokens) for text in stimuli]
        assert all(isinstance(made, Simulation) for made in first)
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one.activations, other.activations)


@pytest.mark.parametrize("name", _offline("simulators"))
def test_a_simulator_gives_every_neuron_the_explanation_of_one_that_has_any(name: str) -> None:
    simulator: Simulator = registry.make("simulators", name, {})
    neurons = [3, 5, 8, 13]
    assigned = simulator.assign(neurons, seed=0)
    assert set(assigned) == set(neurons)
    assert set(assigned.values()) <= set(neurons)
    assert assigned == simulator.assign(neurons, seed=0)


def _signals() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(2, 4, 30))
    return truth, predicted, np.ones(truth.shape, np.bool_)


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_a_scorer_gives_one_score_a_neuron_and_1_to_the_truth_itself(name: str) -> None:
    scorer: Scorer = registry.resolve("scorers", name)
    truth, predicted, mask = _signals()
    scores = scorer(truth, predicted, mask)
    assert scores.values.shape == (4,)
    assert scores.reasons == (None,) * 4
    assert (scores.values < 1).all()
    np.testing.assert_allclose(scorer(truth, truth, mask).values, 1.0)


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_a_score_of_constant_truth_or_of_no_tokens_is_undefined_with_a_reason(name: str) -> None:
    scorer: Scorer = registry.resolve("scorers", name)
    truth, predicted, mask = _signals()
    truth[1], mask[2] = 0.0, False
    scores = scorer(truth, predicted, mask)
    for row in (1, 2):
        assert np.isnan(scores.values[row])
        assert scores.reasons[row]
        assert scores.at(row).value is None
    assert scores.reasons[0] is None


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_a_scorer_leaves_its_arguments_alone(name: str) -> None:
    arguments = _signals()
    before = [array.copy() for array in arguments]
    registry.resolve("scorers", name)(*arguments)
    for array, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("table", "given", "message"),
    [
        (
            "explainers",
            "token-lokup",
            "unknown explainer 'token-lokup'; did you mean 'token-lookup'",
        ),
        ("simulators", "shufled", "unknown simulator 'shufled'; did you mean 'shuffled'"),
        ("scorers", "qqqq", "unknown scorer 'qqqq'; known: .*correlation"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_or_with_all(
    table: Table, given: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.resolve(table, given)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"option of token-lookup 'tabel_size'; did you mean 'table"
    ):
        registry.make("explainers", "token-lookup", {"tabel_size": 3})


def test_options_are_told_as_they_were_given_or_by_default() -> None:
    made = registry.make("explainers", "token-lookup", {"table_size": 3})
    assert registry.options_of(made) == {"table_size": 3, "choose": "variance"}
    assert registry.options_of(object()) == {}


def test_no_plugin_replaces_what_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def __init__(self, name: str, value: str) -> None:
            self.name, self.value = name, value

    def points(group: str) -> Sequence[Point]:
        assert group == "neuron_explainer.simulators"
        return [Point("token-lookup", "evil:Simulator"), Point("mine", "a.module:Simulator")]

    monkeypatch.setattr(registry, "entry_points", points)
    registry.names.cache_clear()
    try:
        names = registry.names("simulators")
    finally:
        registry.names.cache_clear()
    assert names["mine"] == "a.module:Simulator"
    assert names["token-lookup"].startswith("neuron_explainer.")
