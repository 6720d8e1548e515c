"""What can be chosen by name: five tables of lazily imported classes, open to plugins.

A package adds its own through the entry point group `neuron_explainer.<table>`, for example
`neuron_explainer.explainers`, with the same value "module:Class".
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from neuron_explainer.errors import ConfigError

Table = Literal["explainers", "simulators", "scorers", "subjects", "llms"]

_BUILT_IN: Mapping[Table, Mapping[str, str]] = {
    "explainers": {
        "token-lookup": "neuron_explainer.explain.lookup:TokenLookup",
        "token-lookup-context": "neuron_explainer.explain.lookup:ContextLookup",
        "pair-lookup": "neuron_explainer.explain.pair_lookup:PairLookup",
        "attention-head": "neuron_explainer.explain.attention_head:AttentionHead",
        "token-activation": "neuron_explainer.explain.token_activation:TokenActivation",
        "highlight": "neuron_explainer.explain.highlight:Highlight",
        "token-space": "neuron_explainer.explain.token_space:TokenSpace",
        "max-act-logits": "neuron_explainer.explain.max_act_logits:MaxActLogits",
    },
    "simulators": {
        "token-lookup": "neuron_explainer.simulate.lookup:LookupSimulator",
        "pair-lookup": "neuron_explainer.simulate.pair_lookup:PairLookupSimulator",
        "pair-detection": "neuron_explainer.simulate.pair_detection:PairDetectionSimulator",
        "pair-distance": "neuron_explainer.simulate.pair_distance:PairDistanceSimulator",
        "constant": "neuron_explainer.simulate.nulls:ConstantSimulator",
        "shuffled": "neuron_explainer.simulate.nulls:ShuffledSimulator",
        "all-at-once": "neuron_explainer.simulate.all_at_once:AllAtOnceSimulator",
        "one-at-a-time": "neuron_explainer.simulate.one_at_a_time:OneAtATimeSimulator",
        "numbers": "neuron_explainer.simulate.numbers:NumbersSimulator",
        "detection": "neuron_explainer.simulate.detection:DetectionSimulator",
        "fuzzing": "neuron_explainer.simulate.fuzzing:FuzzingSimulator",
    },
    "scorers": {
        "correlation": "neuron_explainer.score.correlation:correlation",
        "explained-variance": "neuron_explainer.score.variance:explained_variance",
        "explained-variance-uncentered": (
            "neuron_explainer.score.variance:explained_variance_uncentered"
        ),
        "absolute-deviation-explained": (
            "neuron_explainer.score.variance:absolute_deviation_explained"
        ),
        "balanced-accuracy": "neuron_explainer.score.classification:balanced_accuracy",
        "auroc": "neuron_explainer.score.classification:auroc",
    },
    "subjects": {"huggingface": "neuron_explainer.subjects.huggingface:HuggingFaceSubject"},
    "llms": {
        "batch": "neuron_explainer.llm.batch:Batch",
        "openai": "neuron_explainer.llm.openai:OpenAI",
        "local": "neuron_explainer.llm.local:Local",
        "scripted": "neuron_explainer.llm.scripted:Scripted",
    },
}


@cache
def names(table: Table) -> Mapping[str, str]:
    """Name → "module:attribute" of a table; a plugin cannot replace what is built in."""
    plugins = {point.name: point.value for point in entry_points(group=f"neuron_explainer.{table}")}
    return plugins | dict(_BUILT_IN[table])


def resolve(table: Table, name: str) -> Any:
    """The class or function behind `name`. Raises ConfigError that names the nearest one."""
    known = names(table)
    if name not in known:
        raise ConfigError(unknown(f"{table[:-1]}", name, list(known)))
    module, attribute = known[name].split(":")
    return getattr(import_module(module), attribute)


_GIVEN = ("llm", "prompts")  # fields that a stage fills in: no options


def make(table: Table, name: str, options: Mapping[str, Any], **given: Any) -> Any:
    """An instance of the class behind `name`, whose dataclass fields are its options.

    `given` holds what a stage provides to those that have a field for it: a language model, the
    folder of templates. Raises ConfigError for an unknown option and for a missing model.
    """
    made = resolve(table, name)
    wanted = {field.name: field for field in fields(made)} if is_dataclass(made) else {}
    known = [option for option in wanted if option not in _GIVEN]
    for option in options:
        if option not in known:
            raise ConfigError(unknown(f"option of {name}", option, known))
    if "llm" in wanted and wanted["llm"].default is MISSING and given.get("llm") is None:
        raise ConfigError(
            f"{name} needs a language model: --llm openai/MODEL, local/PATH or scripted/FILE"
        )
    return made(**options, **{key: value for key, value in given.items() if key in wanted})


def options_of(made: object) -> dict[str, Any]:
    """The options that an instance was made with, for a manifest."""
    if not is_dataclass(made):
        return {}
    options = {field.name: getattr(made, field.name) for field in fields(made)}
    model = options.pop("llm", None)
    options.pop("prompts", None)
    return options if model is None else {**options, "llm": model.model}


def unknown(what: str, given: str, known: list[str]) -> str:
    """A message for a name that is not known."""
    near = get_close_matches(given, known, 1, 0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
    return f"unknown {what} '{given}'; {hint}"
