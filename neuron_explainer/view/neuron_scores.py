"""The bootstrap intervals of one neuron's scores, and the correlations of its sequences."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.firing import firing_threshold
from neuron_explainer.records import NeuronRecord
from neuron_explainer.view.entries import SimulatorEntry
from neuron_explainer.view.intervals import (
    accuracy_interval,
    area_interval,
    correlation_interval,
    correlation_of,
    correlation_sums,
)
from neuron_explainer.view.simulated import Prediction, Simulated

_SPLIT = "valid"  # what is reported

Interval = list[float] | None


def intervals_of(
    simulator: SimulatorEntry, neuron: NeuronRecord, found: Simulated
) -> dict[str, Interval]:
    """By metric, those that have an interval here."""
    predictions = found.of_split(_SPLIT)
    if simulator.predicts == "sequences":
        return _of_verdicts(neuron, predictions)
    random = [each for each in predictions if each.record.kind == "random"]
    return {
        "correlation_top_and_random": _of_tokens(predictions),
        "correlation_random_only": _of_tokens(random),
    }


def record_correlations(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Pearson's r over the tokens of each sequence (predictions,); NaN where it is undefined."""
    if not predictions:
        return np.array([])
    pairs = [each.pairs for each in predictions]
    truth, predicted = (np.concatenate(side) for side in zip(*pairs, strict=True))
    lengths = [len(pair[0]) for pair in pairs]
    owner = np.repeat(np.arange(len(pairs)), lengths)

    def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(owner, values, minlength=len(pairs)), np.float64)

    counts = np.maximum(lengths, 1)
    truth = truth - (sums(truth) / counts)[owner]
    predicted = predicted - (sums(predicted) / counts)[owner]
    products = (truth * truth, predicted * predicted, truth * predicted)
    columns = (np.array(lengths, np.float64), sums(truth), sums(predicted), *map(sums, products))
    return correlation_of(np.stack(columns, axis=-1))


def _of_tokens(predictions: Sequence[Prediction]) -> Interval:
    pairs = [pair for each in predictions if len((pair := each.pairs)[0])]
    if not pairs:
        return None
    # sums of squares far from zero would lose what a correlation is made of
    truth, predicted = (np.concatenate(side).mean() for side in zip(*pairs, strict=True))
    return correlation_interval([correlation_sums(x - truth, y - predicted) for x, y in pairs])


def _of_verdicts(neuron: NeuronRecord, predictions: Sequence[Prediction]) -> dict[str, Interval]:
    threshold = firing_threshold(neuron.statistics)
    fires, said = [], []
    for each in predictions:
        predicted = each.pairs[1]
        if len(predicted):
            said.append(float(predicted.max()))
            fires.append(each.record.maximum > threshold if each.genuine is None else each.genuine)
    truth, verdicts = np.array(fires, np.bool_), np.array(said, np.float64)
    return {
        "balanced_accuracy_top_and_random": accuracy_interval(truth, verdicts),
        "auroc_top_and_random": area_interval(truth, verdicts),
    }
