"""OpenAI's public files over HTTPS, each fetched once, into a folder that `import` reads."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from neuron_explainer.errors import ConfigError, DataError, ServiceError
from neuron_explainer.interchange import tagged_json
from neuron_explainer.interchange.source import HEADS, MLP_NEURONS, site_of
from neuron_explainer.interchange.web import Web, check_url
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.store import replace_file

PUBLIC = "https://openaipublic.blob.core.windows.net/neuron-explainer"
_LATENTS = re.compile(r"autoencoder_latent/(?P<where>[a-z_]+)_(?P<version>v[0-9][a-z0-9_]*)")
_HEADS = "attn_write_norm"  # in the address of attention heads' files
_HOOKS = {
    "mlp_post_act": "mlp.hook_post",
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
}
SUFFIXES = {"records": ".json", "explanations": ".jsonl"}
_FOLDERS = {"records": "collated-activations", "explanations": "explanations"}
_ROOTS = {
    "gpt2-xl": "data",
    "gpt2-small": "gpt2_small_data",
    **{
        f"gpt2-small-{where.replace('_', '-')}-{version}": (
            f"gpt2_small/autoencoder_latent/{where}_{version}"
        )
        for where in ("mlp_post_act", "resid_delta_mlp")
        for version in ("v1", "v4")
    },
    "gpt2-small-attn-write-norm": f"gpt2_small/{_HEADS}",
}
_WITHOUT_EXPLANATIONS = ("autoencoder", _HEADS)
_TOGETHER = 8  # requests


def sites_of(address: str) -> str:
    """What `{layer}` of the files at an address or path is about: MLP neurons, unless it says so.

    The published autoencoders' files lie under `autoencoder_latent/{location}_{version}`, those of
    attention heads under `attn_write_norm`.
    """
    if _HEADS in address.split("/"):
        return HEADS
    match = _LATENTS.search(address)
    hook = _HOOKS.get(match["where"]) if match else None
    return f"blocks.{{layer}}.{hook}/{match['version']}" if match and hook else MLP_NEURONS


def root_of(name: str, what: str) -> str:
    """The address of a published data set by its short name, or `name` where it is an address.

    `what` is records or explanations. Raises ConfigError.
    """
    if what not in _FOLDERS:
        raise ConfigError(f"--what {what}: write records or explanations")
    if "://" in name:
        return check_url(name)
    if name not in _ROOTS:
        raise ConfigError(
            f"'{name}' is no public data set: write an address that begins with https://, or one "
            f"of {', '.join(_ROOTS)}"
        )
    root = _ROOTS[name]
    if what == "explanations" and any(part in root for part in _WITHOUT_EXPLANATIONS):
        raise ConfigError(f"there are no public explanations of {name}, only records")
    folder = f"{_FOLDERS[what]}-by-token-pair" if root.endswith(_HEADS) else _FOLDERS[what]
    return f"{PUBLIC}/{root}/{folder}"


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What is in the folder now."""

    folder: Path
    fetched: int  # files, now
    missing: tuple[Failure, ...]  # what the server does not have


def download(
    web: Web,
    folder: Path,
    what: str,
    layers: Collection[int],
    neurons: Sequence[int],
    name: str,
    advance: Callable[[int], None],
) -> Downloaded:
    """Fetch `{layer}/{neuron}` files that `folder` does not hold yet.

    Each server and path has a folder of its own in `folder`. Raises ServiceError; what was fetched
    before is kept.
    """
    own = folder / hashlib.sha256(web.url.encode()).hexdigest()[:16] / what
    sites = sites_of(web.url)
    missing: list[Failure] = []
    fetched = 0
    with ThreadPoolExecutor(_TOGETHER) as pool:
        # few at a time, so that an error ends the rest soon
        wanted = _wanted(own, SUFFIXES[what], layers, neurons)
        while part := list(islice(wanted, 4 * _TOGETHER)):
            for (layer, neuron, _), there in zip(
                part, pool.map(lambda item: _fetch(web, *item), part), strict=True
            ):
                advance(1)
                fetched += there
                if not there:
                    identity = NeuronId(name, site_of(layer, sites), neuron)
                    message = f"{web.url}/{layer}/{neuron}{SUFFIXES[what]} is not there"
                    missing.append(Failure(identity, "import", "not-published", message))
    return Downloaded(own, fetched, tuple(missing))


def _wanted(
    folder: Path, suffix: str, layers: Collection[int], neurons: Sequence[int]
) -> Iterator[tuple[int, int, Path]]:
    for layer in sorted(layers):
        for neuron in neurons:
            path = folder / str(layer) / f"{neuron}{suffix}"
            if not path.is_file():
                yield layer, neuron, path


def _fetch(web: Web, layer: int, neuron: int, path: Path) -> bool:
    """Whether the server has the file, which is then in its place."""
    reply = web.get(f"{layer}/{neuron}{path.suffix}")
    if reply.status == 404:
        return False
    if reply.status != 200:
        raise ServiceError(
            f"{web.url}/{layer}/{neuron}{path.suffix}: the server answers {reply.says()}; "
            "check --url"
        )
    try:
        tagged_json.parse(reply.content)
    except DataError as error:
        raise ServiceError(
            f"{web.url}/{layer}/{neuron}{path.suffix}: {error}; check --url"
        ) from error
    replace_file(path, reply.content)
    return True
