"""SAELens' cfg.json, in its older flat layout and the newer one with a table `metadata`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Normalisation
from neuron_explainer.subjects.sparse_files import CONFIG, Config

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
Kind = Literal["standard", "topk", "jumprelu", "gated"]
_TRANSCODERS: dict[str, tuple[Kind, bool]] = {  # and whether something goes past the latents
    "transcoder": ("standard", False),
    "skip_transcoder": ("standard", True),
    "jumprelu_transcoder": ("jumprelu", False),
    "jumprelu_skip_transcoder": ("jumprelu", True),
}
_CHECKPOINTS = ("batchtopk", "matryoshka_batchtopk")
_AVERAGE = "expected_average_only_in"
_SCALER = "activation_scaler.json"
# where weights centred over the model dimension take the mean off what is read
_CENTRED = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration says, layouts and defaults resolved."""

    path: Path
    kind: Kind
    transcodes: bool
    skip: bool
    d_in: int
    d_out: int
    n: int
    k: int | None
    subtracts_bias: bool
    normalisation: Normalisation
    factor: float  # of the inputs, in front of everything
    rescales: bool  # latents count in units of their decoder row's length
    finetuned: bool
    with_bos: bool | None
    centred: bool
    site: str | None
    site_out: str | None
    notes: tuple[str, ...]


def settings_of(folder: Path) -> Settings:
    """Read `folder`/cfg.json. Raises SubjectError naming the setting that cannot be honoured."""
    config, about = _resolved(folder / CONFIG)
    name = config.text("architecture") or "standard"
    kind, transcodes, skip = _architecture(config, name)
    if kind == "standard" and config.text("activation_fn") == "topk":
        kind = "topk"
    _check_activation(config, kind)
    site = about.text("hook_name")
    _check_site(config, about, site)
    normalisation, factor = _normalisation(config, folder, transcodes)
    d_in = config.number("d_in")
    return Settings(
        config.path,
        kind,
        transcodes,
        skip,
        d_in,
        config.number("d_out") if transcodes else d_in,
        config.number("d_sae"),
        _k(config) if kind == "topk" else None,
        _subtracts_bias(config, transcodes),
        normalisation,
        factor,
        config.flag("rescale_acts_by_decoder_norm"),
        config.flag("finetuning_scaling_factor"),
        about.flag("prepend_bos") if about.values.get("prepend_bos") is not None else None,
        _centred(about, site),
        site,
        about.text("hook_name_out") if transcodes else None,
        tuple(_notes(config, about, site)),
    )


def site_of(folder: Path) -> str | None:
    """The site that `folder`/cfg.json names."""
    return _resolved(folder / CONFIG)[1].text("hook_name")


def _resolved(path: Path) -> tuple[Config, Config]:
    """Settings by their newer names, and what they say about the model."""
    values = {_RENAMED.get(key, key): value for key, value in Config.read(path).values.items()}
    config = Config(path, values)
    return config, config.table("metadata") if "metadata" in values else config


def _architecture(config: Config, name: str) -> tuple[Kind, bool, bool]:
    if name in get_args(Kind):
        return cast(Kind, name), False, False
    if name in _TRANSCODERS:
        kind, skip = _TRANSCODERS[name]
        return kind, True, skip
    if name in _CHECKPOINTS:
        raise SubjectError(
            f"{config.path}: {name} is a training checkpoint: SAELens saves such an autoencoder "
            "for use as jumprelu, with a threshold for each latent"
        )
    known = ", ".join([*get_args(Kind), *_TRANSCODERS])
    raise SubjectError(f"{config.path}: architecture {name!r} is not known; known are {known}")


def _check_activation(config: Config, kind: Kind) -> None:
    known = (None, "relu", "topk") if kind == "topk" else (None, "relu")
    if config.text("activation_fn") not in known:
        raise config.wrong("activation_fn", f"'{known[-1]}', all that {kind} is known with")


def _k(config: Config) -> int:
    """At the top, or in the older layout among the activation function's own settings."""
    within = config.table("activation_fn_kwargs")
    return (within if "k" in within.values else config).number("k")


def _subtracts_bias(config: Config, transcodes: bool) -> bool:
    subtracts = config.flag("apply_b_dec_to_input", default=not transcodes)
    if subtracts and transcodes:
        raise config.wrong("apply_b_dec_to_input", "false, as a transcoder needs")
    return subtracts


def _normalisation(config: Config, folder: Path, transcodes: bool) -> tuple[Normalisation, float]:
    """How each row is normalised, and a factor of all of them."""
    name = config.values.get("normalize_activations")
    if type(name) is bool:  # of the oldest configurations
        name = _AVERAGE if name else "none"
    if name is None or name in get_args(Normalisation):
        return cast(Normalisation, name or "none"), 1.0
    if name != _AVERAGE:
        raise config.wrong("normalize_activations", f"one of {', '.join(get_args(Normalisation))}")
    if transcodes or not (folder / _SCALER).is_file():
        raise SubjectError(
            f"{config.path}: normalize_activations is {_AVERAGE}, whose factor is not in the "
            f"folder: fold it into the weights, or put {_SCALER} with its scaling_factor there"
            if not transcodes
            else f"{config.path}: {_AVERAGE} is not known for transcoders: fold it into the weights"
        )
    scaler = Config.read(folder / _SCALER)
    factor = scaler.values.get("scaling_factor")
    if not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise scaler.wrong("scaling_factor", "a number above 0")
    if scaler.flag("has_whitening"):
        raise scaler.wrong("has_whitening", "false: whitened activations are not supported")
    return "none", float(factor)


def _check_site(config: Config, about: Config, site: str | None) -> None:
    if about.values.get("hook_head_index") is not None:
        raise about.wrong("hook_head_index", "null: autoencoders of one head are not supported")
    reshape = config.text("reshape_activations")
    # the site attn.hook_z is already what reshaping makes of it: the heads side by side
    if reshape not in (None, "none") and not (
        reshape == "hook_z" and (site is None or site.endswith("hook_z"))
    ):
        raise config.wrong("reshape_activations", f"'none', which site {site} needs")
    if site and site.endswith("hook_z") and _kwargs(about).flag("fold_value_biases"):
        raise SubjectError(
            f"{config.path}: it was trained with fold_value_biases, so on another attn.hook_z "
            "than the model's own"
        )


def _centred(about: Config, site: str | None) -> bool:
    centred = _kwargs(about).flag("center_writing_weights")
    return centred and (site is None or site.rpartition(".")[2] in _CENTRED)


def _kwargs(about: Config) -> Config:
    return about.table("model_from_pretrained_kwargs")


def _notes(config: Config, about: Config, site: str | None) -> list[str]:
    notes = []
    if about.flag("prepend_bos", default=True) is False:
        notes.append(
            "the autoencoder was trained on text without a beginning-of-sequence token: --bos none"
        )
    old = "metadata" not in config.values and "model_from_pretrained_kwargs" not in about.values
    residual = (site or "").rpartition(".")[2].startswith("hook_resid")
    if old and residual and about.text("model_name") in ("gpt2", "gpt2-small"):
        notes.append(
            "if the autoencoder is of res-jb or its feature-splitting set, it was trained on "
            f'centred weights: add "model_from_pretrained_kwargs": {{"center_writing_weights": '
            f"true}} to {config.path}"
        )
    return notes
