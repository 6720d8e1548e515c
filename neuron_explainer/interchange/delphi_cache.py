"""Delphi's caches of latent activations: sparse triples in safetensors, read in bounded memory.

`<hookpoint>/{start}_{end}.safetensors` holds `locations` (rows, 3): sequence, position, latent less
start, in uint16 or uint32; `activations` (rows,) float16; and mostly `tokens` (sequences, length).
`<hookpoint>/config.json` lies beside.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.errors import DataError
from neuron_explainer.store import SHARD_SIZE
from neuron_explainer.tokens import readable

MOST_ROWS = 1 << 24  # of one shard's neurons
MOST_LATENTS = 1 << 20
MOST_TOKENS = 1 << 27  # in all sequences
LONGEST = 16_384  # tokens in a sequence
_CHUNK = 1 << 20  # rows
_FILE = re.compile(r"(?P<start>0|[1-9][0-9]{0,7})_(?P<end>0|[1-9][0-9]{0,7})\.safetensors")
_INTEGERS = ("U8", "U16", "U32", "I32", "I64", "U64", "I16")
_FLOATS = ("F16", "F32")

_BLOCK = r"(?:[a-z_]+\.)*(?:layers|h|blocks)\.(?P<layer>0|[1-9][0-9]{0,3})"
_HOOKPOINT = re.compile(_BLOCK + r"(?P<part>(?:\.[a-z_0-9]+)*)")
_HOOKS = {
    "": "hook_resid_post",
    ".mlp": "hook_mlp_out",
    ".mlp.act": "mlp.hook_post",
    ".mlp.act_fn": "mlp.hook_post",
    ".attn": "hook_attn_out",
    ".attention": "hook_attn_out",
    ".self_attn": "hook_attn_out",
    ".hook_resid_pre": "hook_resid_pre",
    ".hook_resid_mid": "hook_resid_mid",
    ".hook_resid_post": "hook_resid_post",
    ".hook_mlp_out": "hook_mlp_out",
    ".hook_attn_out": "hook_attn_out",
    ".mlp.hook_post": "mlp.hook_post",
}


def site_of(hookpoint: str) -> str:
    """The site of a hookpoint, such as `layers.6.mlp`. Raises DataError with what to do."""
    match = _HOOKPOINT.fullmatch(hookpoint)
    hook = None if match is None else _HOOKS.get(match["part"])
    if match is None or hook is None:
        raise DataError(
            f"'{readable(hookpoint.encode('utf-8', 'replace'))}' is no hookpoint that is known: "
            "name the site with --site, such as blocks.6.hook_mlp_out/sae"
        )
    return f"blocks.{match['layer']}.{hook}/delphi"


@dataclass(frozen=True)
class CacheFile:
    """One safetensors file: the latents from `start` to `end`, the last one included."""

    path: Path
    name: str  # how to call it
    start: int
    end: int

    def __post_init__(self) -> None:
        """Raises DataError when its tensors are not what they should be."""
        with self.opened() as file:
            names = set(file.keys())
            for name, kinds, dimensions in (
                ("locations", _INTEGERS, 2),
                ("activations", _FLOATS, 1),
                ("tokens", _INTEGERS, 2),
            ):
                if name not in names:
                    if name != "tokens":
                        raise self.malformed(f"field {name}: missing")
                    continue
                part = file.get_slice(name)
                if part.get_dtype() not in kinds or len(part.get_shape()) != dimensions:
                    found = f"{part.get_dtype()} {part.get_shape()}"
                    raise self.malformed(f"field {name}: {found}, not {dimensions} dimensions "
                                         f"of {' or '.join(kinds[:3])}")  # fmt: skip
            rows, width = file.get_slice("locations").get_shape()
            (values,) = file.get_slice("activations").get_shape()
            if width != 3 or rows != values:
                raise self.malformed(f"field locations: ({rows}, {width}), expected ({values}, 3)")

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The file, memory-mapped."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), framework="numpy") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise self.malformed(str(error).splitlines()[0]) from error

    def malformed(self, reason: str) -> DataError:
        """An error that names the file."""
        return DataError(f"{self.name} is malformed: {reason}")

    def tokens(self) -> NDArray[np.int32] | None:
        """(sequences, length), where they are there."""
        with self.opened() as file:
            if "tokens" not in file.keys():  # noqa: SIM118  (it is no mapping)
                return None
            rows, length = file.get_slice("tokens").get_shape()
            if rows * length > MOST_TOKENS or length > LONGEST:
                raise self.malformed(f"field tokens: {rows} sequences of {length} are too many")
            whole = file.get_tensor("tokens")
        if whole.size and (whole.max() > np.iinfo(np.int32).max or whole.min() < 0):
            raise self.malformed("field tokens: no token ids")
        ids: NDArray[np.int32] = whole.astype(np.int32)
        return ids

    def rows_of(self, first: int, stop: int) -> Iterator[tuple[NDArray[Any], ...]]:
        """Latent, sequence, position and activation of each row of latents first … stop - 1."""
        with self.opened() as file:
            locations, activations = (file.get_slice(name) for name in ("locations", "activations"))
            rows = locations.get_shape()[0]
            for begin in range(0, rows, _CHUNK):
                stretch = slice(begin, min(begin + _CHUNK, rows))
                part = locations[stretch]
                latent = part[:, 2].astype(np.int64) + self.start
                if latent.max() > self.end:
                    raise self.malformed(f"field locations: latent {latent.max()} is not in it")
                chosen = (latent >= first) & (latent < stop)
                if chosen.any():
                    values = activations[stretch][chosen].astype(np.float32)
                    places = part[chosen, :2].astype(np.int64)
                    if places.min() < 0 or places.max() > np.iinfo(np.int32).max:
                        raise self.malformed("field locations: no position in a sequence")
                    yield latent[chosen].astype(np.int32), *places.astype(np.int32).T, values


@dataclass(frozen=True)
class Hookpoint:
    """All files of one hookpoint."""

    name: str
    files: tuple[CacheFile, ...]

    @classmethod
    def at(cls, folder: Path) -> "Hookpoint":
        """Raises DataError when a file is malformed, or two are about the same latents."""
        found = [
            (match, path)
            for path in sorted(folder.iterdir())
            if (match := _FILE.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
        ]
        files = sorted(
            (
                CacheFile(
                    path, f"{folder.name}/{path.name}", int(match["start"]), int(match["end"])
                )
                for match, path in found
            ),
            key=lambda file: file.start,
        )
        for before, after in pairwise(files):
            if after.start <= before.end:
                raise DataError(f"{after.name} and {before.name} are about the same latents")
        if files and files[-1].end >= MOST_LATENTS:
            raise DataError(f"{files[-1].name}: over {MOST_LATENTS:,} latents are not read")
        return cls(folder.name, tuple(files))

    @property
    def width(self) -> int:
        """One more than the largest latent."""
        return max(file.end for file in self.files) + 1

    def neurons(self) -> list[int]:
        """All latents that the files are about."""
        return [latent for file in self.files for latent in range(file.start, file.end + 1)]

    @cached_property
    def tokens(self) -> NDArray[np.int32] | None:
        """(sequences, length), from the first file that has them."""
        for file in self.files:
            tokens = file.tokens()
            if tokens is not None:
                return tokens
        return None

    def shard(self, number: int) -> dict[int, tuple[NDArray[Any], ...]]:
        """Sequences, positions and activations (rows,) of each active latent of a shard."""
        first, stop = number * SHARD_SIZE, (number + 1) * SHARD_SIZE
        parts, size = [], 0
        for file in self.files:
            if file.start < stop and first <= file.end:
                for part in file.rows_of(first, stop):
                    parts.append(part)
                    size += len(part[0])
                    if size > MOST_ROWS:
                        raise file.malformed(f"over {MOST_ROWS:,} activations of {SHARD_SIZE}")
        if not parts:
            return {}
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        del parts
        order = np.argsort(columns[0], kind="stable")
        latent, *others = (column[order] for column in columns)
        latents, begins = np.unique(latent, return_index=True)
        pieces = zip(*(np.split(column, begins[1:]) for column in others), strict=True)
        return dict(zip(latents.tolist(), pieces, strict=True))
