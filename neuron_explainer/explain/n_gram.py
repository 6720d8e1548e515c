"""Explains a neuron by the short token patterns that make it fire, found with the subject's help.

sample      a token sequence and the position of one positive activation in it
suffix      the last tokens up to that position; the shortest that keeps the activation is a pattern
saliency    the share of a pattern's activation that is lost when one of its tokens is replaced
wildcard    a position of a pattern where any token will do
trie        all patterns, read backwards from the activating token

The idea is Foote et al. 2023, "N2G: A scalable approach for quantifying interpretable neuron
representation"; the thresholds are those of Gao et al. 2024.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ANY_TOKEN = "token(*)"
FIRST_POSITION = "token(^)"
ACTIVATION = "<saliency>"

KEPT = 0.5  # this share of the activation counts as the activation

Token = str | bytes
Activate = Callable[[Sequence[Sequence[int]]], Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a neuron fired."""

    tokens: tuple[Token, ...]
    token_ids: tuple[int, ...]
    position: int  # of the activation
    activation: float  # positive, raw


@dataclass(frozen=True, slots=True)
class Pattern:
    """The tokens, oldest first, that end where the neuron fires."""

    tokens: tuple[Token | None, ...]  # None: a wildcard
    at_start: bool  # only when no token comes before them
    activation: float  # raw


@dataclass(slots=True)
class _Node:
    tokens: dict[Token, "_Node"] = field(default_factory=dict)
    wildcard: "_Node | None" = None
    anywhere: list[float] = field(default_factory=list)  # activations of patterns that end here
    at_start: list[float] = field(default_factory=list)  # … and only at the first position

    def child(self, token: Token | None) -> "_Node":
        if token is not None:
            return self.tokens.setdefault(token, _Node())
        if self.wildcard is None:
            self.wildcard = _Node()
        return self.wildcard

    def matching(self, token: Token) -> list["_Node"]:
        """The token's own branch before the wildcard."""
        own = self.tokens.get(token)
        return [node for node in (own, self.wildcard) if node is not None]


class NGramTrie:
    """The patterns of one neuron."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._root = _Node()
        for pattern in patterns:
            node = self._root
            for token in reversed(pattern.tokens):
                node = node.child(token)
            (node.at_start if pattern.at_start else node.anywhere).append(pattern.activation)

    def predict(self, tokens: Sequence[Token]) -> list[float]:
        """One raw activation a token; 0.0 where no pattern ends.

        A named token goes before a wildcard, a shorter pattern before one that extends it, and a
        pattern found in several samples predicts their mean.
        """
        return [self._predict_at(tokens, position) for position in range(len(tokens))]

    def as_dict(self) -> dict[Token, Any]:
        """Nested mappings: token → … → {"<saliency>": activation}, activating token outermost."""
        return _node_as_dict(self._root)

    def _predict_at(self, tokens: Sequence[Token], position: int) -> float:
        # A stack, not recursion: a pattern may be as long as a record.
        paths = [(node, position) for node in reversed(self._root.matching(tokens[position]))]
        while paths:
            node, oldest = paths.pop()
            if node.anywhere:
                return _mean(node.anywhere)
            if oldest == 0 and node.at_start:
                return _mean(node.at_start)
            if oldest > 0:
                onward = node.matching(tokens[oldest - 1])
                paths += [(child, oldest - 1) for child in reversed(onward)]
        return 0.0


def build_n_gram_trie(
    activate: Activate, samples: Sequence[Sample], padding_token: int
) -> NGramTrie:
    """The patterns behind `samples`, checked against the subject.

    `activate` takes a batch of token-id sequences and gives one neuron's activation at each token
    of each; it is called once per suffix length with every sample that still needs it, then once
    with one position of every pattern replaced by `padding_token`, and once with that token put
    before every pattern, so it should split large batches itself.
    Raises ValueError when a sample's activation is not positive or its lists do not fit.
    """
    for sample in samples:
        _check(sample)
    suffixes = _shortest_suffixes(activate, samples)
    padded = [[padding_token, *suffix.token_ids] for suffix in suffixes]
    behind_padding = _last_activations(activate, padded)
    wildcards = _wildcards(activate, suffixes, padding_token)
    return NGramTrie(
        [
            Pattern(
                tuple(
                    None if wild else token
                    for token, wild in zip(suffix.tokens, wild_positions, strict=True)
                ),
                at_start=activation < KEPT * sample.activation,
                activation=suffix.activation,
            )
            for sample, suffix, wild_positions, activation in zip(
                samples, suffixes, wildcards, behind_padding, strict=True
            )
        ]
    )


@dataclass(frozen=True, slots=True)
class _Suffix:
    tokens: tuple[Token, ...]
    token_ids: tuple[int, ...]
    activation: float


def _shortest_suffixes(activate: Activate, samples: Sequence[Sample]) -> list[_Suffix]:
    """For each sample the shortest suffix that keeps the activation; else the whole context."""
    found: dict[int, _Suffix] = {}
    longest = max((sample.position + 1 for sample in samples), default=0)
    for length in range(1, longest + 1):
        waiting = [
            index
            for index, sample in enumerate(samples)
            if index not in found and length <= sample.position + 1
        ]
        contexts = [_suffix_ids(samples[index], length) for index in waiting]
        for index, activation in zip(waiting, _last_activations(activate, contexts), strict=True):
            if activation >= KEPT * samples[index].activation:
                found[index] = _suffix(samples[index], length, activation)
    return [
        found.get(index) or _suffix(sample, sample.position + 1, sample.activation)
        for index, sample in enumerate(samples)
    ]


def _wildcards(
    activate: Activate, suffixes: Sequence[_Suffix], padding_token: int
) -> list[list[bool]]:
    """For each suffix, which positions keep more than half the activation when replaced."""
    replaced = [
        [*suffix.token_ids[:position], padding_token, *suffix.token_ids[position + 1 :]]
        for suffix in suffixes
        for position in range(len(suffix.token_ids))
    ]
    activations = iter(_last_activations(activate, replaced))
    return [
        [next(activations) > (1 - KEPT) * suffix.activation for _ in suffix.token_ids]
        for suffix in suffixes
    ]


def _last_activations(activate: Activate, contexts: Sequence[Sequence[int]]) -> list[float]:
    if not contexts:
        return []
    return [float(activations[-1]) for activations in activate(contexts)]


def _suffix_ids(sample: Sample, length: int) -> tuple[int, ...]:
    return sample.token_ids[sample.position + 1 - length : sample.position + 1]


def _suffix(sample: Sample, length: int, activation: float) -> _Suffix:
    tokens = sample.tokens[sample.position + 1 - length : sample.position + 1]
    return _Suffix(tokens, _suffix_ids(sample, length), activation)


def _check(sample: Sample) -> None:
    if len(sample.tokens) != len(sample.token_ids) or not 0 <= sample.position < len(sample.tokens):
        raise ValueError(
            f"a sample has {len(sample.tokens)} tokens, {len(sample.token_ids)} ids and fires at "
            f"position {sample.position}"
        )
    if not sample.activation > 0:
        raise ValueError(f"a sample's activation must be positive, not {sample.activation}")


def _node_as_dict(node: _Node) -> dict[Token, Any]:
    result: dict[Token, Any] = {token: _node_as_dict(child) for token, child in node.tokens.items()}
    if node.wildcard is not None:
        result[ANY_TOKEN] = _node_as_dict(node.wildcard)
    if node.at_start:
        result[FIRST_POSITION] = {ACTIVATION: _mean(node.at_start)}
    if node.anywhere:
        result[ACTIVATION] = _mean(node.anywhere)
    return result


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
