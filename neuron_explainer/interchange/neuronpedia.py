"""Neuronpedia's export and import layout: `v1/{model}/{source}/` and what a line of it holds.

`release.jsonl`, `model.jsonl`, `sourceset.jsonl`, `source.jsonl` have one line; `features/`,
`activations/` and `explanations/` hold `batch-{n}.jsonl.gz`, and the same n is about the same
features. Class and field names are the published ones, in the published order. A source, such as
`6-res-jb`, is called `layer` in every line. Fields that are not listed here are ignored when read:
the public exports carry some, and their own reader fails on those that it does not know.
"""

import re
from collections.abc import Sized
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.interchange import tagged_json

FEATURES, ACTIVATIONS, EXPLANATIONS = "features", "activations", "explanations"
PARTS = (FEATURES, ACTIVATIONS, EXPLANATIONS)
TOP_GROUP = -1.0  # binMin and binContains of the top records
# the share of all excerpts in each of our quantile bands, lowest first
BAND_SHARES = (0.5, 0.4, 0.09, 0.009, 0.001)
EXPLAINERS = {  # our explainers, and the explanation type of their method there
    "token-activation": "oai_token-act-pair",
    "attention-head": "oai_attention-head",
    "max-act-logits": "np_max-act-logits",
    "highlight": "eleuther_acts_top20",
}
MOST_TOKENS = 16_384  # in one activation record
LONGEST_TOKEN = 4_096  # characters
RESERVED = "neurons"  # their own MLP neurons, in sources without a name: a bare "6"
OWN_NEURONS = "mlp-neurons-"

_SOURCE = re.compile(r"(?P<layer>0|[1-9][0-9]{0,3})(-(?P<set>[a-z0-9]+(-[a-z0-9]+)*))?")
_MODEL = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_MLP = re.compile(r"blocks\.[0-9]+\.mlp\.hook_post")

Made = TypeVar("Made")
Text = str | None
Number = float | None
Numbers = tuple[float, ...]
Integers = tuple[int, ...]
Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Activation:
    """A token sequence with one value a token."""

    id: Text = None
    tokens: Texts = ()
    values: Numbers = ()
    index: str = ""
    layer: Text = None
    modelId: Text = None
    maxValue: Number = None
    maxValueTokenIndex: Number = None
    minValue: Number = None
    creatorId: Text = None
    dataSource: Text = None
    dataIndex: Text = None
    dfaValues: Numbers | None = ()
    dfaTargetIndex: Number = None
    dfaMaxValue: Number = None
    createdAt: Text = None
    lossValues: Numbers | None = ()
    logitContributions: Text = None
    binMin: Number = None
    binMax: Number = None
    binContains: Number = None
    qualifyingTokenIndex: Number = None

    def __post_init__(self) -> None:
        if len(self.tokens) > MOST_TOKENS:
            raise ValueError(f"field tokens: {len(self.tokens)} items; at most {MOST_TOKENS}")
        if max(map(len, self.tokens), default=0) > LONGEST_TOKEN:
            raise ValueError(f"field tokens: one has over {LONGEST_TOKEN} characters")
        same_length("values", self.values, self.tokens)


@dataclass(frozen=True, slots=True)
class Feature:
    """What is known of a neuron besides its records."""

    modelId: Text = None
    layer: Text = None
    index: str = ""
    creatorId: Text = None
    createdAt: Text = None
    maxActApprox: Number = None
    hasVector: bool | None = False
    vector: Numbers | None = ()
    vectorLabel: Text = None
    hookName: Text = None
    topkCosSimIndices: Numbers | None = ()
    topkCosSimValues: Numbers | None = ()
    neuron_alignment_indices: Numbers | None = ()
    neuron_alignment_values: Numbers | None = ()
    neuron_alignment_l1: Numbers | None = ()
    correlated_neurons_indices: Numbers | None = ()
    correlated_neurons_pearson: Numbers | None = ()
    correlated_neurons_l1: Numbers | None = ()
    correlated_features_indices: Numbers | None = ()
    correlated_features_pearson: Numbers | None = ()
    correlated_features_l1: Numbers | None = ()
    neg_str: Texts | None = ()
    neg_values: Numbers | None = ()
    pos_str: Texts | None = ()
    pos_values: Numbers | None = ()
    frac_nonzero: Number = None
    freq_hist_data_bar_heights: Numbers | None = ()
    freq_hist_data_bar_values: Numbers | None = ()
    logits_hist_data_bar_heights: Numbers | None = ()
    logits_hist_data_bar_values: Numbers | None = ()
    decoder_weights_dist: Numbers | None = ()
    sourceSetName: Text = None

    def __post_init__(self) -> None:
        same_length("pos_values", self.pos_values or (), self.pos_str or ())
        same_length("neg_values", self.neg_values or (), self.neg_str or ())
        heights = self.freq_hist_data_bar_heights or ()
        same_length("freq_hist_data_bar_values", self.freq_hist_data_bar_values or (), heights)
        if self.frac_nonzero is not None and not 0.0 <= self.frac_nonzero <= 1.0:
            raise ValueError(f"field frac_nonzero: {self.frac_nonzero} is no share from 0 to 1")


@dataclass(frozen=True, slots=True)
class Explanation:
    """A text about a neuron. There is no field for a score: it stands in `notes`."""

    id: Text = None
    modelId: Text = None
    layer: Text = None
    index: str = ""
    description: str = ""
    authorId: Text = None
    typeName: Text = None
    explanationModelName: Text = None
    notes: Text = None
    embedding: Numbers | None = None
    createdAt: Text = None


KINDS: dict[str, type[Any]] = {
    FEATURES: Feature,
    ACTIVATIONS: Activation,
    EXPLANATIONS: Explanation,
}
_NEEDED = {
    FEATURES: ("index",),
    ACTIVATIONS: ("index", "tokens", "values"),
    EXPLANATIONS: ("index", "description"),
}


_NOT_READ = {"embedding"}  # a list, or that list as text; it can be computed again


def same_length(name: str, values: Sized, others: Sized) -> None:
    """Raises ValueError, which names the field, when two lists should match and do not."""
    if len(values) != len(others):
        raise ValueError(f"field {name}: {len(values)} items, expected {len(others)}")


def blank(kind: type[Any]) -> dict[str, Any]:
    """An object of `kind` with every field, so that all lines of a file have the same keys."""
    return {field.name: field.default for field in fields(kind)}


def read_line(part: str, line: bytes) -> Any:
    """A line of a file in folder `part` as its dataclass. Raises DataError that names the field."""
    value = tagged_json.parse(line)
    kind = KINDS[part]
    if isinstance(value, dict):
        for name in _NEEDED[part]:
            if value.get(name) is None:
                raise DataError(f"field {name}: missing")
        known = (field.name for field in fields(kind) if field.name not in _NOT_READ)
        value = {name: value[name] for name in known if name in value}
    return tagged_json.decode(kind, value)


@dataclass(frozen=True, slots=True)
class Target:
    """What a neuron's site is called there."""

    model: str
    layer: int
    set: str

    @property
    def source(self) -> str:
        """Such as `6-res-jb`."""
        return f"{self.layer}-{self.set}"

    @classmethod
    def of(cls, model: str, source: str, site: str) -> "Target":
        """The target called `source`, checked against what it is to hold. Raises ConfigError."""
        if not _MODEL.fullmatch(model):
            raise ConfigError(
                f"'{model}' cannot be a model id: use small letters and digits with single "
                "'-', '.' or '_' between them, such as gpt2-small"
            )
        layer = int(site.split(".")[1])
        match = _SOURCE.fullmatch(source)
        example = f"{layer}-{OWN_NEURONS if _MLP.fullmatch(site) else 'sae-'}ORGANISATION".lower()
        if match is None or match["set"] is None:
            raise ConfigError(
                f"'{source}' cannot be a source: write LAYER-SET in small letters, digits and "
                f"single hyphens, such as {example}"
            )
        if int(match["layer"]) != layer:
            raise ConfigError(f"source '{source}' begins with another layer than that of {site}")
        if match["set"] == RESERVED:
            raise ConfigError(
                f"the source set '{RESERVED}' is reserved for Neuronpedia's own: "
                f"write for example {example}"
            )
        if _MLP.fullmatch(site) and not match["set"].startswith(OWN_NEURONS):
            raise ConfigError(f"{site} holds MLP neurons: call their source for example {example}")
        return cls(model, layer, match["set"])


def parse_source(source: str) -> tuple[int, str]:
    """Layer and source set of a source that somebody else named. Raises DataError."""
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise DataError(f"field layer: '{source[:40]}' is no source such as 6-res-jb")
    return int(match["layer"]), match["set"] or RESERVED
