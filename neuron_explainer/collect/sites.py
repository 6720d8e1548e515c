"""Which sites a user means."""

import re
from collections.abc import Mapping, Sequence

from neuron_explainer.errors import SubjectError

_EXPERT = re.compile(r"\.experts\.\d+\.")
_LAYERS = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*")


def choose(sites: Mapping[str, int], layers: str | None, named: Sequence[str]) -> list[str]:
    """The sites of `layers` (their MLP neurons) and those `named`, in the model's order.

    Raises SubjectError when one does not exist, and lists those that do.
    """
    wanted = [site for layer in _parse_layers(layers, sites) for site in _neurons(layer, sites)]
    wanted += named
    for site in wanted:
        if site not in sites:
            raise SubjectError(f"there is no site '{site}': {describe(sites)}")
    if not wanted:
        raise SubjectError(f"no site was asked for: give --layer or --site; {describe(sites)}")
    return [site for site in sites if site in wanted]


def _neurons(layer: int, sites: Mapping[str, int]) -> list[str]:
    """A layer's MLP neurons, those of all its experts where it has experts."""
    experts = re.compile(rf"blocks\.{layer}\.mlp\.experts\.\d+\.hook_post")
    return list(filter(experts.fullmatch, sites)) or [f"blocks.{layer}.mlp.hook_post"]


def describe(sites: Mapping[str, int]) -> str:
    """The sites that exist, shortly."""
    latents = [site for site in sites if "/" in site]
    plain = [site for site in sites if "/" not in site]
    parts = [*([_of_blocks(plain)] if plain else []), *latents]
    return f"there are {' and '.join(parts) or 'none yet'}"


def _of_blocks(sites: Sequence[str]) -> str:
    layers = sorted({_layer(site) for site in sites})
    hooks = sorted({_EXPERT.sub(".experts.N.", site.split(".", 2)[2]) for site in sites})
    whole = len(layers) == layers[-1] - layers[0] + 1 > 1
    blocks = [f"blocks.{layer}" for layer in ((layers[0], layers[-1]) if whole else layers)]
    return f"{(' to ' if whole else ', ').join(blocks)} with {', '.join(hooks)}"


def _layer(site: str) -> int:
    return int(site.split(".")[1])


def _parse_layers(layers: str | None, sites: Mapping[str, int]) -> list[int]:
    if layers is None:
        return []
    if not _LAYERS.fullmatch(layers):
        raise SubjectError(f"'{layers}' is no list of layers: write for example 0-3,5")
    depth = 1 + max(map(_layer, sites), default=-1)
    chosen: list[int] = []
    for part in layers.split(","):
        first, _, last = part.partition("-")
        begin, end = int(first), int(last or first)
        if end < begin:
            raise SubjectError(f"'{layers}' runs backwards: write {end}-{begin}")
        if end >= depth:
            raise SubjectError(f"there is no layer {max(begin, depth)}: {describe(sites)}")
        chosen.extend(range(begin, end + 1))
    return chosen
