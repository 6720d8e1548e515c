"""One neuron of ours as Neuronpedia's feature, activations and explanation."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.histogram import HISTOGRAM_EDGES
from neuron_explainer.interchange import neuronpedia, tagged_json
from neuron_explainer.interchange.neuronpedia import BAND_SHARES, TOP_GROUP, Target
from neuron_explainer.interchange.sequences import token_text
from neuron_explainer.records import Effects, NeuronRecord

Row = dict[str, Any]
Boundaries = Sequence[float] | None

_FEATURE = neuronpedia.blank(neuronpedia.Feature)
_ACTIVATION = neuronpedia.blank(neuronpedia.Activation)
_EXPLANATION = neuronpedia.blank(neuronpedia.Explanation)
_REMEMBERED = 1 << 14  # token sequences


@dataclass(frozen=True)
class Described:
    """What is said of a neuron."""

    text: str
    kind: str | None  # of explanation, as registered there
    model: str | None
    notes: str | None


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one source. `created` and `creator` go into every row."""

    target: Target
    site: str
    subject: str
    creator: str
    created: str

    def feature(self, neuron: NeuronRecord) -> Row:
        """The neuron without its records. Raises NeuronFailure when its density is unknown."""
        statistics = neuron.statistics
        known = [record.maximum for record in neuron.records if np.isfinite(record.maximum)]
        maximum = statistics.maximum if statistics else None
        alike = [other for other in neuron.nearest or () if other.direction == "output"]
        bars = _bars(statistics.histogram if statistics else ())
        return {
            **_FEATURE,
            **self._place(neuron),
            "creatorId": self.creator,
            "createdAt": self.created,
            "maxActApprox": max(known, default=0.0) if maximum is None else maximum,
            "hookName": self.site.partition("/")[0],
            "neg_str": _texts(neuron.suppressed),
            "neg_values": _values(neuron.suppressed),
            "pos_str": _texts(neuron.promoted),
            "pos_values": _values(neuron.promoted),
            "frac_nonzero": density(neuron),
            "freq_hist_data_bar_heights": bars[1],
            "freq_hist_data_bar_values": bars[0],
            "sourceSetName": self.target.set,
            "topkCosSimIndices": [other.neuron for other in alike],
            "topkCosSimValues": [other.cosine for other in alike],
        }

    def activations(self, neuron: NeuronRecord, boundaries: Boundaries) -> list[Row]:
        """A row a record, in stored order: top, random, quantile.

        Raises NeuronFailure when an activation is undefined: NaN is refused there.
        """
        groups = groups_of(neuron, boundaries)
        rows = []
        for place, record in enumerate(neuron.records):
            low, high, share = groups[record.kind, record.band]
            values = np.asarray(record.activations, np.float64)
            if not np.isfinite(values).all():
                raise NeuronFailure(
                    "undefined", f"{neuron.neuron}: field values: an activation is undefined"
                )
            best = int(np.argmax(np.where(record.scored, values, -np.inf))) if len(values) else 0
            row = {
                **_ACTIVATION,
                "tokens": _json_tokens(record.tokens),
                "values": values,
                **self._place(neuron),
                "maxValue": float(values[best]) if len(values) else 0.0,
                "maxValueTokenIndex": best,
                "minValue": float(values.min(initial=math.inf)) if len(values) else 0.0,
                "creatorId": self.creator,
                "dataSource": self.subject,
                "dataIndex": str(record.sequence),
                "createdAt": self.created,
                "binMin": low,
                "binMax": high,
                "binContains": share,
            }
            rows.append({**row, "id": self._id(row, place)})
        return rows

    def explanation(self, neuron: NeuronRecord, said: Described) -> Row:
        """The explanation's row."""
        row = {
            **_EXPLANATION,
            **self._place(neuron),
            "description": said.text,
            "authorId": self.creator,
            "typeName": said.kind,
            "explanationModelName": said.model,
            "notes": said.notes,
            "createdAt": self.created,
        }
        return {**row, "id": self._id(row, 0)}

    def _place(self, neuron: NeuronRecord) -> Row:
        target = self.target
        return {
            "modelId": target.model,
            "layer": target.source,
            "index": str(neuron.neuron.index),
        }

    def _id(self, row: Row, place: int) -> str:
        """An id that follows from the content: their importer never updates a known id."""
        content = orjson.dumps([row, place], option=orjson.OPT_SERIALIZE_NUMPY)
        return "c" + hashlib.blake2b(content, digest_size=12).hexdigest()


def density(neuron: NeuronRecord) -> float:
    """The share of tokens with an activation above 0; in an import that of its random records.

    Raises NeuronFailure when there are none: the field must not be missing there.
    """
    if neuron.statistics is not None and neuron.statistics.density is not None:
        return neuron.statistics.density
    randoms = neuron.of_kind("random")
    values = np.concatenate([[], *(record.activations[record.scored] for record in randoms)])
    if not len(values):
        raise NeuronFailure(
            "no-density", f"{neuron.neuron}: frac_nonzero is unknown, and no random record tells it"
        )
    return float(np.mean(values > 0))


def groups_of(
    neuron: NeuronRecord, boundaries: Boundaries
) -> dict[tuple[str, int | None], tuple[float, float, float | None]]:
    """binMin, binMax and binContains by kind and band.

    Top records are marked as such. The others lie in an interval of the excerpt's maximum, whose
    share of all excerpts is given: random records in the whole range, quantile records in a band.
    """
    maxima = [record.maximum for record in neuron.records if np.isfinite(record.maximum)]
    low = min([0.0, *maxima])
    high = max([0.0, *maxima])
    if neuron.statistics is not None and neuron.statistics.maximum is not None:
        high = max(high, neuron.statistics.maximum)
    groups: dict[tuple[str, int | None], tuple[float, float, float | None]] = {
        ("top", None): (TOP_GROUP, TOP_GROUP, TOP_GROUP),
        ("random", None): (low, high, 1.0),
    }
    edges = [low, *(low if edge is None else edge for edge in boundaries or ()), high]
    for band in {record.band for record in neuron.of_kind("quantile")}:
        place = band or 0
        shares = BAND_SHARES if len(edges) == len(BAND_SHARES) + 1 else ()
        share = shares[place] if place < len(shares) else None
        inside = (edges[place], edges[place + 1]) if place + 1 < len(edges) else (low, high)
        groups["quantile", band] = (*inside, share)
    return groups


def _texts(effects: Effects | None) -> orjson.Fragment:
    """The tokens of logit effects; none where effects were not collected."""
    return _json_tokens(tuple(token for token, _ in effects or ()))


def _values(effects: Effects | None) -> list[float]:
    return [float(effect) for _, effect in effects or ()]


def _bars(histogram: Sequence[int] | np.ndarray[Any, Any]) -> tuple[list[float], list[int]]:
    """Upper ends and heights of the bars above 0, from the first to the last that is filled."""
    filled = np.flatnonzero(np.asarray(histogram)[1:]) if len(histogram) else np.array([])
    if not len(filled):
        return [], []
    bars = slice(int(filled[0]), int(filled[-1]) + 1)
    return HISTOGRAM_EDGES[bars].tolist(), np.asarray(histogram)[1:][bars].tolist()


@lru_cache(maxsize=_REMEMBERED)
def _json_tokens(tokens: tuple[bytes, ...]) -> orjson.Fragment:
    return orjson.Fragment(tagged_json.dumps([token_text(token) for token in tokens]))
