"""A sparse autoencoder, whatever file it comes from.

decoder bias        what is added after decoding, and where `subtracts_bias` taken off before
                    encoding (d_out,)
pre-activations     one signed number a latent, before the activation function (rows, n)
latents             what is left after it, never negative (rows, n)
norm                a row's mean and scale, taken off before encoding, put back after decoding
transcoder          one that reconstructs another site than the one it reads
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.base import Latents

LAYER_NORM_EPSILON = 1e-5

Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """What was taken off each row (rows, 1)."""

    mean: Tensor
    scale: Tensor  # for layer norm the unbiased standard deviation, without epsilon


@dataclass(frozen=True, slots=True, eq=False)
class Magnitude:
    """What a gated autoencoder has besides its gate, (n,) each: Rajamanoharan et al. 2024.

    The magnitude path shares the gate's weights, each row times exp(log_scale).
    """

    log_scale: Tensor
    bias: Tensor


def layer_norm(x: Tensor) -> tuple[Tensor, Norm]:
    """Rows (rows, d_in) minus their mean, over their unbiased std plus epsilon."""
    norm = Norm(x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True))
    return (x - norm.mean) / (norm.scale + LAYER_NORM_EPSILON), norm


def constant_norm(x: Tensor) -> tuple[Tensor, Norm]:
    """Rows (rows, d_in) brought to length √d_in; a row that is all zero stays so."""
    scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    scale = torch.where(scale > 0, scale, 1)
    return x / scale, Norm(torch.zeros_like(scale), scale)


def normalised(x: Tensor, normalisation: Normalisation) -> tuple[Tensor, Norm | None]:
    """Rows (rows, d_in) as they are encoded, and what puts them back; None where nothing does."""
    if normalisation == "layer_norm":
        return layer_norm(x)
    if normalisation == "constant_norm_rescale":
        return constant_norm(x)
    return x, None


def top_k(pre_activations: Tensor, k: int) -> Tensor:
    """The k largest signed numbers of each row (rows, n), then ReLU: k or fewer are not zero."""
    kept = pre_activations.topk(k, dim=-1)
    return torch.zeros_like(pre_activations).scatter_(-1, kept.indices, kept.values.relu())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Autoencoder:
    """Weights in one dtype, and how they are meant. At most one of k, threshold, magnitude is set.

    What formats fold at run time (decoder norms, scaling factors) is in the weights here, which lie
    in memory as their shapes say: so the same weights give the same numbers in every format.
    """

    encoder_weight: Tensor  # (n, d_in)
    encoder_bias: Tensor  # (n,); of a gated one the gate's
    decoder_weight: Tensor  # (d_out, n)
    decoder_bias: Tensor  # (d_out,)
    subtracts_bias: bool = True
    k: int | None = None  # TopK (Gao et al. 2024)
    threshold: Tensor | None = None  # (n,), JumpReLU (Rajamanoharan et al. 2024)
    magnitude: Magnitude | None = None
    normalisation: Normalisation = "none"
    with_bos: bool | None = None  # trained on text behind a BOS; None where its file is silent
    centred: bool = False  # trained on weights centred over the model dimension
    transcodes: bool = False
    skip: Tensor | None = None  # (d_out, d_in): what goes past the latents
    site: str | None = None  # what it reads, where its file says so
    site_out: str | None = None  # what a transcoder reconstructs
    format: str = ""
    notes: tuple[str, ...] = ()  # what the user should know
    # training statistics of OpenAI's files, one number a latent, without effect
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def d_in(self) -> int:
        """The width that it reads."""
        return self.encoder_weight.shape[1]

    @property
    def d_out(self) -> int:
        """The width that it reconstructs."""
        return self.decoder_weight.shape[0]

    @property
    def n(self) -> int:
        """How many latents there are."""
        return self.encoder_weight.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of what is computed."""
        return self.encoder_weight.dtype

    @property
    def architecture(self) -> str:
        """Its activation function: standard (ReLU), topk, jumprelu or gated; and whether it is a
        transcoder.
        """
        kinds = {"topk": self.k, "jumprelu": self.threshold, "gated": self.magnitude}
        name = next((kind for kind, value in kinds.items() if value is not None), "standard")
        skip = "skip " if self.skip is not None else ""
        return f"{name} {skip}transcoder" if self.transcodes else name

    def on(self, device: torch.device) -> "Autoencoder":
        """The same on another device."""
        if self.encoder_weight.device == device:
            return self
        tensors: dict[str, Any] = {
            part.name: value.to(device)
            for part in fields(self)
            if isinstance(value := getattr(self, part.name), Tensor)
        }
        if self.magnitude is not None:
            log_scale, bias = self.magnitude.log_scale, self.magnitude.bias
            tensors["magnitude"] = Magnitude(log_scale.to(device), bias.to(device))
        return replace(self, **tensors)

    def norm(self, x: Tensor) -> Norm | None:
        """What `decode` needs to undo the norm of inputs (rows, d_in).

        None where there is none, and for transcoders, whose target is another site.
        """
        return None if self.transcodes else self._prepared(x)[1]

    def encode_raw(self, x: Tensor) -> Tensor:
        """Inputs (rows, d_in) → signed pre-activations (rows, n); of a gated one the gate's.

        Raises SubjectError when the width is not d_in.
        """
        prepared = self._prepared(x)[0]
        if self.subtracts_bias:
            prepared = prepared - self.decoder_bias
        return linear(prepared, self.encoder_weight, self.encoder_bias)

    def encode(self, x: Tensor) -> Tensor:
        """Inputs (rows, d_in) → latents (rows, n). Raises SubjectError as `encode_raw` does."""
        raw = self.encode_raw(x)
        if self.k is not None:
            return top_k(raw, self.k)
        if self.threshold is not None:
            return raw.relu() * (raw > self.threshold)
        if self.magnitude is not None:
            scaled = (raw - self.encoder_bias) * self.magnitude.log_scale.exp()
            return (scaled + self.magnitude.bias).relu() * (raw > 0)
        return raw.relu()

    def encode_sparse(self, x: Tensor) -> Latents:
        """Inputs (batch, time, d_in) → the latents that may not be 0: of TopK k a place.

        The same numbers as `encode`. Raises SubjectError as `encode_raw` does.
        """
        shape = (x.shape[0], x.shape[1], self.n)
        if self.k is None:
            latents = self.encode(x).flatten(0, 1)
            place, latent = torch.nonzero(latents, as_tuple=True)
            return Latents(place, latent, latents[place, latent], shape)
        kept = self.encode_raw(x).flatten(0, 1).topk(self.k, dim=-1)
        place = torch.arange(len(kept.indices), device=x.device).repeat_interleave(
            self.k, output_size=kept.indices.numel()
        )
        return Latents(place, kept.indices.flatten(), kept.values.relu().flatten(), shape)

    def decode(self, latents: Tensor, norm: Norm | None = None) -> Tensor:
        """Latents (rows, n) → reconstructions (rows, d_out), without what goes past the latents.

        `norm` puts mean and scale back.
        """
        decoded = linear(latents.to(self.dtype), self.decoder_weight) + self.decoder_bias
        return decoded if norm is None else decoded * norm.scale + norm.mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """Inputs (rows, d_in) → reconstructions (rows, d_out), whole."""
        decoded = self.decode(self.encode(x), self.norm(x))
        return decoded if self.skip is None else decoded + linear(x.to(self.dtype), self.skip)

    def _prepared(self, x: Tensor) -> tuple[Tensor, Norm | None]:
        if x.shape[-1] != self.d_in:
            raise SubjectError(f"the autoencoder takes width {self.d_in}, not {x.shape[-1]}")
        x = x.to(self.dtype)
        if not self.centred or self.normalisation == "layer_norm":  # which centres in any case
            return normalised(x, self.normalisation)
        mean = x.mean(dim=-1, keepdim=True)
        x, norm = normalised(x - mean, self.normalisation)
        return x, Norm(mean, torch.ones_like(mean) if norm is None else norm.scale)
