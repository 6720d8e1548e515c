"""The record files of attention heads that OpenAI published with its transformer debugger.

`{layer}/{head}.json` has the form of a neuron's NeuronRecord, but its activations are of pairs of
positions: the lower triangle of what the head writes for query i and key j, row by row, so that
pair (i, j) stands at i(i+1)/2 + j. The objects in a file are tagged as those of neurons are.
"""

from dataclasses import dataclass

from neuron_explainer.head_pairs import flat_index
from neuron_explainer.interchange.openai import NeuronId


@dataclass(frozen=True, slots=True)
class ActivationRecord:
    """A token sequence with one activation a pair: n tokens have n(n+1)/2 of them."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.tokens)
        pairs = flat_index(count, 0)
        if len(self.activations) != pairs:
            raise ValueError(
                f"{count} tokens have {pairs} pairs, but there are {len(self.activations)} "
                "activations"
            )


@dataclass(frozen=True, slots=True)
class NeuronRecord:
    """What is known of a head's behaviour. `neuron_index` is the head's number in its layer."""

    neuron_id: NeuronId
    random_sample: tuple[ActivationRecord, ...] = ()
    random_sample_by_quantile: tuple[tuple[ActivationRecord, ...], ...] | None = None
    quantile_boundaries: tuple[float | None, ...] | None = None
    mean: float | None = None
    variance: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    most_positive_activation_records: tuple[ActivationRecord, ...] = ()
