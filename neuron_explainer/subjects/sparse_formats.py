"""Sparse autoencoders as files define them.

pre_bias            what is subtracted before encoding and added after decoding (d_in,)
pre-activations     one signed number a latent, before the activation function (rows, n)
latents             what is left after it, never negative (rows, n)
norm                a row's mean and scale, taken off before encoding, put back after decoding

OpenAI's state-dict format, from Gao et al. 2024, "Scaling and evaluating sparse autoencoders".
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from neuron_explainer.errors import SubjectError

LAYER_NORM_EPSILON = 1e-5

_WEIGHTS = ("pre_bias", "latent_bias", "encoder.weight", "decoder.weight")
# Training statistics, one number a latent: published with the weights, without effect on them.
_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
_SETTINGS = ("activation", "activation_state_dict", "activation.k", "activation.postact_fn")


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """What layer norm took off each row (rows, 1)."""

    mean: Tensor
    scale: Tensor  # the unbiased standard deviation, without epsilon


def layer_norm(x: Tensor) -> tuple[Tensor, Norm]:
    """Rows (rows, d_in) minus their mean, over their unbiased std plus epsilon."""
    norm = Norm(x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True))
    return (x - norm.mean) / (norm.scale + LAYER_NORM_EPSILON), norm


def top_k(pre_activations: Tensor, k: int) -> Tensor:
    """The k largest signed numbers of each row (rows, n), then ReLU: k or fewer are not zero."""
    kept = pre_activations.topk(k, dim=-1)
    return torch.zeros_like(pre_activations).scatter_(-1, kept.indices, kept.values.relu())


def normalised_mean_squared_error(reconstruction: Tensor, original: Tensor) -> float | None:
    """Mean over rows (rows, d_in) of mean((r−x)²) / mean(x²), uncentred as published.

    None when it is undefined: no rows, or a row of `original` that is all zero.
    """
    power = original.double().square().mean(dim=-1)
    error = (reconstruction.double() - original.double()).square().mean(dim=-1)
    return _mean_ratio(error, power)


def normalised_l1(latents: Tensor, original: Tensor) -> float | None:
    """Mean over rows of Σ|latent| / ‖x‖, for latents (rows, n) of inputs (rows, d_in).

    None when it is undefined: no rows, or a row of `original` that is all zero.
    """
    return _mean_ratio(latents.double().abs().sum(dim=-1), original.double().norm(dim=-1))


class OpenAIAutoencoder:
    """An autoencoder in OpenAI's format. "TopK" ones layer-normalise their input, "ReLU" ones not.

    Weights keep the names of the file and are held in one dtype, whatever the file's.
    """

    def __init__(self, state: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> None:
        """Raises SubjectError naming the tensor or setting that is wrong, missing or unknown."""
        _check_names(state)
        self.d_in, self.n = _check_shapes(state)
        self.activation, self.k = _activation(state, self.n)
        self.dtype = dtype
        self.pre_bias, self.latent_bias, self.encoder_weight, self.decoder_weight = (
            state[name].detach().to(dtype) for name in _WEIGHTS
        )
        self._statistics = {
            name: state[name] if name in state else torch.zeros(self.n) for name in _STATISTICS
        }

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Read a `.pt` file, to the CPU, without running code that it may hold.

        Raises SubjectError naming the file, and what in it is wrong.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SubjectError(f"{path} cannot be read as an autoencoder: {reason}") from error
        if not isinstance(state, Mapping):
            raise SubjectError(f"{path} holds a {type(state).__name__}, not a state dict")
        try:
            return cls(state, dtype)
        except SubjectError as error:
            raise SubjectError(f"{path}: {error}") from error

    def norm(self, x: Tensor) -> Norm | None:
        """What `decode` needs to undo the norm of inputs (rows, d_in); None for "ReLU"."""
        return self._prepared(x)[1]

    def encode_raw(self, x: Tensor) -> Tensor:
        """Inputs (rows, d_in) → signed pre-activations (rows, n).

        Raises SubjectError when the width is not d_in.
        """
        return linear(self._prepared(x)[0] - self.pre_bias, self.encoder_weight, self.latent_bias)

    def encode(self, x: Tensor) -> Tensor:
        """Inputs (rows, d_in) → latents (rows, n). Raises SubjectError as `encode_raw` does."""
        pre_activations = self.encode_raw(x)
        return pre_activations.relu() if self.k is None else top_k(pre_activations, self.k)

    def decode(self, latents: Tensor, norm: Norm | None = None) -> Tensor:
        """Latents (rows, n) → reconstructions (rows, d_in); `norm` puts the scale back."""
        decoded: Tensor = linear(latents.to(self.dtype), self.decoder_weight) + self.pre_bias
        return decoded if norm is None else decoded * norm.scale + norm.mean

    def state_dict(self) -> dict[str, Any]:
        """The published layout: weights, statistics, and the activation by name and settings."""
        state: dict[str, Any] = {
            "pre_bias": self.pre_bias,
            "latent_bias": self.latent_bias,
            **self._statistics,
            "encoder.weight": self.encoder_weight,
            "decoder.weight": self.decoder_weight,
            "activation": self.activation,
        }
        if self.k is not None:
            settings = {"k": self.k, "postact_fn": "ReLU"}
            state |= {f"activation.{name}": value for name, value in settings.items()}
            state["activation_state_dict"] = settings
        return state

    def _prepared(self, x: Tensor) -> tuple[Tensor, Norm | None]:
        if x.shape[-1] != self.d_in:
            raise SubjectError(f"the autoencoder takes width {self.d_in}, not {x.shape[-1]}")
        x = x.to(self.dtype)
        return layer_norm(x) if self.activation == "TopK" else (x, None)


def _mean_ratio(parts: Tensor, wholes: Tensor) -> float | None:
    if wholes.numel() == 0 or bool((wholes == 0).any()):
        return None
    return float((parts / wholes).mean())


def _check_names(state: Mapping[str, Any]) -> None:
    missing = [name for name in _WEIGHTS if name not in state]
    if missing:
        raise SubjectError(f"it lacks {', '.join(missing)}, so it is not in OpenAI's format")
    unknown = sorted(set(map(str, state)) - {*_WEIGHTS, *_STATISTICS, *_SETTINGS})
    if unknown:
        raise SubjectError(f"it holds {', '.join(unknown)}, which OpenAI's format does not have")


def _check_shapes(state: Mapping[str, Any]) -> tuple[int, int]:
    """(d_in, n), by which all tensors are judged."""
    for name in (*_WEIGHTS, *(name for name in _STATISTICS if name in state)):
        if not isinstance(state[name], Tensor):
            raise SubjectError(f"{name} is a {type(state[name]).__name__}, not a tensor")
    if state["encoder.weight"].dim() != 2:
        raise SubjectError(f"encoder.weight is {_shape(state['encoder.weight'])}, not (n, d_in)")
    n, d_in = state["encoder.weight"].shape
    expected = {"pre_bias": (d_in,), "latent_bias": (n,), "decoder.weight": (d_in, n)}
    expected |= {name: (n,) for name in _STATISTICS if name in state}
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise SubjectError(
                f"{name} is {_shape(state[name])}; with an encoder.weight of ({n}, {d_in}) "
                f"it must be {shape}"
            )
    return d_in, n


def _activation(state: Mapping[str, Any], n: int) -> tuple[Literal["ReLU", "TopK"], int | None]:
    """The activation's name, and k for TopK. The first files carry no name: they are ReLU."""
    name = state.get("activation", "ReLU")
    if name == "ReLU":
        return "ReLU", None
    if name != "TopK":
        raise SubjectError(f"activation is {name!r}; known are 'ReLU' and 'TopK'")
    settings = state.get("activation_state_dict")
    if not isinstance(settings, Mapping):
        raise SubjectError("activation_state_dict is missing, so k of TopK is not known")
    after = settings.get("postact_fn", "ReLU")
    if after != "ReLU":
        raise SubjectError(f"activation_state_dict.postact_fn is {after!r}; known is 'ReLU'")
    k = settings.get("k")
    if not isinstance(k, int) or not 1 <= k <= n:
        raise SubjectError(f"activation_state_dict.k is {k!r}, not a number from 1 to {n}")
    return "TopK", k


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
