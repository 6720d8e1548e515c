"""The texts of a reading as tokens: exactly those of each text tokenised whole, and its places."""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.errors import NeuronFailure
from neuron_explainer.llm.base import Reading
from neuron_explainer.llm.local_states import Ids

_NOWHERE = -1
_JOINT = 4  # characters of the bodies that decide where their first token begins


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text, its tokens and the places to read."""

    text: str
    ids: Ids
    last: NDArray[np.int64]  # (places,) the token before each place; -1 where no token ends there
    ends: NDArray[np.int64]  # (places,) characters of `text` before each place

    @property
    def read(self) -> NDArray[np.bool_]:
        """(places,) where there is something to be read."""
        return self.last >= 0

    @property
    def reads(self) -> NDArray[np.int64]:
        """The tokens after which something is to be read, in order."""
        return self.last[self.read]


@dataclass(frozen=True, slots=True)
class Split:
    """A target that the tokenizer writes as another target's only token and a rest."""

    whole: int  # among the targets
    first: int
    text: str  # of the first
    token: int  # that it is
    rest: tuple[int, ...]  # all tokens that read as what is left


class Stopped(Exception):
    """The reading was cancelled."""


@dataclass(frozen=True, slots=True)
class Task:
    """A reading as tokens."""

    prompts: Sequence[Prompt]
    columns: Sequence[Sequence[int]]  # of each target all tokens that read so
    split: Split | None
    least_share: float
    stop: threading.Event

    def check(self) -> None:
        """Raise Stopped when it was cancelled."""
        if self.stop.is_set():
            raise Stopped


class Tokens:
    """A tokenizer and the bytes of its vocabulary, asked what a reading needs to know."""

    def __init__(self, tokenizer: Any, vocabulary: Sequence[bytes], context: int | None) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._context = context
        self._by_bytes: Mapping[bytes, list[int]] = _by_bytes(vocabulary)
        self._counts: dict[bytes, tuple[NDArray[np.int64], NDArray[np.bool_]]] = {}
        self._splits: dict[tuple[str, tuple[str, ...]], Split | None] = {}

    def encoded(self, texts: Sequence[str]) -> list[Ids]:
        """Each text's tokens, with the special ones that the tokenizer puts in front."""
        return [np.array(ids, np.int64) for ids in self._tokenizer(list(texts)).input_ids]

    def reading(self, text: str) -> list[int]:
        """All tokens that read as `text`."""
        return self._by_bytes.get(text.encode(), [])

    def task(self, reading: Reading, stop: threading.Event) -> tuple[str, Task]:
        """The prefix that leaves room for every body, and the reading with it.

        Raises NeuronFailure("context-overflow").
        """
        prefix, prompts = self._fitting(reading)
        columns = [self.reading(target) for target in reading.targets]
        split = self._split(reading.after, reading.targets)
        return prefix, Task(prompts, columns, split, reading.least_share, stop)

    def _fitting(self, reading: Reading) -> tuple[str, list[Prompt]]:
        longest = max(reading.bodies, key=len)
        needed = 0
        for prefix in reading.prefixes:
            beginning = prefix + reading.head
            (whole,) = self.encoded([beginning + longest])
            needed = len(whole)
            if not self._fits(needed):
                continue
            encoded = self._encoded_from(beginning, reading.bodies, longest, whole)
            needed = max(map(len, encoded))
            if self._fits(needed):
                return prefix, self._located(beginning, reading, encoded)
        raise NeuronFailure(
            "context-overflow",
            f"the prompt's {needed} tokens do not fit into the {self._context} that the model "
            "reads, even with the fewest examples",
        )

    def _fits(self, tokens: int) -> bool:
        return self._context is None or tokens <= self._context

    def _encoded_from(
        self, beginning: str, bodies: Sequence[str], known: str, whole: Ids
    ) -> list[Ids]:
        """The tokens of the beginning with each body; `whole` are those with the body `known`.

        Bodies are tokenised alone where that gives the same for `known` and where all of them
        begin alike, so that what meets at the joint is the same text in all.
        """
        alone = self._tokenizer(list(bodies), add_special_tokens=False).input_ids
        tail = np.array(alone[bodies.index(known)], np.int64)
        before = whole[: len(whole) - len(tail)]
        alike = len(known) >= _JOINT and all(body.startswith(known[:_JOINT]) for body in bodies)
        if alike and np.array_equal(np.append(before, tail), whole):
            return [np.append(before, np.array(ids, np.int64)) for ids in alone]
        return self.encoded([beginning + body for body in bodies])

    def _located(self, beginning: str, reading: Reading, encoded: Sequence[Ids]) -> list[Prompt]:
        before = beginning.count(reading.after)
        made = []
        for body, ids in zip(reading.bodies, encoded, strict=True):
            text = beginning + body
            ends = _ends(text, reading.after, len(beginning))
            last = self._places(ids, reading.after.encode(), before + len(ends))
            made.append(Prompt(text, ids, last[before:], ends))
        return made

    def _places(self, ids: Ids, after: bytes, expected: int) -> NDArray[np.int64]:
        """For each `after` in the text the token that ends with it, or -1.

        They are found by number, so a tokenizer that changes characters does no harm; one that
        changes how often `after` occurs leaves every place unknown.
        """
        if after not in self._counts:
            number = np.array([token.count(after) for token in self._vocabulary], np.int64)
            ending = np.array([token.endswith(after) for token in self._vocabulary], np.bool_)
            self._counts[after] = number, ending
        number, ending = self._counts[after]
        times = number[ids]
        if times.sum() != expected:
            return np.full(expected, _NOWHERE, np.int64)
        places = np.repeat(np.arange(len(ids)), times)
        final = np.append(places[1:] != places[:-1], True)[: len(places)]
        return np.where(final & ending[ids[places]], places, _NOWHERE)

    def _split(self, after: str, targets: tuple[str, ...]) -> Split | None:
        """The target that the tokenizer writes in two, where there is one."""
        if (after, targets) not in self._splits:
            self._splits[after, targets] = self._find_split(after, targets)
        return self._splits[after, targets]

    def _find_split(self, after: str, targets: tuple[str, ...]) -> Split | None:
        for whole, target in enumerate(targets):
            (ids,) = self.encoded([f"a{after}{target}\n"])
            tail = target.encode() + b"\n"
            for place, token in enumerate(ids):
                spelled = b"".join(self._vocabulary[index] for index in ids[place:])
                text = self._vocabulary[token].decode(errors="replace")
                if spelled == tail and text != target and text in targets:
                    rest = tuple(self.reading(target.removeprefix(text)))
                    return (
                        Split(whole, targets.index(text), text, int(token), rest) if rest else None
                    )
        return None


def common(some: Ids, others: Ids) -> int:
    """How many tokens two texts have in common at their beginning."""
    least = min(len(some), len(others))
    differ = np.flatnonzero(some[:least] != others[:least])
    return int(differ[0]) if len(differ) else least


def _by_bytes(vocabulary: Sequence[bytes]) -> Mapping[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for index, token in enumerate(vocabulary):
        if token:
            found.setdefault(token, []).append(index)
    return found


def _ends(text: str, after: str, begin: int) -> NDArray[np.int64]:
    found = [match.end() for match in re.compile(re.escape(after)).finditer(text, begin)]
    return np.array(found, np.int64)
