"""One neuron with everything that the workspace holds about it."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer.errors import DataError
from neuron_explainer.histogram import HISTOGRAM_EDGES
from neuron_explainer.records import Effects, NeuronRecord, Statistics, TokenRows
from neuron_explainer.view.contract import (
    ACTIVATION_DIGITS,
    NEURONS_PER_FOLDER,
    Resource,
    Unavailable,
    number,
    reading,
    shown,
    token_text,
)
from neuron_explainer.view.entries import SiteEntry
from neuron_explainer.view.links import neuronpedia_url
from neuron_explainer.view.neuron_records import records_resource
from neuron_explainer.view.neuron_runs import Told, told_of

_MOST_TOKEN_ROWS = 50
_STATISTICS = ("density", "variance", "skewness", "kurtosis")


def neuron_resource(
    site: SiteEntry, neurons: NDArray[np.int32], folder: int, neuron: int
) -> Resource:
    """neurons/FOLDER/NEURON.json. Raises Unavailable where it is not there."""
    place = int(np.searchsorted(neurons, neuron))
    there = place < len(neurons) and int(neurons[place]) == neuron
    if not there or folder != neuron // NEURONS_PER_FOLDER:
        raise Unavailable(404, f"neuron {neuron} was not collected here", site.folder.rebuild)
    with reading(site.folder.rebuild):
        record = site.records.neuron(neuron)
    told = [told_of(run, site, record) for run in site.runs]
    return {
        **_identity(site, neuron),
        **_distribution(record.statistics),
        "explanations": [each.explanation for each in told],
        "records": records_resource(record, told, site.records.corpus.whole),
        **_connections(site, record),
        "token_table": _token_table(record.token_rows),
        "nearest": _nearest(site, neuron, told),
        "neuronpedia": neuronpedia_url(site, neuron),
        "previous": int(neurons[place - 1]) if place else None,
        "next": int(neurons[place + 1]) if place + 1 < len(neurons) else None,
    }


def _identity(site: SiteEntry, neuron: int) -> Resource:
    subject, name = shown(site.records.subject), shown(site.name)
    return {
        "id": f"{subject}/{name}/{neuron}",
        "site": site.key,
        "subject": subject,
        "name": name,
        "neuron": neuron,
        "unit": site.unit,
    }


def _distribution(found: Statistics | None) -> Resource:
    if found is None:
        return {"statistics": None, "histogram": None}
    counts = found.histogram
    return {
        "statistics": {
            "tokens": found.tokens,
            **{name: number(getattr(found, name)) for name in _STATISTICS},
            **{name: _activation(getattr(found, name)) for name in ("maximum", "mean")},
            "quantile_boundaries": found.quantile_boundaries
            and [_activation(value) for value in found.quantile_boundaries],
        },
        "histogram": {
            "edges": [0.0, *HISTOGRAM_EDGES[: len(counts) - 1].tolist()],
            "counts": counts.tolist(),
        }
        if len(counts)
        else None,
    }


def _connections(site: SiteEntry, record: NeuronRecord) -> Resource:
    return {
        "promoted": _effects(record.promoted),
        "suppressed": _effects(record.suppressed),
        **_inputs(site, record.neuron.index),
    }


def _effects(effects: Iterable[tuple[bytes, float]] | Effects | None) -> list[Resource] | None:
    if effects is None:
        return None
    return [
        {"token": token_text(token), "effect": number(effect, ACTIVATION_DIGITS)}
        for token, effect in effects
    ]


def _inputs(site: SiteEntry, neuron: int) -> Resource:
    """Which input tokens excite and inhibit it, where they were collected."""
    table = _optional(site, "input_tokens", neuron)
    if table is None:
        return {"excites": None, "inhibits": None}
    names = site.records.corpus.vocabulary[0]
    pairs = list(zip(table["token"].to_pylist(), table["effect"].to_pylist(), strict=True))
    named = sorted(((names[token], effect) for token, effect in pairs), key=lambda pair: -pair[1])
    return {
        "excites": _effects([pair for pair in named if pair[1] > 0]),
        "inhibits": _effects([pair for pair in reversed(named) if pair[1] < 0]),
    }


def _token_table(rows: TokenRows | None) -> list[Resource] | None:
    """The rows of the highest means, at most so many."""
    if rows is None:
        return None
    highest = np.argsort(-rows.activation, kind="stable")
    return [
        {
            "previous": None if row.previous is None else token_text(row.previous),
            "token": None if row.token is None else token_text(row.token),
            "activation": number(row.activation, ACTIVATION_DIGITS),
            "count": row.count,
        }
        for row in (rows[int(place)] for place in islice(highest, _MOST_TOKEN_ROWS))
    ]


def _nearest(site: SiteEntry, neuron: int, told: list[Told]) -> list[Resource] | None:
    """The neurons of the site that are most alike, each with an explanation of it."""
    table = _optional(site, "nearest", neuron)
    if table is None:
        return None
    columns = [table[name].to_pylist() for name in ("direction", "other", "cosine")]
    others = columns[1]
    texts = next((texts for each in told if (texts := each.texts_of(others))), {})
    return [
        {
            "direction": direction,
            "neuron": other,
            "cosine": number(cosine),
            "explanation": texts.get(other),
        }
        for direction, other, cosine in zip(*columns, strict=True)
    ]


def _optional(site: SiteEntry, name: str, neuron: int) -> pa.Table | None:
    """The rows of one neuron in a table that not every record set has."""
    if not site.folder.shards(name):
        return None
    with reading(site.folder.rebuild):
        try:
            return site.folder.read_neuron(name, neuron)
        except DataError:
            if any(neuron in shard for shard, _ in site.folder.shards(name)):
                raise
            return None


def _activation(value: Any) -> float | None:
    return number(value, ACTIVATION_DIGITS)
