"""OpenAI's state-dict format, from Gao et al. 2024, "Scaling and evaluating sparse autoencoders".

"TopK" autoencoders layer-normalise their input, "ReLU" ones do not.
"""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.store import replace_file
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.sparse_files import check_finite

_WEIGHTS = ("pre_bias", "latent_bias", "encoder.weight", "decoder.weight")
# Training statistics, one number a latent: published with the weights, without effect on them.
_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
_SETTINGS = ("activation", "activation_state_dict", "activation.k", "activation.postact_fn")


def site_of(path: Path) -> None:
    """The format does not say where an autoencoder belongs."""


def read(path: Path, dtype: torch.dtype = torch.float32) -> Autoencoder:
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
        return from_state(state, dtype)
    except SubjectError as error:
        raise SubjectError(f"{path}: {error}") from error


def write(autoencoder: Autoencoder, path: Path) -> None:
    """Write a `.pt` file. Raises SubjectError when the format cannot express the autoencoder."""
    content = io.BytesIO()
    torch.save(to_state(autoencoder), content)
    replace_file(path, content.getvalue())


def from_state(state: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> Autoencoder:
    """Raises SubjectError naming the tensor or setting that is wrong, missing or unknown."""
    _check_names(state)
    n = _check_shapes(state)
    k = _k(state, n)
    weights = {name: state[name].detach().to(dtype) for name in _WEIGHTS}
    for name, tensor in weights.items():
        check_finite(name, tensor)
    return Autoencoder(
        encoder_weight=weights["encoder.weight"],
        encoder_bias=weights["latent_bias"],
        decoder_weight=weights["decoder.weight"],
        decoder_bias=weights["pre_bias"],
        k=k,
        normalisation="none" if k is None else "layer_norm",
        format="openai",
        statistics={name: state[name] for name in _STATISTICS if name in state},
    )


def to_state(autoencoder: Autoencoder) -> dict[str, Any]:
    """The published layout: weights, statistics, and the activation by name and settings.

    Raises SubjectError when the format cannot express the autoencoder.
    """
    check(autoencoder)
    none = torch.zeros(autoencoder.n)
    state: dict[str, Any] = {
        "pre_bias": autoencoder.decoder_bias.contiguous(),
        "latent_bias": autoencoder.encoder_bias.contiguous(),
        **{name: autoencoder.statistics.get(name, none) for name in _STATISTICS},
        "encoder.weight": autoencoder.encoder_weight.contiguous(),
        "decoder.weight": autoencoder.decoder_weight.contiguous(),
        "activation": "ReLU" if autoencoder.k is None else "TopK",
    }
    if autoencoder.k is not None:
        settings = {"k": autoencoder.k, "postact_fn": "ReLU"}
        state |= {f"activation.{name}": value for name, value in settings.items()}
        state["activation_state_dict"] = settings
    return state


def check(autoencoder: Autoencoder) -> None:
    """Raises SubjectError when the format cannot express the autoencoder."""
    known = {"standard": "none", "topk": "layer_norm"}
    wanted = known.get(autoencoder.architecture)
    if wanted is None:
        raise SubjectError(f"OpenAI's format has no {autoencoder.architecture} autoencoders")
    if autoencoder.normalisation != wanted or autoencoder.centred:
        found = "centring" if autoencoder.centred else autoencoder.normalisation
        raise SubjectError(
            f"OpenAI's format gives {autoencoder.architecture} autoencoders the normalisation "
            f"{wanted}, and this one has {found}"
        )
    if not autoencoder.subtracts_bias or autoencoder.skip is not None:
        raise SubjectError(
            "OpenAI's format always subtracts the decoder bias from the input and lets nothing go "
            "past the latents"
        )


def _check_names(state: Mapping[str, Any]) -> None:
    missing = [name for name in _WEIGHTS if name not in state]
    if missing:
        raise SubjectError(f"it lacks {', '.join(missing)}, so it is not in OpenAI's format")
    unknown = sorted(set(map(str, state)) - {*_WEIGHTS, *_STATISTICS, *_SETTINGS})
    if unknown:
        raise SubjectError(f"it holds {', '.join(unknown)}, which OpenAI's format does not have")


def _check_shapes(state: Mapping[str, Any]) -> int:
    """The number of latents."""
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
    return int(n)


def _k(state: Mapping[str, Any], n: int) -> int | None:
    """k of TopK, None for ReLU. The first files carry no name: they are ReLU."""
    name = state.get("activation", "ReLU")
    if name == "ReLU":
        return None
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
    return k


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
