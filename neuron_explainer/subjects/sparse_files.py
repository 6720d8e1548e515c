"""What formats of a folder share: a checked cfg.json, and tensors of the shapes that it implies."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.store import replace_file

CONFIG = "cfg.json"
TRAINING = "training.json"  # how it was trained: beside the others, and no part of what it is


@dataclass(frozen=True, slots=True)
class Config:
    """Settings from a file, each asked for by name and type."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Config":
        """Raises SubjectError when there is no such file, or no table of settings in it."""
        try:
            values = orjson.loads(path.read_bytes())
        except OSError as error:
            raise SubjectError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
        except orjson.JSONDecodeError as error:
            raise SubjectError(f"{path} is no valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise SubjectError(f"{path} holds no table of settings")
        return cls(path, values)

    def number(self, name: str) -> int:
        """A whole number of at least 1. Raises SubjectError when it is missing or is none."""
        value = self.values.get(name)
        if type(value) is not int or value < 1:
            raise self.wrong(name, "a whole number of at least 1")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; `default` where it is absent or null. Raises SubjectError."""
        value = self.values.get(name)
        if value is not None and type(value) is not bool:
            raise self.wrong(name, "true or false")
        return default if value is None else value

    def text(self, name: str) -> str | None:
        """A string, None where it is absent, empty or null. Raises SubjectError."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "text")
        return value or None

    def table(self, name: str) -> "Config":
        """A table within; an empty one where it is absent or null. Raises SubjectError."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "a table")
        return Config(self.path, value or {})

    def wrong(self, name: str, expected: str) -> SubjectError:
        """The error that says that setting `name` is not as expected."""
        return SubjectError(f"{self.path}: {name} is {self.values.get(name)!r}, not {expected}")


def read_tensors(
    path: Path,
    needed: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Tensors of exactly these names and shapes, to the CPU and in `dtype`.

    Raises SubjectError naming the file and the tensor that is missing, unknown, misshapen or not
    finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            _check_names(path, names, needed, optional)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            _check_shapes(path, shapes, {**needed, **optional})
            tensors = {name: file.get_tensor(name).to(dtype) for name in sorted(names)}
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise SubjectError(f"{path} cannot be read as an autoencoder: {reason}") from error
    for name, tensor in tensors.items():
        check_finite(f"{path}: {name}", tensor)
    return tensors


def check_finite(name: str, tensor: Tensor) -> None:
    """Raises SubjectError naming the tensor when a number in it is infinite or none."""
    wrong = int((~torch.isfinite(tensor)).sum())
    if wrong:
        raise SubjectError(f"{name} holds {wrong:,} numbers that are infinite or NaN")


def write_folder(
    folder: Path, weights: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Weights first: without cfg.json, which comes last, a folder is no autoencoder."""
    from safetensors.torch import save

    (folder / CONFIG).unlink(missing_ok=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    replace_file(folder / weights, save(whole))
    replace_file(folder / CONFIG, orjson.dumps(config, option=orjson.OPT_INDENT_2) + b"\n")


def _check_names(
    path: Path,
    names: set[str],
    needed: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]],
) -> None:
    missing = [name for name in needed if name not in names]
    unknown = sorted(names - {*needed, *optional})
    wrong = [
        f"{verb} {', '.join(found)}"
        for verb, found in (("lacks", missing), ("should not hold", unknown))
        if found
    ]
    if wrong:
        raise SubjectError(
            f"{path} {' and '.join(wrong)}: its {CONFIG} describes another architecture"
        )


def _check_shapes(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    for name in expected:
        if name in shapes and shapes[name] != expected[name]:
            raise SubjectError(
                f"{path}: {name} is {shapes[name]}, but by its {CONFIG} it must be {expected[name]}"
            )
