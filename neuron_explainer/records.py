"""The vocabulary of the package.

subject     the model being explained
site        a place in it, by TransformerLens hook name (`blocks.6.mlp.hook_post`), or that name
            and an SAE (`blocks.6.hook_resid_post/res-jb`), or that name and `.negative`, for the
            site's activations negated
neuron      one unit of a site: an MLP neuron, a residual direction, an SAE latent, an attention
            head, whose activations are of pairs of positions
token       arbitrary bytes: a token need not be valid UTF-8
record      a token sequence with one neuron's activations
stimulus    a token sequence without them: all that a simulator may see
split       what a record may be used for; fixed once, in collect
explainer   writes explanations;  simulator: predicts activations from one;
scorer      a pure function of prediction and truth
run         one explainer with one configuration over a set of neurons
failure     what stands in for a result that could not be had; never scored
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.errors import ConfigError

FloatArray = NDArray[np.float64] | NDArray[np.float32]
BoolArray = NDArray[np.bool_]

Kind = Literal["top", "random", "quantile"]
Split = Literal["train", "calibration", "valid", "test"]
Pair = tuple[int, int]  # positions of a query and of a key that is not after it
# tokens, each with what a neuron adds to its logit, or with what it adds to a neuron's input
Effects = tuple[tuple[bytes, float], ...]
NEGATIVE = ".negative"  # ends the name of a site whose activations are negated
SPLITS: tuple[Split, ...] = ("train", "calibration", "valid", "test")

_SHORT = re.compile(r"^([^/]+(?:/[^/]+)?)/(\d+)/(\d+)$")
_NEURON = re.compile(r"(?P<subject>.+?)/(?P<site>blocks\.\d+\..+)/(?P<index>\d+)")


@dataclass(frozen=True, slots=True, order=True)
class NeuronId:
    """Prints and parses as `gpt2/blocks.6.mlp.hook_post/123`."""

    subject: str
    site: str
    index: int

    def __str__(self) -> str:
        return f"{self.subject}/{self.site}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`, and `gpt2/6/123` for layer 6's MLP neurons. Raises ConfigError."""
        match = _NEURON.fullmatch(_SHORT.sub(r"\1/blocks.\2.mlp.hook_post/\3", text))
        if match is None:
            raise ConfigError(
                f"'{text}' is not a neuron: write SUBJECT/SITE/INDEX, "
                "for example gpt2/blocks.6.mlp.hook_post/123"
            )
        return cls(match["subject"], match["site"], int(match["index"]))


@dataclass(frozen=True, slots=True)
class Stimulus:
    """A token sequence as a simulator sees it. `scored` is false at BOS and special tokens."""

    tokens: tuple[bytes, ...]
    scored: BoolArray  # (tokens,)
    highlighted: BoolArray | None = None  # (tokens,), only for simulators that ask for it
    pair: Pair | None = None  # of an attention head


@dataclass(frozen=True, slots=True)
class Highlight:
    """Tokens that are marked as those at which a neuron fires, and whether they are."""

    tokens: BoolArray  # (tokens,)
    genuine: bool  # False: as many others


@dataclass(frozen=True, slots=True)
class Record:
    """A token sequence with one neuron's raw activations."""

    tokens: tuple[bytes, ...]
    activations: FloatArray  # (tokens,)
    scored: BoolArray  # (tokens,)
    kind: Kind
    split: Split | None  # None: a quantile record, in no split
    sequence: int  # position in the corpus
    band: int | None = None  # which quantile band, lowest first
    pair: Pair | None = None  # of an attention head, whose activation stands at the query

    @property
    def stimulus(self) -> Stimulus:
        """The record without its activations."""
        return Stimulus(self.tokens, self.scored, pair=self.pair)

    @property
    def maximum(self) -> float:
        """The largest activation at a scored position; -inf when there is none."""
        return float(np.max(self.activations, where=self.scored, initial=-np.inf))


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One token's mean activation over the corpus, less the neuron's own held-out records."""

    previous: bytes | None  # None: whatever came before
    token: bytes | None  # None: all tokens that have no row of their own
    activation: float  # raw, mean
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class TokenRows:
    """A neuron's token rows as arrays (rows,): thousands of them cost no Python objects."""

    vocabulary: tuple[bytes, ...]
    previous: NDArray[np.int32]  # into the vocabulary, -1 for None
    token: NDArray[np.int32]  # likewise
    activation: NDArray[np.float32]
    count: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.token)

    def __iter__(self) -> Iterator[TokenRow]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> TokenRow:
        """One row."""
        return TokenRow(
            self._name(self.previous[row]),
            self._name(self.token[row]),
            float(self.activation[row]),
            int(self.count[row]),
        )

    def _name(self, token: int) -> bytes | None:
        return None if token < 0 else self.vocabulary[token]


@dataclass(frozen=True, slots=True)
class Statistics:
    """One neuron over all scored tokens of the corpus. A value that is undefined is None."""

    tokens: int
    density: float | None  # share of tokens with an activation above 0
    maximum: float | None
    mean: float | None
    variance: float | None
    skewness: float | None
    kurtosis: float | None
    quantile_boundaries: Sequence[float | None] | None  # .5 .9 .99 .999 of excerpts' maxima
    histogram: NDArray[np.int64]  # (bins,), see collect.moments


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another neuron of the site, whose direction is like a neuron's."""

    direction: str  # "output": what the two write; "input": what they read
    neuron: int
    cosine: float


@dataclass(frozen=True, slots=True)
class NeuronRecord:
    """All that collect keeps of one neuron."""

    neuron: NeuronId
    records: tuple[Record, ...]
    statistics: Statistics | None
    token_rows: TokenRows | None = None  # None: no token table was collected
    promoted: Effects | None = None  # most promoted first; None: effects were not collected
    suppressed: Effects | None = None  # most suppressed first; None as above
    excited_by: Effects | None = None  # most exciting token first; None: they were not collected
    inhibited_by: Effects | None = None  # most inhibiting first; None as above
    nearest: tuple[Neighbour, ...] | None = None  # the most alike first; None as above

    def split(self, split: Split) -> tuple[Record, ...]:
        """The records of one split, top records first."""
        return tuple(record for record in self.records if record.split == split)

    def of_kind(self, kind: Kind) -> tuple[Record, ...]:
        """All top, random or quantile records, in stored order."""
        return tuple(record for record in self.records if record.kind == kind)


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Token → predicted activation on the 0–10 scale: the lookup explanation itself.

    A row whose `previous` is not None holds only after that token and goes before the plain row.
    """

    previous: tuple[bytes | None, ...]
    tokens: tuple[bytes, ...]
    activations: tuple[float, ...]
    shares: tuple[float, ...]  # of the neuron's positive activation mass in the corpus
    otherwise: float  # for every token that is not in the table


@dataclass(frozen=True, slots=True)
class Fit:
    """How much a prompt showed, and how much more it would have, had the context room for it."""

    examples: int  # few-shot
    examples_dropped: int
    items: int | None = None  # of an explainer: records, places in them or tokens
    items_dropped: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A hypothesis about one neuron."""

    neuron: NeuronId
    explainer: str
    text: str
    table: TokenTable | None = None
    candidate: str | None = None  # the run that it was selected from
    fit: Fit | None = field(default=None, compare=False)  # None: no prompt was fitted


@dataclass(frozen=True, slots=True)
class Simulation:
    """One predicted activation a token; NaN where it is undefined (null on disk)."""

    activations: FloatArray  # (tokens,)
    highlight: Highlight | None = None  # what the simulator was shown; added by the stage
    fit: Fit | None = None  # None: no prompt was fitted; one for all sequences of a neuron


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a neuron has no result at a stage."""

    neuron: NeuronId
    stage: str
    cause: str  # short and countable: "never-active", "timeout"
    message: str


@dataclass(frozen=True, slots=True)
class Score:
    """One figure, or the reason why there is none."""

    value: float | None
    undefined: str | None = None
