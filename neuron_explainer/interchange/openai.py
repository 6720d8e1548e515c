"""The files that OpenAI published with "Language models can explain neurons in language models".

`{layer}/{neuron}.json` holds a NeuronRecord, `{layer}/{neuron}.jsonl` one line with
NeuronSimulationResults. Class and field names are the published ones. An undefined number is None
and may also be given as NaN; both are written as null.
"""

from collections.abc import Sequence, Sized
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeVar

from neuron_explainer.errors import DataError
from neuron_explainer.interchange import tagged_json
from neuron_explainer.interchange.tagged_json import TAG, dumps

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "PUBLISHED",
    "ActivationRecord",
    "NeuronId",
    "NeuronRecord",
    "NeuronSimulationResults",
    "ScoredExplanation",
    "ScoredSequenceSimulation",
    "ScoredSimulation",
    "SequenceSimulation",
    "dumps",
    "load_as",
    "loads",
]

ActivationScale = Literal["neuron_activations", "simulated_normalized_activations"]
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class NeuronId:
    """Which neuron: both count from 0."""

    layer_index: int
    neuron_index: int


@dataclass(frozen=True, slots=True)
class ActivationRecord:
    """A token sequence with one raw activation a token."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.tokens)
        if count > 1 and len(self.activations) == count * (count + 1) // 2:
            raise ValueError(
                f"{count} tokens but an activation for each of {len(self.activations)} pairs, as "
                "attention heads have: import with --site 'blocks.{layer}.attn.hook_pattern'"
            )
        _same_length(self.tokens, "activations", self.activations)


@dataclass(frozen=True, slots=True)
class NeuronRecord:
    """What is known of a neuron's behaviour. The moments run over all tokens of the corpus."""

    neuron_id: NeuronId
    random_sample: tuple[ActivationRecord, ...] = ()
    random_sample_by_quantile: tuple[tuple[ActivationRecord, ...], ...] | None = None
    quantile_boundaries: tuple[float | None, ...] | None = None
    mean: float | None = None
    variance: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    most_positive_activation_records: tuple[ActivationRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceSimulation:
    """What a simulator expects at each token of a sequence.

    A distribution is a list of values and one of their probabilities, for each token, or no
    distributions at all. An activation that the simulator did not give is None.
    """

    tokens: tuple[str, ...]
    expected_activations: tuple[float | None, ...]
    activation_scale: ActivationScale
    distribution_values: tuple[tuple[float | None, ...], ...] = ()
    distribution_probabilities: tuple[tuple[float | None, ...], ...] = ()
    uncalibrated_simulation: "SequenceSimulation | None" = None

    def __post_init__(self) -> None:
        _same_length(self.tokens, "expected_activations", self.expected_activations)
        if self.distribution_values:
            _same_length(self.tokens, "distribution_values", self.distribution_values)
        if list(map(len, self.distribution_values)) != list(
            map(len, self.distribution_probabilities)
        ):
            raise ValueError("distribution_probabilities do not match distribution_values")


@dataclass(frozen=True, slots=True)
class ScoredSequenceSimulation:
    """A simulated sequence beside the truth."""

    simulation: SequenceSimulation
    true_activations: tuple[float, ...]
    ev_correlation_score: float | None = None
    rsquared_score: float | None = None
    absolute_dev_explained_score: float | None = None

    def __post_init__(self) -> None:
        _same_length(self.simulation.tokens, "true_activations", self.true_activations)


@dataclass(frozen=True, slots=True)
class ScoredSimulation:
    """All simulated sequences of one explanation; the scores are of their concatenation."""

    scored_sequence_simulations: tuple[ScoredSequenceSimulation, ...]
    ev_correlation_score: float | None = None
    rsquared_score: float | None = None
    absolute_dev_explained_score: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredExplanation:
    """An explanation and how well simulations from it do."""

    explanation: str
    scored_simulation: ScoredSimulation


@dataclass(frozen=True, slots=True)
class NeuronSimulationResults:
    """Everything that was tried for one neuron."""

    neuron_id: NeuronId
    scored_explanations: tuple[ScoredExplanation, ...]


PUBLISHED: "tuple[type[DataclassInstance], ...]" = (
    NeuronId,
    ActivationRecord,
    NeuronRecord,
    SequenceSimulation,
    ScoredSequenceSimulation,
    ScoredSimulation,
    ScoredExplanation,
    NeuronSimulationResults,
)


def _same_length(tokens: Sequence[str], name: str, values: Sized) -> None:
    if len(values) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens but {len(values)} {name}")


def loads(data: bytes | str, source: str = "input") -> object:
    """The published object in `data`. One without a tag is known by its fields.

    Raises DataError, which begins with `source` and names the field at fault.
    """
    try:
        value = tagged_json.parse(data)
        return tagged_json.decode(_kind_of(value), value)
    except (DataError, RecursionError) as error:
        raise _at(source, error) from error


def load_as(kind: type[Made], data: bytes | str, source: str = "input") -> Made:
    """The published object in `data`, which must be a `kind`. Raises DataError as `loads` does."""
    try:
        return tagged_json.decode(kind, tagged_json.parse(data))
    except (DataError, RecursionError) as error:
        raise _at(source, error) from error


def _at(source: str, error: Exception) -> DataError:
    reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
    return DataError(f"{source} is malformed: {reason}")


def _kind_of(value: object) -> type[object]:
    if not isinstance(value, dict):
        raise DataError("expected an object")
    for kind in PUBLISHED:
        if value.get(TAG) == kind.__name__ or (TAG not in value and _may_be(kind, value)):
            return kind
    raise DataError("it is none of the published objects")


def _may_be(kind: "type[DataclassInstance]", value: dict[str, object]) -> bool:
    known = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    return needed <= value.keys() <= known
