"""A subject whose activations are given functions of the token ids, and a workspace to collect in.

Its tokens are words: text is split at spaces, and the word `t7` is token 7.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from neuron_explainer.collect.stage import Collected, collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import BoolArray
from neuron_explainer.subjects.base import Observer

SITE = "blocks.0.mlp.hook_post"
SPECIAL = 1  # the token id of `<|endoftext|>`, which is also BOS
# (batch, time) token ids → (batch, time, neurons)
Activations = Callable[[torch.Tensor], torch.Tensor]


class FakeTokenizer:
    """Words to ids: `t7` is 7, `<|endoftext|>` is 1."""

    def __init__(self, size: int, bos: int | None = SPECIAL) -> None:
        self.bos = bos
        self.vocabulary = tuple(
            b"<|endoftext|>" if index == SPECIAL else b" t%d" % index for index in range(size)
        )
        self.special: BoolArray = np.arange(size) == SPECIAL

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [np.array([_id(word) for word in text.split()], np.int32) for text in texts]


def _id(word: str) -> int:
    return SPECIAL if word == "<|endoftext|>" else int(word.removeprefix("t"))


class FakeSubject:
    """Sites with activations that are functions of the token ids."""

    def __init__(
        self,
        functions: Mapping[str, Activations],
        vocabulary: int = 50,
        bos: int | None = SPECIAL,
        context: int = 1024,
    ) -> None:
        self._functions = functions
        self.context = context
        self.tokenizer = FakeTokenizer(vocabulary, bos)
        self.batches: list[tuple[int, int]] = []

    def sites(self) -> Mapping[str, int]:
        probe = torch.zeros((1, 1), dtype=torch.int64)
        return {site: function(probe).shape[2] for site, function in self._functions.items()}

    def observe(self, tokens: torch.Tensor, observers: Mapping[str, Observer]) -> None:
        self.batches.append((tokens.shape[0], tokens.shape[1]))
        for site, observer in observers.items():
            observer(self._functions[site](tokens))


def table_lookup(table: NDArray[np.float32]) -> Activations:
    """Each token has its own activation: `table` is (vocabulary, neurons)."""
    weights = torch.from_numpy(np.asarray(table, np.float32))
    return lambda tokens: weights[tokens]


def words(tokens: Iterable[int]) -> str:
    """A document of these tokens."""
    return " ".join("<|endoftext|>" if token == SPECIAL else f"t{token}" for token in tokens)


def write_documents(path: Path, documents: Iterable[Iterable[int]]) -> Path:
    """A JSONL corpus of these documents."""
    lines = [orjson.dumps({"text": words(tokens)}) + b"\n" for tokens in documents]
    path.write_bytes(b"".join(lines))
    return path


def collect_from(
    data: Path, corpus: Path, subject: FakeSubject, **settings: Any
) -> tuple[Collected, RecordSet]:
    """What collect makes of `corpus`, at the subject's first site."""
    chosen: dict[str, Any] = {"sites": tuple(subject.sites())}
    chosen |= {"excerpt_tokens": 8, "minimum_tokens": 2}
    collected = collect(
        data,
        SubjectSettings(model="fake"),
        CollectSettings(corpus=str(corpus), **chosen | settings),
        subject=subject,
    )
    return collected, RecordSet(data, "fake", next(iter(subject.sites())))
