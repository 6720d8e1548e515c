"""The token lookup explainer: no language model, and the strongest known baseline.

An explanation is a table of tokens with their mean activation over the corpus, less the neuron's
own held-out records, and a sentence about its largest entries. Bills et al. 2023, "Token lookup
table", find a full table to beat prose; a table of a few dozen rows is one that people can read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuron_explainer import prompts
from neuron_explainer.errors import ConfigError, NeuronFailure
from neuron_explainer.records import Explanation, NeuronRecord, TokenRow, TokenTable
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
        rows = [row for row in neuron.token_rows if self.context or row.previous is None]
        if not rows:
            raise NeuronFailure("no-token-table", "the record set has no token table")
        if self.context and all(row.previous is None for row in rows):
            raise NeuronFailure(
                "no-context-table", "collect again with --context-table to use previous tokens"
            )
        table = _table(rows, self._chosen(rows, neuron), scale)
        return Explanation(neuron.neuron, self.name, _sentence(table), table)

    def _chosen(self, rows: Sequence[TokenRow], neuron: NeuronRecord) -> NDArray[np.int64]:
        named = np.array([row.token is not None for row in rows])
        if self.table_size == "all":
            return np.flatnonzero(named)
        means = np.array([row.activation for row in rows])
        ranking = means if self.choose == "mean" else _gains(rows, means, neuron)
        order = np.argsort(np.where(named, -ranking, np.inf), kind="stable")
        return order[: min(int(self.table_size), int(named.sum()))]


@dataclass(frozen=True, slots=True)
class ContextLookup(TokenLookup):
    """Also rows that hold only after a certain previous token, where they add the most."""

    name = "token-lookup-context"
    context = True


def _gains(
    rows: Sequence[TokenRow], means: NDArray[np.float64], neuron: NeuronRecord
) -> NDArray[np.float64]:
    """The variance that each row explains beyond what would be predicted without it."""
    shown = _shown(neuron)
    plain = np.array([row.previous is None for row in rows])
    counts = np.array([row.count for row in rows], np.float64)
    in_records = np.array(
        [shown.get((row.previous, row.token), 0) if row.token else 0 for row in rows], np.float64
    )
    total = counts[plain].sum()
    centre = float((means * counts)[plain].sum() / max(1.0, total))
    of_token = {row.token: row.activation for row in rows if row.previous is None}
    baseline = np.array(
        [centre if row.previous is None else of_token.get(row.token, centre) for row in rows]
    )
    shares = np.zeros(len(rows))
    for group in (plain, ~plain):  # pairs and tokens cover the same text: each adds up to it
        rest = np.array([max(0.0, total - counts[group].sum())])
        unseen = np.array([max(0.0, shown[None, None] - in_records[group].sum())])
        shares[group] = mixture(
            np.concatenate([counts[group], rest]), np.concatenate([in_records[group], unseen])
        )[:-1]
    return variance_gain(shares, means, baseline)


def _shown(neuron: NeuronRecord) -> dict[tuple[bytes | None, bytes | None], int]:
    """How often tokens and pairs occur in the train records; their number under (None, None)."""
    counts: dict[tuple[bytes | None, bytes | None], int] = {(None, None): 0}
    for record in neuron.split("train"):
        for place in np.flatnonzero(record.scored):
            token = record.tokens[place]
            previous = record.tokens[place - 1] if place else None
            for key in {(None, token), (previous, token), (None, None)}:
                counts[key] = counts.get(key, 0) + 1
    return counts


def _table(rows: Sequence[TokenRow], chosen: NDArray[np.int64], scale: float) -> TokenTable:
    """The chosen rows by falling activation, on the 0–10 scale, and the mean of all the others."""
    picked = sorted((rows[place] for place in chosen), key=lambda row: -row.activation)
    plain = [row for row in rows if row.previous is None]
    mass = sum(max(0.0, row.activation) * row.count for row in plain)
    taken = {(row.previous, row.token) for row in picked}
    rest = [row for row in plain if (None, row.token) not in taken]
    count = sum(row.count for row in rest)
    otherwise = sum(row.activation * row.count for row in rest) / count if count else 0.0
    return TokenTable(
        tuple(row.previous for row in picked),
        tuple(row.token or b"" for row in picked),
        tuple(_SCALE * row.activation / scale for row in picked),
        tuple(max(0.0, row.activation) * row.count / mass if mass else 0.0 for row in picked),
        _SCALE * otherwise / scale,
    )


def _sentence(table: TokenTable) -> str:
    places = range(len(table.tokens))
    loud = [place for place in places if table.activations[place] > max(0.0, table.otherwise)]
    quiet = [place for place in places if table.activations[place] < table.otherwise]
    # neither a rare token that once fired strongly nor a frequent one that hardly does goes first
    loud.sort(key=lambda place: -table.activations[place] * table.shares[place] ** 0.5)
    named, others = loud[:_NAMED_TOKENS], loud[_NAMED_TOKENS:]
    share = sum(table.shares[place] for place in others)
    return prompts.render(
        "token-lookup",
        {
            "tokens": ", ".join(_entry(table, place) for place in named) or "no token of its own",
            "more": f" and {len(others)} more ({share:.0%} of it)" if others else "",
            "quiet": f"; least on {_names(table, quiet[-_QUIET_TOKENS:])}" if quiet else "",
        },
    )


def _entry(table: TokenTable, place: int) -> str:
    return (
        f"{_name(table, place)} ({table.activations[place]:.1f}, "
        f"{table.shares[place]:.0%} of its activation)"
    )


def _names(table: TokenTable, places: Sequence[int]) -> str:
    return ", ".join(_name(table, place) for place in places)


def _name(table: TokenTable, place: int) -> str:
    previous = table.previous[place]
    token = quoted(table.tokens[place])
    return token if previous is None else f"{token} after {quoted(previous)}"
