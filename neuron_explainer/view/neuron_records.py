"""A neuron's records with what each simulator predicted of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.records import NeuronRecord, Record
from neuron_explainer.score.strata import QUANTILES
from neuron_explainer.view.contract import (
    ACTIVATION_DIGITS,
    Resource,
    number,
    shown,
    significant,
    token_text,
)
from neuron_explainer.view.neuron_runs import Told
from neuron_explainer.view.neuron_scores import record_correlations

_SHARES = np.round(np.diff([0.0, *QUANTILES, 1.0]), 6).tolist()


def records_resource(neuron: NeuronRecord, told: Sequence[Told], whole: bool) -> list[Resource]:
    """All records, in stored order. `whole`: whether the corpus is what bands are shares of."""
    simulations = _simulations(neuron.records, told)
    rounded = _rounded([record.activations for record in neuron.records])
    return [
        _record(record, activations, whole, found)
        for record, activations, found in zip(neuron.records, rounded, simulations, strict=True)
    ]


def _record(
    record: Record, activations: NDArray[np.float64], whole: bool, simulations: list[Resource]
) -> Resource:
    band = record.band
    return {
        "kind": record.kind,
        "band": band,
        "share": _SHARES[band] if whole and band is not None and band < len(_SHARES) else None,
        "split": record.split,
        "sequence": record.sequence,
        "tokens": [token_text(token) for token in record.tokens],
        "unscored": np.flatnonzero(~record.scored),
        "activations": activations,
        "maximum": number(record.maximum, ACTIVATION_DIGITS),
        "pair": None if record.pair is None else list(record.pair),
        "simulations": simulations,
    }


def _simulations(records: Sequence[Record], told: Sequence[Told]) -> list[list[Resource]]:
    """Of each record what every simulator predicted."""
    found: list[list[Resource]] = [[] for _ in records]
    for each in told:
        for name, simulated in each.simulated.items():
            predictions = [simulated.of(record) for record in records]
            made = [prediction for prediction in predictions if prediction is not None]
            places = [place for place, each in enumerate(predictions) if each is not None]
            rounded = _rounded([prediction.activations for prediction in made])
            correlations = record_correlations(made)
            for place, activations, value in zip(places, rounded, correlations, strict=True):
                found[place].append(
                    {
                        "run": each.run.key,
                        "simulator": shown(name),
                        "activations": activations,
                        "correlation": number(value),
                    }
                )
    return found


def _rounded(rows: Sequence[NDArray[Any]]) -> list[NDArray[np.float64]]:
    """All rows rounded at once: one call for each would take far longer."""
    if not rows:
        return []
    flat = significant(np.concatenate(rows), ACTIVATION_DIGITS)
    return np.split(flat, np.cumsum([len(row) for row in rows])[:-1])
