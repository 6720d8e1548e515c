"""A table of method, neuron and value, from a file of comma-separated values."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from neuron_explainer.compare.table import Budget, Cells, Column, Selection, Table, aligned, pair
from neuron_explainer.errors import ConfigError, DataError

NULLS = ("shuffled", "constant")
LOOKUP = "token-lookup"
_NEEDED = ("method", "neuron")
_KNOWN = (*_NEEDED, "layer", "site", "seed", "tokens", "cost", "explanation", "cause")
_UNDEFINED = {"", "nan", "none", "null", "na"}


@dataclass(frozen=True, slots=True)
class Roles:
    """Which methods are compared, and what some of them are."""

    methods: Sequence[str] = ()  # the first is what the others are held against; (): all
    selected: Mapping[str, int] | None = None  # method -> how many it is the best of
    null: str | None = None
    lookup: str | None = None
    metric: str | None = None  # the column with the values


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    method: str
    seed: str
    neuron: tuple[str, str]  # layer or site, neuron
    value: float
    cause: str | None
    tokens: float | None
    cost: float | None


def read(path: Path, roles: Roles = Roles()) -> Table:
    """The methods of a file, paired by neuron. Raises DataError and ConfigError.

    Columns: `method`, `neuron` and one with the values, whatever its name; used when there:
    `layer` or `site`, `seed`, `tokens` and `cost` of that neuron, `cause` of an empty value.
    """
    rows, metric, layered = _rows(path, roles.metric)
    names = list(dict.fromkeys(row.method for row in rows))
    null, lookup = (
        _reference(roles.null, names, "shuffled"),
        _reference(roles.lookup, names, LOOKUP),
    )
    others = {null, lookup, _reference(None, names, "constant")}
    chosen = list(roles.methods) or [name for name in names if name not in others]
    for name in (*chosen, *(roles.selected or {})):
        if name not in names:
            raise ConfigError(f"{path} has no method '{name}'; it has {', '.join(names)}")
    if not chosen:
        raise ConfigError(f"{path} has nothing to compare: only nulls and references")
    neurons = {
        neuron: key for key, neuron in enumerate(sorted({row.neuron for row in rows}, key=_order))
    }
    columns = {name: _column(path, name, rows, neurons, roles.selected or {}) for name in names}
    keys, methods = pair([columns[name] for name in chosen])
    known = list(neurons)

    def reference(name: str | None) -> list[Column]:
        return [columns[name]] if name is not None else []

    nulls = {name: aligned(column, keys) for column in reference(null) for name in chosen}
    [*constant] = reference(_reference(None, names, "constant"))
    return Table(
        metric=metric,
        keys=keys,
        labels=["/".join(part for part in known[key] if part) for key in keys],
        layers=_layers([known[key][0] for key in keys]) if layered else None,
        methods=methods,
        nulls=nulls,
        constant=aligned(constant[0], keys) if constant else None,
        lookup=aligned(columns[lookup], keys) if lookup is not None else None,
        facts={"table": path.name},
        notes=_missing(null, lookup),
    )


def _missing(null: str | None, lookup: str | None) -> tuple[str, ...]:
    told = {
        "no null in this table: --null METHOD names the one that knows nothing": null,
        "no token lookup in this table: --lookup METHOD names it": lookup,
    }
    return tuple(text for text, name in told.items() if name is None)


def _reference(asked: str | None, names: Sequence[str], default: str) -> str | None:
    if asked is not None and asked not in names:
        raise ConfigError(f"there is no method '{asked}'; there are {', '.join(names)}")
    return asked or (default if default in names else None)


def _rows(path: Path, metric: str | None) -> tuple[list[_Row], str, bool]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            heads = list(reader.fieldnames or ())
            metric = _value_column(path, heads, metric)
            rows = [
                _row(path, reader.line_num, cells, metric)
                for cells in reader  # line by line, so that line_num is the row's
            ]
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of comma-separated values: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows, metric, bool({"layer", "site"} & set(heads))


def _value_column(path: Path, heads: Sequence[str], metric: str | None) -> str:
    for name in _NEEDED:
        if name not in heads:
            raise DataError(f"{path} has no column '{name}'; it has {', '.join(heads) or 'none'}")
    values = [name for name in heads if name not in _KNOWN]
    if metric is not None and metric in heads:
        return metric
    if metric is not None or len(values) != 1:
        raise ConfigError(
            f"{path}: which column holds the values? --metric takes one of "
            f"{', '.join(values) or 'none: there is no such column'}"
        )
    return values[0]


def _row(path: Path, line: int, cells: Mapping[str, str | None], metric: str) -> _Row:
    if None in cells.values() or None in cells:
        raise DataError(f"{path}, line {line}: it has not as many cells as the first line")
    text = {name: (cell or "").strip() for name, cell in cells.items()}

    def number(name: str) -> float | None:
        cell = text.get(name, "")
        if cell.lower() in _UNDEFINED:
            return None
        try:
            found = float(cell)
        except ValueError as error:
            raise DataError(f"{path}, line {line}: {name} '{cell}' is no number") from error
        if not isfinite(found):
            raise DataError(f"{path}, line {line}: {name} is not finite; leave it empty")
        return found

    value = number(metric)
    return _Row(
        line,
        text["method"],
        text.get("seed", ""),
        (text.get("site") or text.get("layer", ""), text["neuron"]),
        np.nan if value is None else value,
        (text.get("cause") or "no value") if value is None else None,
        number("tokens"),
        number("cost"),
    )


def _order(neuron: tuple[str, str]) -> tuple[tuple[int, str], ...]:
    """Numbers by size, then names."""
    return tuple((int(part), "") if part.isdecimal() else (1 << 62, part) for part in neuron)


def _column(
    path: Path,
    name: str,
    rows: Sequence[_Row],
    neurons: Mapping[tuple[str, str], int],
    selected: Mapping[str, int],
) -> Column:
    mine = [row for row in rows if row.method == name]
    seeds = []
    for seed in sorted({row.seed for row in mine}):
        of_seed = sorted(
            (row for row in mine if row.seed == seed), key=lambda row: neurons[row.neuron]
        )
        keys = np.array([neurons[row.neuron] for row in of_seed], np.int64)
        if len(again := np.flatnonzero(np.diff(keys) == 0)):
            twice = of_seed[int(again[0]) + 1]
            raise DataError(
                f"{path}, line {twice.line}: {name} has a value for this neuron already"
            )
        values = np.array([row.value for row in of_seed], np.float64)
        causes = np.array([row.cause for row in of_seed], np.object_)
        seeds.append(Cells(keys, values, causes, np.ones(len(keys), np.bool_)))
    choice = Selection(selected[name], None) if name in selected else None
    tokens, cost = ([getattr(row, what) for row in mine] for what in ("tokens", "cost"))
    return Column(name, seeds, choice, Budget(_mean(tokens), _mean(cost)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if values and len(known) == len(values) else None


def _layers(names: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The layer of each neuron: the number in its name, else the name's place among all."""
    distinct = sorted(set(names))
    parts = {name: [part for part in name.split(".") if part.isdigit()] for name in distinct}
    place = {
        name: int(found[0]) if (found := parts[name]) else number
        for number, name in enumerate(distinct)
    }
    return np.array([place[name] for name in names], np.int64)
