"""What collect needs of a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Union, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.records import BoolArray

if TYPE_CHECKING:
    import torch

Observer = Callable[["torch.Tensor"], None]  # (batch, time, neurons)
PairObserver = Callable[["torch.Tensor"], None]  # (batch, heads, query, key)
Neurons = Union[slice, "torch.Tensor"]  # a range, or indices (int64)


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """A batch's latents as a list of the few that may not be 0; all others are 0.

    In order of place, no latent twice at a place, and none below 0.
    """

    place: "torch.Tensor"  # (listed,) excerpt * time + position
    latent: "torch.Tensor"  # (listed,)
    value: "torch.Tensor"  # (listed,)
    shape: tuple[int, int, int]  # (batch, time, latents)


LatentObserver = Callable[[Latents], None]


class Tokenizer(Protocol):
    """Text to token ids, and token ids to bytes."""

    @property
    def vocabulary(self) -> tuple[bytes, ...]:
        """The bytes that each token id stands for."""

    @property
    def special(self) -> BoolArray:
        """Which token ids are control tokens, (vocabulary,)."""

    @property
    def bos(self) -> int | None:
        """The token that begins a sequence, where there is one."""

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, without added special tokens."""


class Subject(Protocol):
    """A model whose sites can be read."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The subject's own."""

    @property
    def context(self) -> int:
        """The longest sequence that it takes, in tokens."""

    def sites(self) -> Mapping[str, int]:
        """Every site and its number of neurons, in the order in which the model computes them."""

    def observe(self, tokens: "torch.Tensor", observers: Mapping[str, Observer]) -> None:
        """Run `tokens` (batch, time), padded on the right, up to the last site asked for.

        Each observer gets its site's activations, which it must not change or keep.
        """


@runtime_checkable
class ResidualWriter(Protocol):
    """What a subject may also know: what its neurons write, and how that reads as logits.

    How weights lie in memory, whether embeddings are tied and which norm comes last stay in here.
    """

    def writes(self, site: str, neurons: "Neurons") -> "torch.Tensor | None":
        """What each neuron adds to the residual stream per unit of activation (neurons, width).

        None where a neuron writes nothing that is linear in its activation.
        """

    def unembed(self, directions: "torch.Tensor") -> "torch.Tensor":
        """Directions in the final residual stream (rows, width) → logits (rows, vocabulary).

        Float32 and linear: the final norm's gain and centring are in it; its scale, which depends
        on the input, and all biases are not. A constant that a row's logits share has no meaning.
        """


@runtime_checkable
class ResidualReader(Protocol):
    """What a subject may also know: what its neurons read, and how much of it tokens hold."""

    def reads(self, site: str, neurons: "Neurons") -> "torch.Tensor | None":
        """Directions of the residual stream (neurons, width) that excite each neuron.

        A neuron's input is the product with what the stream holds, but for the scale of the norm
        between them, which depends on the whole stream, and for biases; the norm's gain and
        centring are in it. Of a gated neuron it is the gate's. None where a neuron reads nothing
        that is linear in the stream.
        """

    def embed(self, directions: "torch.Tensor") -> "torch.Tensor":
        """Directions (rows, width) → products with every token's embedding (rows, vocabulary)."""


@runtime_checkable
class HeadReader(Protocol):
    """What a subject may also know: how strongly its attention heads write, pair by pair."""

    def patterns(self) -> Mapping[str, int]:
        """Every `attn.hook_pattern` and its number of heads, in the order of computation."""

    def observe_pairs(self, tokens: "torch.Tensor", observers: Mapping[str, PairObserver]) -> None:
        """Run `tokens` (batch, time), padded on the right, up to the last site asked for.

        Each observer gets the norms of what the site's heads write to the residual stream at each
        query for each key, a · ‖v W_O‖, and 0 where the key is after the query.
        """


@runtime_checkable
class LatentReader(Protocol):
    """What a subject may also know: latents, of which nearly all are 0, as a list of the others."""

    def latents(self) -> Mapping[str, int]:
        """Every site that can be read so, and its number of latents."""

    def observe_latents(
        self,
        tokens: "torch.Tensor",
        observers: Mapping[str, Observer],
        latents: Mapping[str, LatentObserver],
    ) -> None:
        """As `observe`, with the sites in `latents` read as lists, all in one forward pass."""
