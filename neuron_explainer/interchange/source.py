"""A folder of `{layer}/{neuron}{suffix}` files that somebody else made, read with suspicion.

Only plain files of such names count: links are not followed, other names are listed as ignored, and
a file that is too large or cannot be read costs one neuron, never the import.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from neuron_explainer.errors import ConfigError, DataError, NeuronFailure
from neuron_explainer.head_pairs import PATTERN
from neuron_explainer.records import Failure, NeuronId
from neuron_explainer.store import SHARD_SIZE, Shard
from neuron_explainer.tokens import readable

Content = TypeVar("Content")

LARGEST_FILE = 32 << 20  # bytes; the published ones have at most some 2 MB
LARGEST_LAYER = 9_999
LARGEST_NEURON = (1 << 24) - 1  # the widest autoencoder published
_NUMBER = re.compile(r"0|[1-9][0-9]{0,7}")
_CHUNK = 1 << 20


MLP_NEURONS = "blocks.{layer}.mlp.hook_post"
HEADS = f"blocks.{{layer}}.{PATTERN}"
_SITES = re.compile(r"blocks\.\{layer\}(\.[a-z_0-9]+)+(/(?!\.)[A-Za-z0-9._-]+)?")
_SITE = re.compile(r"blocks\.[0-9]{1,4}(\.[a-z_0-9]+)+(/(?!\.)[A-Za-z0-9._-]+)?")


def check_sites(sites: str) -> str:
    """`sites` names the site of each `{layer}`. Raises ConfigError when it does not."""
    if not _SITES.fullmatch(sites):
        raise ConfigError(
            f"'{sites}' does not name sites: write {{layer}} for the layer, such as {MLP_NEURONS}"
        )
    return sites


def check_site(site: str) -> str:
    """`site`, which becomes the name of folders. Raises ConfigError."""
    if not _SITE.fullmatch(site):
        raise ConfigError(f"'{site}' is no site: write it such as blocks.6.hook_resid_post/res-jb")
    return site


def site_of(layer: int, sites: str = MLP_NEURONS) -> str:
    """The site of a layer, by default its MLP neurons."""
    return sites.format(layer=layer)


def layer_of(site: str) -> int:
    """The layer that a site is in."""
    return int(site.split(".")[1])


def check_identity(name: str, found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raises DataError when a file is about another (layer, neuron) than its name says."""
    if found != expected:
        raise DataError(
            f"{name} is malformed: field neuron_id: it is neuron {found[1]} of layer {found[0]}"
        )


@dataclass(frozen=True)
class Source(Generic[Content]):
    """The files to import. `load` makes one file's content, or raises DataError."""

    files: dict[str, dict[int, Path]]  # site → neuron → file, both ascending
    ignored: tuple[str, ...]  # names that are no {layer}/{neuron}, and links
    load: Callable[[bytes, str, int, int], Content]  # data, how to call it, layer, neuron
    single: bool  # one file was asked for: what is wrong with it is an error

    def width(self, site: str) -> int:
        """One more than the largest neuron: how many there really are is not in the files."""
        return max(self.files[site]) + 1

    def shards(self, site: str) -> Iterator[tuple[Shard, list[int]]]:
        """The shards of a site that hold any neuron, and the neurons in them."""
        return cut(self.files[site])

    def read(self, subject: str, site: str, neuron: int) -> Content | Failure:
        """The content of one file, or why there is none. Raises DataError for a single file."""
        path, layer = self.files[site][neuron], layer_of(site)
        # without the folder: what is stored must not depend on where the files lay
        name = str(path) if self.single else f"{layer}/{path.name}"
        try:
            return self.load(_read(path, name, self.single), name, layer, neuron)
        except NeuronFailure as failure:
            cause, message = failure.cause, str(failure)
        except DataError as error:
            cause, message = "malformed", str(error)
        if self.single:
            raise DataError(message)
        return Failure(NeuronId(subject, site, neuron), "import", cause, message)

    def digest(self) -> str:
        """SHA-256 over all files: what is imported under a name is what was before."""
        whole = hashlib.sha256()
        for site, files in self.files.items():
            for neuron, path in files.items():
                whole.update(f"{layer_of(site)}/{neuron} {file_digest(path)}\n".encode())
        return whole.hexdigest()

    @property
    def count(self) -> int:
        """How many files there are."""
        return sum(map(len, self.files.values()))


def cut(neurons: Collection[int]) -> Iterator[tuple[Shard, list[int]]]:
    """The shards that hold any of `neurons`, which ascend, and the neurons in them."""
    stop = max(neurons) + 1
    for number, members in groupby(neurons, lambda neuron: neuron // SHARD_SIZE):
        start = number * SHARD_SIZE
        yield Shard(start, min(start + SHARD_SIZE, stop)), list(members)


def open_source(
    path: Path,
    suffix: str,
    load: Callable[[bytes, str, int, int], Content],
    identify: Callable[[bytes, str], tuple[int, int]],
    neurons: Collection[int] | None = None,
    sites: str = MLP_NEURONS,
    layers: Collection[int] | None = None,
) -> Source[Content]:
    """The files at `path`, a folder of `{layer}/{neuron}{suffix}` or one such file.

    `identify` says the layer and neuron that a single file is about; its name does not matter.
    `neurons` of `layers` are the ones to import, by default all; `sites` says what they are.
    Raises DataError when there are none.
    """
    if path.is_file():
        layer, neuron = _identity(identify, path)
        return Source({site_of(layer, sites): {neuron: path}}, (), load, single=True)
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a file or a folder of LAYER/NEURON{suffix}")
    files, ignored = _find(path, suffix)
    chosen = {
        layer: {neuron: found[neuron] for neuron in sorted(found) if _chosen(neuron, neurons)}
        for layer, found in sorted(files.items())
        if layers is None or layer in layers
    }
    named = {site_of(layer, sites): found for layer, found in chosen.items() if found}
    if not named:
        which = "" if neurons is None else " of the neurons asked for"
        raise DataError(f"{path} holds no LAYER/NEURON{suffix}{which}, such as 0/12{suffix}")
    return Source(named, tuple(sorted(ignored)), load, single=False)


def suffixes(path: Path) -> set[str]:
    """The suffixes of what `path` holds for some neuron, or of `path` when it is a file."""
    if path.is_file():
        return {path.suffix}
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a file or a folder")
    return {
        Path(inner.name).suffix
        for entry in _entries(path)
        if _number(entry.name, LARGEST_LAYER) is not None and entry.is_dir(follow_symlinks=False)
        for inner in _entries(Path(entry.path))
        if _number(Path(inner.name).stem, LARGEST_NEURON) is not None
    }


def _chosen(neuron: int, neurons: Collection[int] | None) -> bool:
    return neurons is None or neuron in neurons


def _identity(identify: Callable[[bytes, str], tuple[int, int]], path: Path) -> tuple[int, int]:
    try:
        layer, neuron = identify(_read(path, str(path), follow=True), str(path))
    except NeuronFailure as failure:
        raise DataError(str(failure)) from failure
    if layer > LARGEST_LAYER or neuron > LARGEST_NEURON:
        raise DataError(f"{path} is about neuron {neuron} of layer {layer}: there is none such")
    return layer, neuron


def _find(folder: Path, suffix: str) -> tuple[dict[int, dict[int, Path]], list[str]]:
    files: dict[int, dict[int, Path]] = {}
    ignored = []
    for entry in _entries(folder):
        layer = _number(entry.name, LARGEST_LAYER)
        if layer is None or not entry.is_dir(follow_symlinks=False):
            ignored.append(_printable(entry.name))
            continue
        files[layer] = {}
        for inner in _entries(Path(entry.path)):
            stem = inner.name.removesuffix(suffix)
            neuron = None if stem == inner.name else _number(stem, LARGEST_NEURON)
            if neuron is None or not inner.is_file(follow_symlinks=False):
                ignored.append(f"{layer}/{_printable(inner.name)}")
            else:
                files[layer][neuron] = Path(inner.path)
    return files, ignored


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"cannot read {folder}: {_reason(error)}") from error


def _number(text: str, largest: int) -> int | None:
    number = int(text) if _NUMBER.fullmatch(text) else None
    return None if number is None or number > largest else number


def _printable(name: str) -> str:
    return readable(os.fsencode(name))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _read(path: Path, name: str, follow: bool) -> bytes:
    """The bytes of a plain file. Raises NeuronFailure."""
    try:
        with _opened(path, follow) as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                raise NeuronFailure(
                    "too-large",
                    f"{name} has {size >> 20} MB; at most {LARGEST_FILE >> 20} are read",
                )
            return file.read(LARGEST_FILE)
    except OSError as error:
        raise NeuronFailure("unreadable", f"cannot read {name}: {_reason(error)}") from error


def _opened(path: Path, follow: bool) -> BinaryIO:
    # a pipe or a link put there since the folder was listed neither blocks nor leads elsewhere
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    return os.fdopen(descriptor, "rb")


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of what cannot be read, that of nothing."""
    content = hashlib.sha256()
    with suppress(OSError), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > LARGEST_FILE:
            return "too large"
        while chunk := file.read(_CHUNK):
            content.update(chunk)
    return content.hexdigest()
