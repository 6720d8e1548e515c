"""EleutherAI sparsify's folders: cfg.json and sae.safetensors, top-k only.

    encoder.weight (n, d_in)  encoder.bias (n,)  W_dec (n, d_in)  b_dec (d_in,)
    W_skip (d_in, d_in)  where something goes past the latents

The name of the folder is the hook point: `layers.5`, `h.5.mlp`.
"""

import re
from pathlib import Path

import torch

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.sparse_files import CONFIG, Config, read_tensors, write_folder

WEIGHTS = "sae.safetensors"
# what would change the computation: refused rather than ignored
_UNSUPPORTED = ("signed", "embed_skip", "gram_lookup")
_HOOK_POINT = re.compile(r"(?:layers|h)\.(?P<layer>\d+)(?:\.(?P<module>\w+))?")
_OUTPUTS: dict[str | None, str] = {
    None: "hook_resid_post",
    "mlp": "hook_mlp_out",
    **dict.fromkeys(("attn", "self_attn", "attention"), "hook_attn_out"),
}


def site_of(folder: Path) -> str | None:
    """The site that the folder's name means: what its module writes.

    None of a transcoder, which reads the module's input.
    """
    named = _HOOK_POINT.fullmatch(folder.name)
    if named is None or named["module"] not in _OUTPUTS:
        return None
    transcodes = Config.read(folder / CONFIG).flag("transcode")
    return None if transcodes else f"blocks.{named['layer']}.{_OUTPUTS[named['module']]}"


def read(folder: Path, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """Read a folder, to the CPU. Raises SubjectError naming the file, and what in it is wrong."""
    config = Config.read(folder / CONFIG)
    if config.text("activation") not in (None, "topk"):
        raise config.wrong("activation", "'topk', the only one that is known")
    for name in _UNSUPPORTED:
        if config.flag(name):
            raise config.wrong(name, "false: it is not supported")
    d_in, k, transcodes = config.number("d_in"), config.number("k"), config.flag("transcode")
    # 0 latents stand for a multiple of the width
    n = config.values.get("num_latents") or d_in * config.number("expansion_factor")
    if type(n) is not int or not k <= n:
        raise config.wrong("num_latents", f"a whole number of at least k, which is {k}")
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (n, d_in), "encoder.bias": (n,)}
    shapes |= {"W_dec": (n, d_in), "b_dec": (d_in,)}
    if config.flag("skip_connection"):
        shapes["W_skip"] = (d_in, d_in)
    tensors = read_tensors(folder / WEIGHTS, shapes, {}, dtype)
    return Autoencoder(
        encoder_weight=tensors["encoder.weight"],
        encoder_bias=tensors["encoder.bias"],
        decoder_weight=tensors["W_dec"].T.contiguous(),
        decoder_bias=tensors["b_dec"],
        subtracts_bias=not transcodes,
        k=k,
        transcodes=transcodes,
        skip=tensors.get("W_skip"),
        site=site_of(folder),
        format="sparsify",
    )


def write(autoencoder: Autoencoder, folder: Path) -> None:
    """Write a folder. Raises SubjectError when the format cannot express the autoencoder."""
    check(autoencoder)
    tensors = {
        "encoder.weight": autoencoder.encoder_weight,
        "encoder.bias": autoencoder.encoder_bias,
        "W_dec": autoencoder.decoder_weight.T,
        "b_dec": autoencoder.decoder_bias,
    }
    if autoencoder.skip is not None:
        tensors["W_skip"] = autoencoder.skip
    config = {
        "activation": "topk",
        "expansion_factor": 32,  # not read where num_latents is given
        "normalize_decoder": False,  # of training
        "num_latents": autoencoder.n,
        "k": autoencoder.k,
        "multi_topk": False,
        "skip_connection": autoencoder.skip is not None,
        "transcode": autoencoder.transcodes,
        "d_in": autoencoder.d_in,
    }
    write_folder(folder, WEIGHTS, tensors, config)


def check(autoencoder: Autoencoder) -> None:
    """Raises SubjectError when the format cannot express the autoencoder."""
    if autoencoder.k is None:
        raise SubjectError(f"sparsify's format has no {autoencoder.architecture}, only topk")
    if autoencoder.normalisation != "none" or autoencoder.centred:
        found = "centring" if autoencoder.centred else autoencoder.normalisation
        raise SubjectError(f"sparsify's format has no normalisation, and this one has {found}")
    if autoencoder.subtracts_bias == autoencoder.transcodes:
        raise SubjectError(
            "sparsify's format subtracts the decoder bias from the input of autoencoders, and of "
            "no transcoders"
        )
    if autoencoder.d_in != autoencoder.d_out:
        raise SubjectError("sparsify's format has one width for what is read and reconstructed")
