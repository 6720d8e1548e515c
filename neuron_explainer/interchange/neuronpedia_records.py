"""Neuronpedia's features, activations and explanations as rows of our tables.

What our tables have no column for goes to `published_*` tables beside them. See docs/formats.md.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa

from neuron_explainer import schemas
from neuron_explainer.histogram import HISTOGRAM_EDGES
from neuron_explainer.interchange.import_job import Fault
from neuron_explainer.interchange.neuronpedia import (
    BAND_SHARES,
    EXPLAINERS,
    TOP_GROUP,
    Activation,
    Explanation,
    Feature,
)
from neuron_explainer.interchange.neuronpedia_source import Content
from neuron_explainer.interchange.openai_records import MOST_BANDS, MOST_RECORDS, ActivationRows
from neuron_explainer.interchange.openai_results import ALTERNATIVES, IMPORTED
from neuron_explainer.interchange.sequences import SequenceWriter
from neuron_explainer.records import Kind
from neuron_explainer.splits import assign_splits

_ELSEWHERE: dict[type[Any], set[str]] = {
    Feature: {"modelId", "layer", "index", "maxActApprox", "frac_nonzero"},
    Activation: {"modelId", "layer", "index", "tokens", "values"},
    Explanation: {"modelId", "layer", "index", "description", "embedding"},
}
_LEFT_OVER = {
    kind: [field.name for field in fields(kind) if field.name not in names]
    for kind, names in _ELSEWHERE.items()
}
_COST = 8  # a number as an object, to one in a column
_ARROW = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
_NAMED = {kind: name for name, kind in EXPLAINERS.items()}

Bin = tuple[float, float, float]  # binMin, binMax, binContains


def _schema(kind: type[Any], *keys: pa.Field) -> pa.Schema:
    hints = get_type_hints(kind)
    neuron = pa.field("neuron", pa.int32(), nullable=False)
    return pa.schema(
        [neuron, *keys, *(pa.field(name, _type(hints[name])) for name in _LEFT_OVER[kind])]
    )


def _type(hint: Any) -> pa.DataType:
    text = str(hint)
    for kind, arrow in _ARROW.items():
        if kind.__name__ in text:
            return pa.list_(arrow) if "tuple" in text else arrow
    raise TypeError(text)


PUBLISHED_FEATURES = _schema(Feature)
PUBLISHED_ACTIVATIONS = _schema(
    Activation,
    pa.field("kind", pa.string(), nullable=False),
    pa.field("band", pa.int8()),
    pa.field("rank", pa.int16(), nullable=False),
)
PUBLISHED_EXPLANATIONS = _schema(Explanation, pa.field("explanation", pa.int16(), nullable=False))


class NeuronpediaRows:
    """The neurons of a shard.

    `with_run`: there are explanations, which go to a run. `with_effects`: there are logit effects.
    """

    def __init__(self, sequences: SequenceWriter, with_run: bool, with_effects: bool) -> None:
        self._sequences = sequences
        self._with_effects = with_effects
        self._records = ActivationRows(sequences)
        self._with_run = with_run
        self._left_over = 0  # numbers and texts in the published rows
        self._rows: dict[str, list[dict[str, Any]]] = {
            name: []
            for name in (
                *("neurons", "logit_effects", "published_features", "published_activations"),
                *("explanations", "alternatives", "published_explanations"),
            )
        }

    @property
    def size(self) -> int:
        """How many numbers are held."""
        return self._records.size + _COST * self._left_over

    def add(self, neuron: int, content: Content) -> list[Fault]:
        """Add a neuron, larger than those before. Returns what of it could not be read."""
        faults = list(content.faults)
        groups = grouped(content.activations)
        bins = [key for key in groups if key[0] == "quantile"]
        longest = max(map(len, groups.values()), default=0)
        if len(bins) > MOST_BANDS or longest > MOST_RECORDS:
            groups = {}
            faults.append(
                ("malformed", f"neuron {neuron}: field binMin: too many groups or records")
            )
        for (kind, band), activations in groups.items():
            self._add_records(neuron, kind, band, activations, groups)
        if content.feature is not None:
            boundaries = _boundaries(groups)
            self._rows["neurons"].append(_statistics(neuron, content.feature, boundaries))
            self._rows["published_features"].append(
                {"neuron": neuron, **self._leftover(content.feature)}
            )
            self._add_effects(neuron, content.feature)
        for place, explanation in enumerate(content.explanations):
            self._add_explanation(neuron, place, explanation)
        return faults

    def _add_records(
        self,
        neuron: int,
        kind: Kind,
        band: int | None,
        activations: Sequence[Activation],
        groups: "Groups",
    ) -> None:
        tops, randoms = groups["top", None], groups["random", None]
        splits = {
            position: split
            for split, (of_top, of_random) in assign_splits(len(tops), len(randoms)).items()
            for position in (of_top if kind == "top" else of_random)
        }
        for rank, activation in enumerate(activations):
            split = None if kind == "quantile" else splits.get(rank)
            place = (neuron, kind, rank, band)
            self._records.add(place, split, activation.tokens, activation.values)
            self._rows["published_activations"].append(
                {"neuron": neuron, "kind": kind, "band": band, "rank": rank}
                | self._leftover(activation)
            )

    def _add_effects(self, neuron: int, feature: Feature) -> None:
        """The tokens promoted and suppressed, by falling effect."""
        named = [
            *zip(feature.pos_str or (), feature.pos_values or (), strict=True),
            *zip(feature.neg_str or (), feature.neg_values or (), strict=True),
        ]
        effects = {text: value for text, value in named if np.float32(value) != 0}
        ordered = sorted(effects.items(), key=lambda pair: pair[1], reverse=True)
        for token, (_, value) in zip(
            self._sequences.tokens([text for text, _ in ordered]), ordered, strict=True
        ):
            row = {"neuron": neuron, "token": token, "effect": value}
            self._rows["logit_effects"].append(row)

    def _add_explanation(self, neuron: int, place: int, explanation: Explanation) -> None:
        text = explanation.description
        if place:
            row = {"neuron": neuron, "explanation": place, "text": text}
            self._rows["alternatives"].append(row)
        else:
            explainer = _NAMED.get(explanation.typeName or "", IMPORTED)
            row = {"neuron": neuron, "explainer": explainer, "text": text}
            self._rows["explanations"].append(row)
        self._rows["published_explanations"].append(
            {"neuron": neuron, "explanation": place} | self._leftover(explanation)
        )

    def _leftover(self, row: Any) -> dict[str, Any]:
        """The fields that have no place elsewhere."""
        left = {name: getattr(row, name) for name in _LEFT_OVER[type(row)]}
        self._left_over += sum(len(v) for v in left.values() if isinstance(v, tuple | str))
        return left

    def tables(self) -> dict[str, dict[str, pa.Table]]:
        """The tables of the record set and, where there is one, of the run, by name."""
        data = {
            "records": self._records.records(),
            "neurons": self._table("neurons", schemas.NEURONS),
            "published_features": self._table("published_features", PUBLISHED_FEATURES),
            "published_activations": self._table("published_activations", PUBLISHED_ACTIVATIONS),
        }
        if self._with_effects:
            data["logit_effects"] = self._table("logit_effects", schemas.LOGIT_EFFECTS)
        if not self._with_run:
            return {"data": data}
        run = {
            "explanations": self._table("explanations", schemas.EXPLANATIONS),
            "alternatives": self._table("alternatives", ALTERNATIVES),
            "published_explanations": self._table("published_explanations", PUBLISHED_EXPLANATIONS),
        }
        return {"data": data, "explanations": run}

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        return pa.Table.from_pylist(self._rows[name], schema=schema)


Groups = dict[tuple[Kind, int | None], Sequence[Activation]]


def grouped(activations: Sequence[Activation]) -> Groups:
    """Top records by falling maximum, random ones, and the quantile bands from the lowest.

    A record without an interval is a top one; one whose interval holds all excerpts is random.
    """
    tops: list[Activation] = []
    randoms: list[Activation] = []
    bands: dict[Bin, list[Activation]] = {}
    for activation in activations:
        low, high, share = activation.binMin, activation.binMax, activation.binContains
        if low is None or (low == TOP_GROUP and share == TOP_GROUP):
            tops.append(activation)
        elif share == 1.0:
            randoms.append(activation)
        else:
            key = (low, low if high is None else high, -1.0 if share is None else share)
            bands.setdefault(key, []).append(activation)
    tops.sort(key=_maximum, reverse=True)
    groups: Groups = {("top", None): tops, ("random", None): randoms}
    keys = sorted(bands, key=lambda key: (key[0], key[1], -key[2]))
    shares = [key[2] for key in keys]
    known = len(set(shares)) == len(shares) and set(shares) <= set(BAND_SHARES)
    for place, key in enumerate(keys):
        band = BAND_SHARES.index(key[2]) if known else place
        groups["quantile", band] = bands[key]
    return groups


def _maximum(activation: Activation) -> float:
    if activation.maxValue is not None:
        return activation.maxValue
    return max(activation.values, default=-np.inf)


def _boundaries(groups: Groups) -> list[float] | None:
    """What lies between the bands, where all of them are known."""
    bands = {band: items[0] for (_, band), items in groups.items() if band is not None}
    shares = {item.binContains for item in bands.values()}
    last = len(BAND_SHARES) - 1 if shares <= set(BAND_SHARES) else max(bands, default=0)
    edges = []
    for band in range(last if bands else 0):
        below, above = bands.get(band), bands.get(band + 1)
        found = (below.binMax if below else None, above.binMin if above else None)
        known = {edge for edge in found if edge is not None}
        if len(known) != 1:
            return None
        edges.append(known.pop())
    return edges or None


def _statistics(neuron: int, feature: Feature, boundaries: list[float] | None) -> dict[str, object]:
    histogram = _histogram(feature)
    return {
        "neuron": neuron,
        "tokens": 0 if histogram is None else int(histogram.sum()),
        "density": feature.frac_nonzero,
        "maximum": feature.maxActApprox,
        "quantile_boundaries": boundaries,
        "histogram": histogram,
    }


def _histogram(feature: Feature) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
    """Our histogram, where its bars are half octaves with whole numbers of tokens."""
    values = np.array(feature.freq_hist_data_bar_values or ())
    heights = np.array(feature.freq_hist_data_bar_heights or ())
    whole = len(values) and np.all(heights == np.floor(heights)) and np.all(heights >= 0)
    if not whole or not feature.frac_nonzero or heights.sum() > 1 << 53:
        return None
    bars = np.searchsorted(HISTOGRAM_EDGES, values)
    if not np.all(np.isin(values, HISTOGRAM_EDGES)) or len(set(bars.tolist())) < len(bars):
        return None
    histogram = np.zeros(len(HISTOGRAM_EDGES) + 1, np.int64)
    histogram[1 + bars] = heights.astype(np.int64)
    tokens = round(float(heights.sum()) / feature.frac_nonzero)
    histogram[0] = tokens - int(histogram.sum())
    return histogram
