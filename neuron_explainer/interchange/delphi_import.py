"""Delphi's latent caches and explanations, taken into a workspace."""

import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer import schemas
from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.interchange import tagged_json
from neuron_explainer.interchange.delphi_cache import Hookpoint, site_of
from neuron_explainer.interchange.delphi_records import DelphiRows, Latent, Sequences
from neuron_explainer.interchange.import_job import Fault, ImportResult, Job, Place, check_name
from neuron_explainer.interchange.openai_results import IMPORTED
from neuron_explainer.interchange.source import LARGEST_NEURON, check_site, cut, file_digest
from neuron_explainer.record_set import SEQUENCES
from neuron_explainer.store import SHARD_SIZE, Folder, Shard, replacing
from neuron_explainer.subjects.base import Tokenizer
from neuron_explainer.tokens import readable
from neuron_explainer.workspace import Workspace

_COMMAND = "neuron-explainer import delphi"
_TEXT = re.compile(r"(?P<hookpoint>.+)_latent(?P<latent>0|[1-9][0-9]{0,7})\.txt")
_LARGEST_TEXT = 1 << 20  # bytes
_BLOCK = 4096  # sequences


@dataclass
class Caches:
    """The hookpoints of a source by site, with their explanations."""

    sites: dict[str, Hookpoint]
    texts: dict[str, dict[int, Path]]  # by hookpoint and latent
    ignored: tuple[str, ...]
    chosen: Collection[int] | None
    _loaded: tuple[str, int, dict[int, tuple[NDArray[Any], ...]]] | None = field(default=None)

    def neurons(self, site: str) -> list[int]:
        """The latents of a site, ascending: those in its files and those that are explained."""
        hookpoint = self.sites[site]
        known = {*hookpoint.neurons(), *self.texts.get(hookpoint.name, {})}
        return sorted(known if self.chosen is None else known & set(self.chosen))

    def shards(self, site: str) -> Iterator[tuple[Shard, list[int]]]:
        """The shards that hold any latent, and the latents in them."""
        return cut(self.neurons(site))

    def read(self, subject: str, site: str, neuron: int) -> Latent:
        """What there is of a latent."""
        del subject
        hookpoint, number = self.sites[site], neuron // SHARD_SIZE
        if self._loaded is None or self._loaded[:2] != (site, number):
            self._loaded = None  # free it first
            self._loaded = (site, number, hookpoint.shard(number))
        cached = any(file.start <= neuron <= file.end for file in hookpoint.files)
        found = self._loaded[2].get(neuron)
        rows: NDArray[np.float64] | None = None
        if found is not None:
            rows = np.column_stack([column.astype(np.float64) for column in found])
        elif cached:
            rows = np.zeros((0, 3))
        path = self.texts.get(hookpoint.name, {}).get(neuron)
        if path is None:
            return Latent(rows, None)
        try:
            return Latent(rows, _text(path))
        except DataError as error:
            fault: Fault = ("malformed", f"{path.name}: {error}")
            return Latent(rows, None, (fault,))

    def digest(self) -> str:
        """SHA-256 over all files and what is asked of them."""
        chosen = None if self.chosen is None else sorted(self.chosen)
        whole = hashlib.sha256(repr(chosen).encode())
        for site, hookpoint in self.sites.items():
            paths = [file.path for file in hookpoint.files]
            paths += [path for _, path in sorted(self.texts.get(hookpoint.name, {}).items())]
            for path in paths:
                whole.update(f"{site} {path.name} {file_digest(path)}\n".encode())
        return whole.hexdigest()

    def tokens(self) -> NDArray[np.int32]:
        """The token sequences, the same for all hookpoints. Raises DataError."""
        found = [item.tokens for item in self.sites.values() if item.tokens is not None]
        if not found:
            raise DataError(
                "field tokens: missing in all files: cache the activations again with the tokens"
            )
        if any(not np.array_equal(found[0], other) for other in found[1:]):
            raise DataError("field tokens: the hookpoints have other sequences: import them alone")
        return found[0]


def import_source(
    workspace: Workspace,
    source: Path,
    name: str,
    tokenizer: Tokenizer,
    neurons: Collection[int] | None = None,
    site: str | None = None,
    bos_first: bool = False,
) -> ImportResult:
    """A run's folder of Delphi's, or one hookpoint's, as record sets and, if explained, a run.

    `site` names the site of a single hookpoint; `bos_first`: the first token of a sequence is shown
    and not scored. Raises DataError, ConfigError, RunMismatch.
    """
    home = workspace.data / check_name(name)
    caches = _found(source, site, neurons)
    if not any(map(caches.neurons, caches.sites)):
        raise DataError(f"{source} holds none of the neurons asked for")
    sequences = _sequences(caches.tokens(), tokenizer, bos_first)
    run = Folder(workspace.explanations / name, _COMMAND)
    with_run = bool(caches.texts)
    about = {"subject": name, "run": name, "explainer": IMPORTED}
    places = {}
    for where, hookpoint in caches.sites.items():
        config = {"site": where, "random": "uniform", "hookpoint": hookpoint.name}
        width = max(hookpoint.width, max(caches.neurons(where), default=0) + 1)
        places[where] = {
            "data": Place(Folder(home / where, _COMMAND), config, "", {"width": width})
        }
        if with_run:
            places[where]["explanations"] = Place(run, about, f"{where}/")
    vocabulary = hashlib.sha256(b"\0".join(tokenizer.vocabulary)).hexdigest()
    job: Job[Latent] = Job(
        name,
        caches,
        {"format": "delphi", "sha256": caches.digest(), "vocabulary": vocabulary},
        Place(Folder(home / "corpus", _COMMAND), {"excludes_first": bos_first}),
        places,
        lambda opened: DelphiRows(opened, with_run),
        "data",
        lambda folder: _writing(folder, sequences, tokenizer),
    )
    return job.run([home, *([run.path] if with_run else [])])


def _found(source: Path, site: str | None, neurons: Collection[int] | None) -> Caches:
    if not source.is_dir():
        raise DataError(f"{source} does not exist; give a folder with latents/, or a hookpoint's")
    root = source / "latents" if (source / "latents").is_dir() else source
    folders = [
        entry
        for entry in ([root] if _is_hookpoint(root) else sorted(root.iterdir()))
        if entry.is_dir() and not entry.is_symlink() and _is_hookpoint(entry)
    ]
    if not folders:
        raise DataError(f"{source} holds no HOOKPOINT/START_END.safetensors")
    if site is not None and len(folders) > 1:
        raise ConfigError(f"{source} holds {len(folders)} hookpoints: --site is for one of them")
    hookpoints = [Hookpoint.at(folder) for folder in folders]
    named = {site_of(item.name) if site is None else check_site(site): item for item in hookpoints}
    if len(named) < len(hookpoints):
        raise DataError(f"{source}: two hookpoints are of one site: import them alone")
    texts, ignored = _texts(source / "explanations", {item.name for item in hookpoints})
    ignored += [f"{entry.name}/" for entry in [source / "scores"] if entry.is_dir()]
    return Caches(named, texts, tuple(ignored), neurons)


def _is_hookpoint(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _texts(folder: Path, hookpoints: set[str]) -> tuple[dict[str, dict[int, Path]], list[str]]:
    texts: dict[str, dict[int, Path]] = {}
    ignored = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _TEXT.fullmatch(path.name)
        known = match is not None and match["hookpoint"] in hookpoints
        plain = path.is_file() and not path.is_symlink()
        if match is None or not known or not plain or int(match["latent"]) > LARGEST_NEURON:
            ignored.append(readable(path.name.encode("utf-8", "surrogateescape")))
        else:
            texts.setdefault(match["hookpoint"], {})[int(match["latent"])] = path
    return texts, ignored


def _text(path: Path) -> str:
    """An explanation: a JSON string. Raises DataError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_TEXT + 1)
    except OSError as error:
        raise DataError("it cannot be read") from error
    if len(content) > _LARGEST_TEXT:
        raise DataError("over 1 MB")
    text = tagged_json.parse(content)
    if not isinstance(text, str):
        raise DataError("it is no JSON string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError("it holds half a surrogate pair, which is no text") from error
    return text


def _sequences(tokens: NDArray[np.int32], tokenizer: Tokenizer, bos_first: bool) -> Sequences:
    """Which positions count. Raises DataError when the tokenizer is another one."""
    size = len(tokenizer.vocabulary)
    if tokens.size and tokens.max() >= size:
        raise DataError(
            f"field tokens: token {tokens.max()}, the tokenizer has {size}: give the model's"
        )
    scored = ~tokenizer.special[tokens]
    if bos_first:
        scored[:, 0] = False
    return Sequences(tokens, scored)


@contextmanager
def _writing(folder: Folder, sequences: Sequences, tokenizer: Tokenizer) -> Iterator[Sequences]:
    """Write the whole corpus, which is complete once the block ends well."""
    tokens = sequences.tokens
    with (
        replacing(folder.path / SEQUENCES) as file,
        pa.ipc.new_file(file, schemas.SEQUENCES) as output,
    ):
        for first in range(0, len(tokens), _BLOCK):
            block = tokens[first : first + _BLOCK]
            offsets = np.arange(len(block) + 1, dtype=np.int32) * tokens.shape[1]
            columns = [
                pa.array(np.arange(first, first + len(block), dtype=np.int32)),
                pa.array(np.zeros(len(block), np.int32)),
                pa.ListArray.from_arrays(offsets, block.ravel()),
            ]
            output.write_batch(pa.RecordBatch.from_arrays(columns, schema=schemas.SEQUENCES))
    size = len(tokenizer.vocabulary)
    counts = np.bincount(tokens.ravel(), minlength=size)
    columns = [
        pa.array(np.arange(size, dtype=np.int32)),
        pa.array(list(tokenizer.vocabulary), pa.binary()),
        pa.array(tokenizer.special[:size]),
        pa.array(counts.astype(np.int64)),
    ]
    folder.register(SEQUENCES, len(tokens))
    folder.write({"vocabulary.parquet": pa.table(columns, schema=schemas.VOCABULARY)})
    yield sequences
    folder.update({"complete": True, "excerpts": len(tokens), "tokens": int(tokens.size)})
