"""SAELens and sparsify folders as those libraries write them, and what they compute, by formula."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

SITE = "blocks.1.hook_resid_pre"


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Numbers of a normal distribution, in the order of the names."""
    chance = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=chance) for name, shape in shapes.items()}


def saelens_tensors(kind: str, d_in: int, n: int, d_out: int | None = None) -> dict[str, Tensor]:
    """Weights of an architecture, by SAELens' names."""
    d_out = d_out or d_in
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, n), "W_dec": (n, d_out)}
    shapes["b_dec"] = (d_out,)
    biases = ("b_gate", "b_mag", "r_mag") if kind == "gated" else ("b_enc",)
    shapes |= dict.fromkeys(biases, (n,))
    if "jumprelu" in kind:
        shapes["threshold"] = (n,)
    if "skip" in kind:
        shapes["W_skip"] = (d_out, d_in)
    return random_tensors(shapes)


def nested_config(kind: str, d_in: int, n: int, **more: Any) -> dict[str, Any]:
    """A configuration of SAELens 6."""
    about = {"sae_lens_version": "6.5.1", "model_name": "tiny", "hook_name": SITE}
    about |= {"hook_head_index": None, "prepend_bos": True} | more.pop("metadata", {})
    values = {"d_in": d_in, "d_sae": n, "dtype": "float32", "device": "cuda"}
    values |= {"apply_b_dec_to_input": "transcoder" not in kind, "normalize_activations": "none"}
    values |= {"reshape_activations": "none", "metadata": about, "architecture": kind}
    return values | more


def flat_config(kind: str, d_in: int, n: int, **more: Any) -> dict[str, Any]:
    """A configuration of SAELens 3 to 5."""
    values = {"architecture": kind, "d_in": d_in, "d_sae": n, "dtype": "torch.float32"}
    values |= {"activation_fn_str": "relu", "activation_fn_kwargs": {}, "hook_name": SITE}
    values |= {"apply_b_dec_to_input": True, "finetuning_scaling_factor": False}
    values |= {"hook_layer": 1, "hook_head_index": None, "model_name": "tiny", "prepend_bos": True}
    values |= {"normalize_activations": "none", "model_from_pretrained_kwargs": {}}
    return values | more


def write_saelens(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """A folder as SAELens' `save_model` leaves it."""
    return _written(folder, "sae_weights.safetensors", config, tensors)


def write_sparsify(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """A folder as sparsify's `save_to_disk` leaves it."""
    return _written(folder, "sae.safetensors", config, tensors)


def _written(folder: Path, name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def saelens_encode(kind: str, t: dict[str, Tensor], x: Tensor, k: int = 0) -> Tensor:
    """What SAELens computes of inputs that are ready: normalised, and the bias taken off."""
    if kind == "gated":
        magnitudes = (x @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]).relu()
        return ((x @ t["W_enc"] + t["b_gate"]) > 0).to(x) * magnitudes
    raw = x @ t["W_enc"] + t["b_enc"]
    if kind == "topk":
        smallest = raw.sort(dim=-1, descending=True).values[:, k - 1 : k]
        return raw.relu() * (raw >= smallest)
    if "jumprelu" in kind:
        return raw.relu() * (raw > t["threshold"])
    return raw.relu()
