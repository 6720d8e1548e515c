"""How far a neuron's score depends on which of its held-out sequences were simulated.

A neuron's simulated sequences, of all held-out splits, are dealt at random into two disjoint sets
of the same size, half of either being top records; each set gives a score. The agreement is the
rank correlation of the two over neurons: what remains of a ranking of neurons when other sequences
are simulated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuron_explainer.compare.sources import SITE_BITS, Source
from neuron_explainer.compare.statistics import Estimate, Floats, Ints, spearman
from neuron_explainer.record_set import RecordSet, list_column
from neuron_explainer.score.bootstrap import Interval

SAMPLE = 200  # neurons
_DEALS = 20
_SUMS = 6  # tokens, Σt, Σp, Σt², Σp², Σtp of one sequence
_NORMAL = 1.959964


@dataclass(frozen=True, slots=True)
class Reliability:
    """One method's agreement by the number of sequences that a score is taken from."""

    method: str
    neurons: int
    sequences: tuple[int, ...]
    agreement: tuple[Estimate, ...]
    reported_sequences: int  # that a reported score is taken from
    reported: float | None  # its agreement, by Spearman and Brown's formula


def reliability_of(
    method: str, source: Source, sites: Sequence[str], keys: Ints, kinds: Sequence[str], seed: int
) -> Reliability | None:
    """The agreement on a sample of the neurons `keys`; None where too few sequences are simulated.

    `kinds` are the records that the score is taken from: top and random, or random alone.
    """
    rng = np.random.default_rng([seed, 2])
    chosen = np.sort(rng.choice(keys, min(SAMPLE, len(keys)), replace=False))
    sums, reported = _sums(source, sites, chosen, kinds)
    if not sums or min(part.shape[1] for part in sums) < 2 or len(sums[0]) < 4:
        return None
    most = min(part.shape[1] for part in sums) // 2
    found: list[tuple[int, Estimate]] = []
    for size in range(1, most + 1):
        if (agreement := _agreement(sums, size, rng)) is not None:
            found.append((size * len(kinds), agreement))
    if not found:
        return None
    sequences, agreements = zip(*found, strict=True)
    known = agreements[-1].value
    return Reliability(
        method,
        len(sums[0]),
        sequences,
        agreements,
        reported,
        spearman_brown(known, reported / sequences[-1]) if known > 0 else None,
    )


def spearman_brown(agreement: float, times: float) -> float:
    """The agreement of scores from so many `times` the sequences (Spearman 1910, Brown 1910)."""
    return times * agreement / (1 + (times - 1) * agreement)


def _agreement(
    sums: Sequence[NDArray[np.float64]], size: int, rng: np.random.Generator
) -> Estimate | None:
    """The mean over deals, with the interval of one rank correlation (Bonett & Wright 2000)."""
    found, counts = [], []
    for _ in range(_DEALS):
        halves = np.zeros((2, len(sums[0]), _SUMS))
        for part in sums:
            order = rng.permuted(np.tile(np.arange(part.shape[1]), (len(part), 1)), axis=1)
            for half in (0, 1):
                dealt = order[:, half * size : (half + 1) * size, None]
                halves[half] += np.take_along_axis(part, dealt, axis=1).sum(axis=1)
        first, second = (_correlations(half) for half in halves)
        both = np.isfinite(first) & np.isfinite(second)
        if (ranked := spearman(first[both], second[both])) is not None:
            found.append(ranked)
            counts.append(int(both.sum()))
    if not found or min(counts) < 4:
        return None
    mean = float(np.mean(found))
    half = _NORMAL * np.sqrt((1 + mean**2 / 2) / (np.mean(counts) - 3))
    centre = np.arctanh(np.clip(mean, -0.999999, 0.999999))
    return Estimate(mean, Interval(float(np.tanh(centre - half)), float(np.tanh(centre + half))))


def _correlations(sums: Floats) -> Floats:
    """Pearson's r from sums (neurons, 6); NaN where truth or prediction hardly varies."""
    count, t, p, tt, pp, tp = sums.T
    with np.errstate(all="ignore"):
        true, predicted = tt - t * t / count, pp - p * p / count
        r: Floats = (tp - t * p / count) / np.sqrt(true * predicted)
    return np.where((true > 1e-9) & (predicted > 1e-9), r, np.nan)


def _sums(
    source: Source, sites: Sequence[str], keys: Ints, kinds: Sequence[str]
) -> tuple[list[NDArray[np.float64]], int]:
    """For each kind of record the sums (neurons, sequences, 6), and the sequences of a score.

    Neurons with fewer sequences than most are left out.
    """
    neurons = [_of_neuron(source, sites, int(key)) for key in keys]
    held = [[[sums for kind, _, sums in rows if kind == one] for one in kinds] for rows in neurons]
    counts = [tuple(map(len, parts)) for parts in held]
    if not counts:
        return [], 0
    usual = max(sorted(set(counts)), key=counts.count)
    kept = [parts for parts, count in zip(held, counts, strict=True) if count == usual]
    in_split = [
        sum(kind in kinds and split == source.settings.split for kind, split, _ in rows)
        for rows in neurons
    ]
    if min(usual) == 0:
        return [], 0
    stacked = [np.array([parts[place] for parts in kept]) for place in range(len(kinds))]
    return stacked, int(np.median(in_split))


def _of_neuron(
    source: Source, sites: Sequence[str], key: int
) -> list[tuple[str, str, NDArray[np.float64]]]:
    """Kind, split and sums of each simulated record of one neuron, in units of its own spread."""
    site, index = sites[key >> SITE_BITS], key & ((1 << SITE_BITS) - 1)
    rows = list(_pairs(source, site, index))
    if not rows:
        return []
    truths, predictions = (np.concatenate([row[place] for row in rows]) for place in (2, 3))
    scale = [(values.mean(), values.std() or 1.0) for values in (truths, predictions)]
    found = []
    for kind, split, truth, predicted in rows:
        t, p = (
            (values - mean) / spread
            for values, (mean, spread) in zip((truth, predicted), scale, strict=True)
        )
        sums = np.array([len(t), t.sum(), p.sum(), t @ t, p @ p, t @ p])
        found.append((kind, split, sums))
    return found


def _pairs(source: Source, site: str, index: int) -> Iterator[tuple[str, str, Floats, Floats]]:
    """Kind, split, truth and prediction of each simulated record, where both count."""
    record_set = RecordSet(source.run.workspace.data, source.run.subject, site)
    columns = ["neuron", "kind", "split", "sequence", "activations"]
    if not any(index in shard for shard, _ in source.folder.shards(f"{site}/simulations")):
        return
    simulated = source.folder.read_neuron(f"{site}/simulations", index, columns)
    records = record_set.folder.read_neuron("records", index, columns)
    names = [records[name].to_pylist() for name in columns[1:4]]
    place = {name: row for row, name in enumerate(zip(*names, strict=True))}
    starts, truth = list_column(records["activations"])
    ends, predicted = list_column(simulated["activations"])
    asked = zip(*(simulated[name].to_pylist() for name in columns[1:4]), strict=True)
    for row, name in enumerate(asked):
        if name not in place:
            continue
        true = truth[starts[place[name]] : starts[place[name] + 1]].astype(np.float64)
        said = predicted[ends[row] : ends[row + 1]].astype(np.float64)
        ids = record_set.corpus.token_ids(name[2])
        if len(true) == len(said) == len(ids):
            counts = record_set.corpus.scored(ids) & np.isfinite(said)
            yield name[0], name[1], true[counts], said[counts]
