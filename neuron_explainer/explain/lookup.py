"""The token lookup explainer: no language model, and the strongest known baseline.

An explanation is a table of tokens with their mean activation over the corpus, less the neuron's
own held-out records, and a sentence about its largest entries. Bills et al. 2023, "Token lookup
table", find a full table to beat prose; a table of a few dozen rows is one that people can read.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuron_explainer import prompts
from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.records import Explanation, NeuronRecord, TokenRows, TokenTable
from neuron_explainer.token_gain import mixture, variance_gain
from neuron_explainer.tokens import quoted

_NAMED_TOKENS = 6
_QUIET_TOKENS = 3
_SCALE = 10.0  # activations are told on the scale that simulators use


@dataclass(frozen=True, slots=True)
class TokenLookup:
    """Single tokens. `table_size` is a number of rows or "all", which needs the whole table."""

    table_size: int | str = 50
    choose: Literal["variance", "mean"] = "variance"  # which rows, when there are more

    name = "token-lookup"
    templates = "token-lookup"
    context = False

    def __post_init__(self) -> None:
        if self.table_size != "all" and not (
            isinstance(self.table_size, int) and self.table_size > 0
        ):
            raise ConfigError(f"the table size is {self.table_size!r}: give a number or 'all'")
        if self.choose not in {"variance", "mean"}:
            raise ConfigError(f"rows are chosen by 'variance' or 'mean', not {self.choose!r}")

    async def explain(self, neuron: NeuronRecord) -> Explanation:
        """Raises NeuronFailure when the neuron never fires or has no token table."""
        scale = max((record.maximum for record in neuron.split("train")), default=0.0)
        if scale <= 0.0:
            raise NeuronFailure("never-active", "no train record has an activation above 0")
        rows = neuron.token_rows
        if rows is None or not len(rows):
            raise NeuronFailure("no-token-table", "the record set has no token table")
        if self.context and not (rows.previous >= 0).any():
            raise NeuronFailure(
                "no-context-table", "collect again with --context-table to use previous tokens"
            )
        table = _table(rows, self._chosen(rows, neuron), scale)
        return Explanation(neuron.neuron, self.name, _sentence(table), table)

    def _chosen(self, rows: TokenRows, neuron: NeuronRecord) -> NDArray[np.int64]:
        """The rows to keep, by falling activation."""
        usable = rows.token >= 0
        if not self.context:
            usable &= rows.previous < 0
        chosen = np.flatnonzero(usable)
        if self.table_size != "all":
            ranking = rows.activation if self.choose == "mean" else _gains(rows, neuron)
            order = np.argsort(-ranking[chosen], kind="stable")
            chosen = chosen[order[: int(self.table_size)]]
        return chosen[np.argsort(-rows.activation[chosen], kind="stable")]


@dataclass(frozen=True, slots=True)
class ContextLookup(TokenLookup):
    """Also rows that hold only after a certain previous token, where they add the most."""

    name = "token-lookup-context"
    context = True


def _gains(rows: TokenRows, neuron: NeuronRecord) -> NDArray[np.float64]:
    """The variance that each row explains beyond what would be predicted without it."""
    means, counts = rows.activation.astype(np.float64), rows.count.astype(np.float64)
    shown, seen = _shown(rows, neuron)
    plain = rows.previous < 0
    total = counts[plain].sum()
    centre = float((means * counts)[plain].sum() / max(1.0, total))
    baseline = np.full(len(rows), centre)
    of_token = np.full(len(rows.vocabulary) + 1, centre)  # its last place is for token -1
    of_token[rows.token[plain]] = means[plain]
    baseline[~plain] = of_token[rows.token[~plain]]
    shares = np.zeros(len(rows))
    for group in (plain, ~plain):  # pairs and tokens cover the same text: each adds up to it
        rest = np.array([max(0.0, total - counts[group].sum())])
        unseen = np.array([max(0.0, seen - shown[group].sum())])
        mixed = mixture(
            np.concatenate([counts[group], rest]), np.concatenate([shown[group], unseen])
        )
        shares[group] = mixed[:-1]
    return variance_gain(shares, means, baseline)


def _shown(rows: TokenRows, neuron: NeuronRecord) -> tuple[NDArray[np.float64], int]:
    """How often each row's token, or pair, occurs in the train records; and all their tokens."""
    tokens: Counter[bytes] = Counter()
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    for record in neuron.split("train"):
        for place in np.flatnonzero(record.scored):
            tokens[record.tokens[place]] += 1
            if place:
                pairs[record.tokens[place - 1], record.tokens[place]] += 1
    names = rows.vocabulary
    counts = [
        0
        if token < 0
        else tokens[names[token]]
        if previous < 0
        else pairs[names[previous], names[token]]
        for previous, token in zip(rows.previous.tolist(), rows.token.tolist(), strict=True)
    ]
    return np.array(counts, np.float64), tokens.total()


def _table(rows: TokenRows, chosen: NDArray[np.int64], scale: float) -> TokenTable:
    """The chosen rows on the 0–10 scale, and the mean of all the others."""
    counts = rows.count.astype(np.float64)
    means = _SCALE / scale * rows.activation.astype(np.float64)
    plain = rows.previous < 0
    mass = np.maximum(0.0, means) * counts
    whole = float(mass[plain].sum())
    rest = plain.copy()
    rest[chosen] = False
    left = float(counts[rest].sum())
    names = rows.vocabulary
    return TokenTable(
        tuple(None if token < 0 else names[token] for token in rows.previous[chosen].tolist()),
        tuple(names[token] for token in rows.token[chosen].tolist()),
        tuple(means[chosen].tolist()),
        tuple((mass[chosen] / whole if whole else np.zeros(len(chosen))).tolist()),
        float((means * counts)[rest].sum()) / left if left else 0.0,
    )


def _sentence(table: TokenTable) -> str:
    places = range(len(table.tokens))
    loud = [place for place in places if table.activations[place] > max(0.0, table.otherwise)]
    quiet = [place for place in places if table.activations[place] < table.otherwise]
    # neither a rare token that once fired strongly nor a frequent one that hardly does goes first
    loud.sort(key=lambda place: -table.activations[place] * table.shares[place] ** 0.5)
    named, others = loud[:_NAMED_TOKENS], loud[_NAMED_TOKENS:]
    share = sum(table.shares[place] for place in others)
    entries = [_entry(table, place, first=place == named[0]) for place in named]
    return prompts.render(
        "token-lookup",
        {
            "tokens": ", ".join(entries) or "no token in particular",
            "more": f" and {len(others)} more ({share:.0%})" if others else "",
            "quiet": f"; least on {_names(table, quiet[-_QUIET_TOKENS:])}" if quiet else "",
        },
    )


def _entry(table: TokenTable, place: int, first: bool) -> str:
    """A token with its mean and its share; what the figures are is said at the first one."""
    mean, share = f"{table.activations[place]:.1f}", f"{table.shares[place]:.0%}"
    if first:
        return f"{_name(table, place)} (mean {mean} of 10, {share} of its activation)"
    return f"{_name(table, place)} ({mean}, {share})"


def _names(table: TokenTable, places: Sequence[int]) -> str:
    return ", ".join(_name(table, place) for place in places)


def _name(table: TokenTable, place: int) -> str:
    previous = table.previous[place]
    token = quoted(table.tokens[place])
    return token if previous is None else f"{token} after {quoted(previous)}"
