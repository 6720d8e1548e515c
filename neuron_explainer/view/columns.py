"""What a site's table of neurons is sorted and filtered by: one number a neuron and column."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer.store import Folder
from neuron_explainer.view.contract import (
    ACTIVATION_DIGITS,
    BLOCK,
    BLOCKS_PER_FOLDER,
    OTHER_DIGITS,
    Resource,
    Unavailable,
    key_of,
    reading,
    shown,
    significant,
)
from neuron_explainer.view.entries import RunEntry, SimulatorEntry, SiteEntry
from neuron_explainer.view.words import buckets_for

_STATISTICS = {
    "density": OTHER_DIGITS,
    "maximum": ACTIVATION_DIGITS,
    "mean": ACTIVATION_DIGITS,
    "variance": OTHER_DIGITS,
    "skewness": OTHER_DIGITS,
    "kurtosis": OTHER_DIGITS,
}


@dataclass(frozen=True, slots=True)
class Score:
    """A column of scores."""

    run: RunEntry
    simulator: SimulatorEntry
    metric: str


def neurons_of(site: SiteEntry, chosen: Sequence[int] | None = None) -> NDArray[np.int32]:
    """The indices of the neurons that were collected, or of those `chosen`, sorted (rows,)."""
    if _is_range(site):
        found = np.arange(site.neurons, dtype=np.int32)
        return found if chosen is None else found[np.isin(found, chosen)]
    held = [
        folder.read_all(table, ["neuron"])["neuron"].to_numpy()
        for folder, table in _tables(site)
        if folder.shards(table)
    ]
    found = np.unique(np.concatenate([np.array([], np.int32), *held])).astype(np.int32)
    return found if chosen is None else found[np.isin(found, chosen)]


def _is_range(site: SiteEntry) -> bool:
    """Whether all neurons from 0 on were collected, as far as manifests tell: nothing is read."""
    listed, stop = site.folder.manifest()["shards"], 0
    if "format" in site.folder.config:
        return False
    for shard, file in site.folder.shards("neurons"):
        if shard.start != stop or listed[file].get("rows") != shard.stop - shard.start:
            return False
        stop = shard.stop
    return stop > 0


def _tables(site: SiteEntry) -> list[tuple[Folder, str]]:
    """What names the neurons of a site: what was imported may have one part and not another."""
    if "format" not in site.folder.config:
        return [(site.folder, "neurons")]
    explained = [(run.folder, f"{site.name}/explanations") for run in site.runs]
    return [(site.folder, "neurons"), (site.folder, "records"), *explained]


def columns_resource(site: SiteEntry, neurons: NDArray[np.int32]) -> Resource:
    """columns.json."""
    rows = len(neurons)
    plain = rows == 0 or int(neurons[-1]) == rows - 1
    return {
        "rows": rows,
        "neurons": None if plain else neurons,
        "block": BLOCK,
        "blocks_per_folder": BLOCKS_PER_FOLDER,
        "columns": [_about(key, column) for key, column in _columns(site)],
        "search": {"buckets": buckets_for(rows)},
    }


def column_keys(site: SiteEntry) -> list[str]:
    """The keys of all columns."""
    return [key for key, _ in _columns(site)]


def column_resource(site: SiteEntry, neurons: NDArray[np.int32], key: str) -> Resource:
    """columns/COLUMN.json. Raises Unavailable where there is no such column."""
    column = dict(_columns(site)).get(key)
    if column is None:
        raise Unavailable(404, "there is no such column", None)
    if isinstance(column, Score):
        name = f"{site.name}/scores"
        with reading(column.simulator.folder.rebuild):
            values = _aligned(column.simulator, name, column.metric, neurons)
        return {"values": significant(values, OTHER_DIGITS)}
    with reading(site.folder.rebuild):
        table = site.folder.read_all("neurons", ["neuron", column])
    return {"values": significant(_spread(table, column, neurons), _STATISTICS[column])}


def _columns(site: SiteEntry) -> Iterator[tuple[str, str | Score]]:
    if site.folder.shards("neurons"):
        yield from ((name, name) for name in _STATISTICS)
    for run in site.runs:
        for simulator in run.simulators:
            if site.name in simulator.scored_sites:
                for metric in simulator.metrics:
                    key = key_of(run.run.name, simulator.name, metric)
                    yield key, Score(run, simulator, metric)


def _about(key: str, column: str | Score) -> dict[str, Any]:
    if isinstance(column, str):
        return {
            **{"key": key, "label": column, "kind": "statistic"},
            **{"run": None, "simulator": None, "metric": None},
        }
    return {
        **{"key": key, "label": column.metric.replace("_", " "), "kind": "score"},
        **{"run": column.run.key, "simulator": shown(column.simulator.name)},
        "metric": column.metric,
    }


def _aligned(
    simulator: SimulatorEntry, name: str, metric: str, neurons: NDArray[np.int32]
) -> NDArray[np.float64]:
    parts = []
    for _, file in simulator.folder.shards(name):
        with suppress(KeyError):  # it may have been written before there was such a metric
            parts.append(simulator.folder.read(file, ["neuron", metric]))
    return _spread(pa.concat_tables(parts), metric, neurons) if parts else _undefined(neurons)


def _spread(table: pa.Table, column: str, neurons: NDArray[np.int32]) -> NDArray[np.float64]:
    """A column in order of `neurons`; NaN where the table has no value of one."""
    values = _undefined(neurons)
    held = table["neuron"].to_numpy()
    place = np.clip(np.searchsorted(neurons, held), 0, max(0, len(neurons) - 1))
    known = neurons[place] == held if len(neurons) else np.zeros(len(held), np.bool_)
    values[place[known]] = table[column].cast(pa.float64()).fill_null(np.nan).to_numpy()[known]
    return values


def _undefined(neurons: NDArray[np.int32]) -> NDArray[np.float64]:
    return np.full(len(neurons), np.nan)
