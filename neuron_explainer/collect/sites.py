"""Which sites a user means."""

import re
from collections.abc import Mapping, Sequence

from neuron_explainer.errors import SubjectError
from neuron_explainer.registry import unknown

_LAYERS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def choose(sites: Mapping[str, int], layers: str | None, named: Sequence[str]) -> list[str]:
    """The sites of `layers` (their MLP neurons) and those `named`, in the model's order.

    Raises SubjectError when one does not exist, and lists those that do.
    """
    wanted = {f"blocks.{layer}.mlp.hook_post" for layer in _parse_layers(layers, sites)}
    for site in named:
        if site not in sites:
            raise SubjectError(f"{unknown('site', site, [])}; {describe(sites)}")
        wanted.add(site)
    if not wanted:
        raise SubjectError(f"no site was asked for: give --layer or --site; {describe(sites)}")
    return [site for site in sites if site in wanted]


def describe(sites: Mapping[str, int]) -> str:
    """The sites that exist, shortly."""
    depth = _depth(sites)
    hooks = sorted({re.sub(r"^blocks\.\d+\.", "", site) for site in sites if "/" not in site})
    latents = [site for site in sites if "/" in site]
    plain = f"there are blocks.0 to blocks.{depth - 1} with {', '.join(hooks)}"
    return f"{plain}, and {', '.join(latents)}" if latents else plain


def _depth(sites: Mapping[str, int]) -> int:
    return 1 + max(int(site.split(".")[1]) for site in sites)


def _parse_layers(layers: str | None, sites: Mapping[str, int]) -> list[int]:
    if layers is None:
        return []
    if not _LAYERS.fullmatch(layers):
        raise SubjectError(f"'{layers}' is no list of layers: write for example 0-3,5")
    chosen: list[int] = []
    for part in layers.split(","):
        first, _, last = part.partition("-")
        chosen.extend(range(int(first), int(last or first) + 1))
    depth = _depth(sites)
    if beyond := [layer for layer in chosen if layer >= depth]:
        raise SubjectError(f"there is no layer {beyond[0]}: the model has 0 to {depth - 1}")
    return chosen
