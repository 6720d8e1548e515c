"""The formats of autoencoders, told apart by what a path holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects import (
    sparse_openai,
    sparse_saelens,
    sparse_saelens_config,
    sparse_sparsify,
)
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.sparse_files import TRAINING
from neuron_explainer.subjects.sparse_hub import located

# trained on weights centred over the model dimension, which their cfg.json does not say
CENTRED = (
    "jbloom/GPT2-Small-SAEs-Reformatted",
    "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
)


@dataclass(frozen=True, slots=True)
class Format:
    """How one published format is read and written. `weights` is what its folders hold.

    `check` refuses what `write` cannot express.
    """

    weights: str | None
    site_of: Callable[[Path], str | None]
    read: Callable[[Path, torch.dtype], Autoencoder]
    write: Callable[[Autoencoder, Path], None]
    check: Callable[[Autoencoder], None]


FORMATS: Mapping[str, Format] = {
    "openai": Format(
        None,
        sparse_openai.site_of,
        sparse_openai.read,
        sparse_openai.write,
        sparse_openai.check,
    ),
    "saelens": Format(
        sparse_saelens.WEIGHTS,
        sparse_saelens_config.site_of,
        sparse_saelens.read,
        sparse_saelens.write,
        sparse_saelens.check,
    ),
    "sparsify": Format(
        sparse_sparsify.WEIGHTS,
        sparse_sparsify.site_of,
        sparse_sparsify.read,
        sparse_sparsify.write,
        sparse_sparsify.check,
    ),
}


def load(source: str, dtype: torch.dtype = torch.float32) -> Autoencoder:
    """The autoencoder in a file or folder, or of that hub id, on the CPU.

    Raises SubjectError naming the file, and what in it is wrong.
    """
    path = located(source)
    loaded = FORMATS[format_of(path)].read(path, dtype)
    if source.startswith(tuple(f"{name}/" for name in CENTRED)):
        return replace(loaded, centred=True, notes=())
    return loaded


def save(autoencoder: Autoencoder, path: Path, name: str) -> None:
    """Write format `name`: a file of OpenAI's, a folder of the others'.

    Raises SubjectError when the format is not known or cannot express the autoencoder.
    """
    format_named(name).write(autoencoder, path)


def format_named(name: str) -> Format:
    """The format of that name. Raises SubjectError when it is not known."""
    if name not in FORMATS:
        raise SubjectError(f"no format {name} of autoencoders; known are {', '.join(FORMATS)}")
    return FORMATS[name]


def site_of(source: str, given: str | None) -> str:
    """The site that an autoencoder reads: the one `given`, or what its own files say.

    Raises SubjectError when neither names one, or they differ.
    """
    path = located(source)
    named = FORMATS[format_of(path)].site_of(path)
    if given is None and named is None:
        raise SubjectError(f"{source} does not say what it reads: --sae needs --site with it")
    if given is not None and named is not None and given != named:
        raise SubjectError(f"{source} was trained on {named}, not on {given}: leave --site away")
    site = named if given is None else given
    assert site is not None
    return site


def files_of(source: str) -> list[Path]:
    """The files that make an autoencoder what it is, in a fixed order."""
    path = located(source)
    if path.is_file():
        return [path]
    files = sorted([*path.glob("*.json"), *path.glob("*.safetensors")])
    return [file for file in files if file.name != TRAINING]


def format_of(path: Path) -> str:
    """The name of the format in which `path` holds an autoencoder. Raises SubjectError."""
    if path.is_file():
        if path.suffix == ".safetensors":
            raise SubjectError(f"{path} is a part of an autoencoder: name its folder")
        return "openai"
    found = [name for name, known in FORMATS.items() if known.weights and _holds(path, known)]
    if len(found) != 1:
        weights = " or ".join(known.weights for known in FORMATS.values() if known.weights)
        held = "more than one of" if found else "no"
        raise SubjectError(f"the folder {path} holds {held} {weights}: it is no autoencoder's")
    return found[0]


def _holds(path: Path, known: Format) -> bool:
    return known.weights is not None and (path / known.weights).is_file()
