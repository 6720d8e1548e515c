"""What one unit does on one sequence, read from a subject that is at hand."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_explainer.subjects.base import HeadReader, Subject


def activations_on(
    subject: Subject, tokens: NDArray[np.int32], site: str, neuron: int
) -> NDArray[np.float32]:
    """A neuron's raw activations (tokens,) on token ids (tokens,), BOS included where it is."""
    found: list[NDArray[np.float32]] = []

    def see(values: Tensor) -> None:
        found.append(values[0, :, neuron].to("cpu", torch.float32).numpy().copy())

    with torch.inference_mode():
        subject.observe(_batch(tokens), {site: see})
    return found[0]


def pairs_on(
    subject: HeadReader, tokens: NDArray[np.int32], site: str, head: int
) -> NDArray[np.float32]:
    """How strongly a head writes at each query for each key (query, key); 0 above the diagonal."""
    found: list[NDArray[np.float32]] = []

    def see(norms: Tensor) -> None:
        found.append(norms[0, head].to("cpu", torch.float32).numpy().copy())

    with torch.inference_mode():
        subject.observe_pairs(_batch(tokens), {site: see})
    return found[0]


def _batch(tokens: NDArray[np.int32]) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64))[None]
