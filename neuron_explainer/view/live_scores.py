"""What a prediction of one neuron's records scores: the metrics of the score stage."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.firing import firing_threshold
from neuron_explainer.records import BoolArray, NeuronRecord, Record, Score, Simulation
from neuron_explainer.score.correlation import correlation
from neuron_explainer.score.panel import score_all
from neuron_explainer.score.sequences import Verdicts, largest
from neuron_explainer.view.intervals import (
    accuracy_interval,
    area_interval,
    correlation_interval,
    correlation_sums,
)

Simulated = tuple[Record, Simulation]
Floats = NDArray[np.float32]
Ends = list[float] | None  # of an interval


def of_record(record: Record, simulation: Simulation) -> float | None:
    """The correlation over one record's tokens; None where it is undefined."""
    return correlation(*_rows([(record, simulation)])).at(0).value


def of_tokens(held_out: Sequence[Simulated]) -> dict[str, tuple[Score, Ends]]:
    """All scores of the valid split, calibrated on the calibration split, with their intervals.

    `held_out` are a neuron's records with what was predicted of them. Only correlations have an
    interval: the bootstrap's over sequences.
    """
    scored = _of_split(held_out, "valid")
    calibration = _rows(_of_split(held_out, "calibration"))
    random = [pair for pair in scored if pair[0].kind == "random"]
    found: dict[str, tuple[Score, Ends]] = {}
    for choice, chosen in {"top_and_random": scored, "random_only": random}.items():
        rows = _rows(chosen)
        if calibration[2].any():
            scores = score_all(
                *rows,
                calibration_truth=calibration[0],
                calibration_predicted=calibration[1],
                calibration_mask=calibration[2],
            )
        else:  # an imported record set may have no split to calibrate on
            scores = {"correlation": correlation(*rows)}
        for name, score in scores.items():
            ends = _over_sequences(chosen) if name == "correlation" else None
            found[f"{name}_{choice}"] = score.at(0), ends
    return found


def of_sequences(
    neuron: NeuronRecord, held_out: Sequence[Simulated]
) -> Mapping[str, tuple[Score, Ends]]:
    """The scores of verdicts about the valid split's sequences, with their intervals."""
    scored = _of_split(held_out, "valid")
    least = firing_threshold(neuron.statistics)
    truth = [
        record.maximum > least if made.highlight is None else made.highlight.genuine
        for record, made in scored
    ]
    fires = np.array(truth, np.bool_)
    said = np.array([_said(record, made) for record, made in scored], np.float64)
    verdicts = Verdicts(np.zeros(len(scored), np.int32), fires, said)
    defined = np.isfinite(said)
    ends = {
        "balanced_accuracy": accuracy_interval(fires[defined], said[defined]),
        "auroc": area_interval(fires[defined], said[defined]),
    }
    scores = verdicts.score(np.array([0], np.int32))
    return {f"{name}_top_and_random": (score.at(0), ends[name]) for name, score in scores.items()}


def _said(record: Record, simulation: Simulation) -> float:
    defined = record.scored & np.isfinite(simulation.activations)
    lengths = np.array([len(defined)], np.int64)
    return float(largest(simulation.activations, defined, lengths)[0])


def _of_split(held_out: Sequence[Simulated], split: str) -> list[Simulated]:
    return [pair for pair in held_out if pair[0].split == split]


def _rows(
    held_out: Sequence[Simulated],
) -> tuple[Floats, Floats, BoolArray]:
    """Truth, prediction and what counts, each (1, tokens): all records one after the other."""
    none = np.zeros(0, np.float32)
    truth = np.concatenate([none, *(record.activations for record, _ in held_out)])
    predicted = np.concatenate([none, *(made.activations for _, made in held_out)])
    scored = np.concatenate([none.astype(np.bool_), *(record.scored for record, _ in held_out)])
    defined = np.isfinite(predicted)
    return (
        truth.astype(np.float32)[None],
        np.where(defined, predicted, 0.0).astype(np.float32)[None],
        (scored & defined)[None],
    )


def _over_sequences(held_out: Sequence[Simulated]) -> Ends:
    """The interval of the correlation over all tokens, whole sequences drawn again."""
    sums = []
    for pair in held_out:
        truth, predicted, mask = _rows([pair])
        counted = (values[mask].astype(np.float64) for values in (truth, predicted))
        sums.append(correlation_sums(*counted))
    return correlation_interval(sums)
