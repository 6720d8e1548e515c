"""What a training is asked for, checked before anything is loaded."""

from dataclasses import replace
from math import isfinite

import torch

from neuron_explainer.config import TrainSettings
from neuron_explainer.errors import ConfigError, SubjectError
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.subjects.autoencoder import Autoencoder, Normalisation
from neuron_explainer.subjects.sparse_formats import FORMATS
from neuron_explainer.train.objectives import Objective, Relu, TopK

_K = 32
_LR = 5e-4  # with 2¹⁴ latents
_NORMALISATIONS: tuple[Normalisation, ...] = ("none", "layer_norm", "constant_norm_rescale")


def check(settings: TrainSettings) -> TrainSettings:
    """The settings with k or l1 chosen. Raises ConfigError, also for what no format could hold."""
    if settings.k is not None and settings.l1 is not None:
        raise ConfigError("--k is for TopK and --l1 for ReLU: give one of them")
    if settings.l1 is None and settings.k is None:
        settings = replace(settings, k=_K)
    for name, value, least in (("--l1", settings.l1, 0.0), ("--lr", settings.lr, 0.0)):
        if value is not None and not (isfinite(value) and value > least):
            raise ConfigError(f"{name} is {value}: it must be a number above {least:g}")
    if not settings.warm_up + settings.decay <= 1:
        raise ConfigError(
            f"--warm-up {settings.warm_up} and --decay {settings.decay} are shares of the "
            "training: together they must not exceed 1"
        )
    if not settings.site:
        raise ConfigError("no site was named: give --site, such as blocks.6.hook_resid_post")
    if is_pattern(settings.site):
        raise ConfigError(f"{settings.site} holds patterns, not activations: choose another --site")
    _check_format(settings)
    return settings


def complete(settings: TrainSettings, width: int) -> TrainSettings:
    """The settings with what depends on the site's width.

    The learning rate falls with the root of the number of latents, as in Gao et al. 2024, from
    2.5 times as much as theirs: trainings here are short.
    """
    latents = settings.latents or settings.expansion * width
    return replace(settings, latents=latents, lr=settings.lr or _LR / (latents / 2**14) ** 0.5)


def objective(settings: TrainSettings, width: int) -> Objective:
    """The activation function with its loss. Raises ConfigError when there are not k latents."""
    if settings.l1 is not None:
        return Relu(settings.l1)
    latents = settings.latents
    assert settings.k is not None
    assert latents is not None
    if settings.k > latents:
        raise ConfigError(f"--k {settings.k} of {latents} latents: choose fewer, or more --latents")
    return TopK.of(settings.k, width)


def _check_format(settings: TrainSettings) -> None:
    """Ask the format itself, of an autoencoder of that kind, before an hour is spent on it."""
    refusal = _refusal(settings.file_format, settings.k is not None, settings.normalisation)
    if refusal is None:
        return
    kinds = [(top, normed) for top in (True, False) for normed in _NORMALISATIONS]
    others = [
        name
        for name in FORMATS
        if _refusal(name, settings.k is not None, settings.normalisation) is None
    ]
    takes = [_options(*kind) for kind in kinds if _refusal(settings.file_format, *kind) is None]
    raise ConfigError(
        f"{refusal}: choose --format {' or '.join(others)}; --format {settings.file_format} takes "
        f"{', or '.join(takes)}"
    )


def _options(top: bool, normalisation: Normalisation) -> str:
    return f"{'--k' if top else '--l1'} with --normalisation {normalisation}"


def _refusal(name: str, top: bool, normalisation: Normalisation) -> str | None:
    matrix, vector = torch.zeros(1, 1), torch.zeros(1)
    made = Autoencoder(
        encoder_weight=matrix,
        encoder_bias=vector,
        decoder_weight=matrix,
        decoder_bias=vector,
        k=1 if top else None,
        normalisation=normalisation,
    )
    try:
        FORMATS[name].check(made)
    except SubjectError as error:
        return str(error)
    return None
