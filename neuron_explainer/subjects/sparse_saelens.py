"""SAELens' folders: cfg.json and sae_weights.safetensors.

W_enc (d_in, n)  W_dec (n, d_out)  b_dec (d_out,)   all
b_enc (n,)                                          all but gated
threshold (n,)                                      jumprelu, and batchtopk as it is saved
b_gate, b_mag, r_mag (n,)                           gated
W_skip (d_out, d_in)                                skip transcoders
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder, Magnitude
from neuron_explainer.subjects.sparse_files import read_tensors, write_folder
from neuron_explainer.subjects.sparse_saelens_config import Settings, settings_of

WEIGHTS = "sae_weights.safetensors"
# by two names in two versions; a fine-tuned factor of each latent, or ones
_FINETUNED = ("scaling_factor", "finetuning_scaling_factor")
_LAYOUT = "6.0.0"  # the version of SAELens that brought the newer layout


def read(folder: Path, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """Read a folder, to the CPU. Raises SubjectError naming the file, and what in it is wrong."""
    settings = settings_of(folder)
    tensors = read_tensors(folder / WEIGHTS, *_shapes(settings), dtype)
    if settings.k is not None and settings.k > settings.n:
        raise SubjectError(f"{settings.path}: k is {settings.k}, of {settings.n} latents")
    _fold(settings, tensors)
    bias = "b_gate" if settings.kind == "gated" else "b_enc"
    gated = settings.kind == "gated"
    return Autoencoder(
        encoder_weight=tensors["W_enc"].T.contiguous(),
        encoder_bias=tensors[bias],
        decoder_weight=tensors["W_dec"].T.contiguous(),
        decoder_bias=tensors["b_dec"],
        subtracts_bias=settings.subtracts_bias,
        k=settings.k,
        threshold=tensors.get("threshold"),
        magnitude=Magnitude(tensors["r_mag"], tensors["b_mag"]) if gated else None,
        normalisation=settings.normalisation,
        with_bos=settings.with_bos,
        centred=settings.centred,
        transcodes=settings.transcodes,
        skip=tensors.get("W_skip"),
        site=settings.site,
        site_out=settings.site_out,
        format="saelens",
        notes=settings.notes,
    )


def write(autoencoder: Autoencoder, folder: Path) -> None:
    """Write a folder in the newer layout.

    Raises SubjectError when the format cannot express the autoencoder.
    """
    check(autoencoder)
    kind = autoencoder.architecture
    name = {"standard transcoder": "transcoder", "standard skip transcoder": "skip_transcoder"}.get(
        kind, kind.replace(" ", "_")
    )
    write_folder(folder, WEIGHTS, _tensors(autoencoder), _config(autoencoder, name))


def check(autoencoder: Autoencoder) -> None:
    """Raises SubjectError when the format cannot express the autoencoder."""
    if autoencoder.transcodes and (autoencoder.k or autoencoder.magnitude):
        raise SubjectError(f"SAELens' format has no {autoencoder.architecture}")
    if autoencoder.skip is not None and not autoencoder.transcodes:
        raise SubjectError("SAELens' format lets something go past the latents of transcoders only")
    if autoencoder.subtracts_bias and autoencoder.transcodes:
        raise SubjectError("SAELens' format subtracts no decoder bias from a transcoder's input")


def _shapes(
    settings: Settings,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """What the file must hold, and what it may."""
    d_in, d_out, n = settings.d_in, settings.d_out, settings.n
    needed: dict[str, tuple[int, ...]] = {"W_enc": (d_in, n), "W_dec": (n, d_out)}
    needed["b_dec"] = (d_out,)
    biases = ("b_gate", "b_mag", "r_mag") if settings.kind == "gated" else ("b_enc",)
    needed |= dict.fromkeys(biases, (n,))
    if settings.kind == "jumprelu":
        needed["threshold"] = (n,)
    if settings.skip:
        needed["W_skip"] = (d_out, d_in)
    return needed, dict.fromkeys(_FINETUNED, (n,))


def _fold(settings: Settings, tensors: dict[str, Tensor]) -> None:
    """What SAELens computes at run time, put into the weights: the same function of the input."""
    for name in _FINETUNED:
        if name in tensors and not bool((tensors[name] == 1).all()):
            if not settings.finetuned:
                raise SubjectError(
                    f"{settings.path.with_name(WEIGHTS)}: {name} is not all ones, but "
                    "finetuning_scaling_factor is false"
                )
            tensors["W_dec"] = tensors["W_dec"] * tensors[name][:, None]
    if settings.factor != 1:
        tensors["W_enc"] = tensors["W_enc"] * settings.factor
        tensors["W_dec"] = tensors["W_dec"] / settings.factor
        tensors["b_dec"] = tensors["b_dec"] / settings.factor
    if settings.rescales:
        if settings.kind != "topk":
            raise SubjectError(
                f"{settings.path}: rescale_acts_by_decoder_norm is known for topk, "
                f"not for {settings.kind}"
            )
        lengths = tensors["W_dec"].norm(dim=-1)
        tensors["W_enc"] = tensors["W_enc"] * lengths
        tensors["b_enc"] = tensors["b_enc"] * lengths
        tensors["W_dec"] = tensors["W_dec"] / torch.where(lengths > 0, lengths, 1)[:, None]


def _tensors(autoencoder: Autoencoder) -> dict[str, Tensor]:
    gate = autoencoder.magnitude
    biases = {"b_enc": autoencoder.encoder_bias}
    if gate is not None:
        biases = {"b_gate": autoencoder.encoder_bias, "b_mag": gate.bias, "r_mag": gate.log_scale}
    optional = {"threshold": autoencoder.threshold, "W_skip": autoencoder.skip}
    return {
        "W_enc": autoencoder.encoder_weight.T,
        "W_dec": autoencoder.decoder_weight.T,
        "b_dec": autoencoder.decoder_bias,
        **biases,
        **{name: tensor for name, tensor in optional.items() if tensor is not None},
    }


def _config(autoencoder: Autoencoder, architecture: str) -> dict[str, Any]:
    about: dict[str, Any] = {"sae_lens_version": _LAYOUT}
    sites = {"hook_name": autoencoder.site, "hook_name_out": autoencoder.site_out}
    about |= {name: site for name, site in sites.items() if site is not None}
    if autoencoder.with_bos is not None:
        about["prepend_bos"] = autoencoder.with_bos
    if autoencoder.centred:
        about["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    reshaped = (autoencoder.site or "").endswith("hook_z")
    config = {
        "architecture": architecture,
        "d_in": autoencoder.d_in,
        "d_sae": autoencoder.n,
        "dtype": str(autoencoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": autoencoder.subtracts_bias,
        "normalize_activations": autoencoder.normalisation,
        "reshape_activations": "hook_z" if reshaped else "none",
        "metadata": about,
    }
    if autoencoder.k is not None:
        config |= {"k": autoencoder.k, "rescale_acts_by_decoder_norm": False}
    return config | ({"d_out": autoencoder.d_out} if autoencoder.transcodes else {})
