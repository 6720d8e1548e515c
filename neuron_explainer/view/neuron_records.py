"""A neuron's records with what each simulator predicted of them."""

from collections.abc import Sequence

import numpy as np

from neuron_explainer.records import NeuronRecord, Record
from neuron_explainer.score.strata import QUANTILES
from neuron_explainer.tokens import escape
from neuron_explainer.view.contract import (
    ACTIVATION_DIGITS,
    Resource,
    number,
    shown,
    significant,
)
from neuron_explainer.view.neuron_runs import Told
from neuron_explainer.view.neuron_scores import record_correlation

_SHARES = np.round(np.diff([0.0, *QUANTILES, 1.0]), 6).tolist()


def records_resource(neuron: NeuronRecord, told: Sequence[Told], whole: bool) -> list[Resource]:
    """All records, in stored order. `whole`: whether the corpus is what bands are shares of."""
    written: dict[bytes, str] = {}
    return [_record(record, told, whole, written) for record in neuron.records]


def _record(
    record: Record, told: Sequence[Told], whole: bool, written: dict[bytes, str]
) -> Resource:
    band = record.band
    known = whole and band is not None and band < len(_SHARES)
    return {
        "kind": record.kind,
        "band": band,
        "share": _SHARES[band] if known and band is not None else None,
        "split": record.split,
        "sequence": record.sequence,
        "tokens": [_written(token, written) for token in record.tokens],
        "unscored": np.flatnonzero(~record.scored),
        "activations": significant(record.activations, ACTIVATION_DIGITS),
        "maximum": number(record.maximum, ACTIVATION_DIGITS),
        "pair": None if record.pair is None else list(record.pair),
        "simulations": _simulations(record, told),
    }


def _written(token: bytes, written: dict[bytes, str]) -> str:
    """A token as text; most of them come again and again."""
    found = written.get(token)
    if found is None:
        found = written[token] = escape(token)
    return found


def _simulations(record: Record, told: Sequence[Told]) -> list[Resource]:
    return [
        {
            "run": each.run.key,
            "simulator": shown(name),
            "activations": significant(prediction.activations, ACTIVATION_DIGITS),
            "correlation": number(record_correlation(prediction)),
        }
        for each in told
        for name, simulated in each.simulated.items()
        if (prediction := simulated.of(record)) is not None
    ]
