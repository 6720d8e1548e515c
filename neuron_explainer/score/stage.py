"""The score stage: truth against prediction, offline, and what a layer's scores come to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neuron_explainer.config import ScoreSettings
from neuron_explainer.errors import DataError
from neuron_explainer.firing import firing_threshold
from neuron_explainer.record_set import Corpus, RecordSet, list_column
from neuron_explainer.records import BoolArray, FloatArray
from neuron_explainer.runner import Progress, silent
from neuron_explainer.runs import Run
from neuron_explainer.score.base import NO_CALIBRATION_TOKENS, Scores
from neuron_explainer.score.correlation import correlation
from neuron_explainer.score.panel import METRICS, score_all
from neuron_explainer.score.sequences import SEQUENCE_METRICS, Verdicts, largest
from neuron_explainer.store import Folder, Shard, locked

Number = TypeVar("Number", bound=np.generic)
RecordChoice = Literal["top_and_random", "random_only"]
CHOICES: tuple[RecordChoice, ...] = ("top_and_random", "random_only")
TOKEN_SCORES = tuple(f"{metric}_{choice}" for choice in CHOICES for metric in METRICS)
# Random records alone are of one kind for most neurons: the mean would be over a few odd ones.
SEQUENCE_SCORES = tuple(f"{metric}_top_and_random" for metric in SEQUENCE_METRICS)


@dataclass(frozen=True, slots=True)
class SiteScores:
    """All scores of one site, by `<metric>_<choice of records>`."""

    site: str
    neurons: NDArray[np.int32]
    scores: Mapping[str, Scores]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Truth and prediction of a split, one row a neuron, padded: (neurons, tokens)."""

    truth: FloatArray
    predicted: FloatArray
    mask: BoolArray
    random: BoolArray  # which of them belong to random records


def score(
    run: Run, simulator: str, settings: ScoreSettings, progress: Progress = silent
) -> list[SiteScores]:
    """Score what `simulator` predicted; only shards without scores of this split are computed."""
    run.require()
    folder = run.simulations(simulator)
    if not folder.exists:
        raise DataError(f"{simulator} has not simulated run '{run.name}': {folder.rebuild}")
    if not holds(folder, settings.split):
        raise DataError(
            f"{simulator} has not simulated the {settings.split} split of run '{run.name}': "
            + _how_to_simulate(run, folder, settings.split)
        )
    with locked(folder.path):
        todo = [
            (site, shard, file)
            for site in run.sites()
            for shard, file in folder.shards(f"{site}/simulations")
            if not folder.has(f"{site}/{shard.file(table_name(settings))}")
        ]
        with progress(f"score {simulator}", len(todo), "shards") as advance:
            for site, shard, file in todo:
                record_set = RecordSet(run.workspace.data, run.subject, site)
                table = _score_shard(folder, file, record_set, shard, settings)
                folder.write({f"{site}/{shard.file(table_name(settings))}": table})
                advance(1)
    return [read_scores(folder, site, settings) for site in run.sites()]


def holds(folder: Folder, split: str) -> bool:
    """Whether these simulations, if any, are also of `split`; imported ones do not say."""
    return folder.exists and split in folder.manifest()["config"].get("splits", [split])


def _how_to_simulate(run: Run, folder: Folder, split: str) -> str:
    """The command after which `folder`, or one beside it, holds this split too."""
    if split == "test":
        return f"delete {folder.path} and run {folder.rebuild} --test"
    simulator = folder.manifest()["config"]["simulator"]
    return f"neuron-explainer simulate {run.name} --simulator {simulator}"


def table_name(settings: ScoreSettings) -> str:
    """Under which name the scores of this split are stored."""
    return "scores" if settings.split == "valid" else f"scores-{settings.split}"


def read_scores(folder: Folder, site: str, settings: ScoreSettings) -> SiteScores:
    """The scores of one site. Raises DataError when there are none."""
    table = folder.read_all(f"{site}/{table_name(settings)}")
    names = [name for name in table.column_names[1:] if not name.endswith("_undefined")]
    scores = {
        name: Scores(
            table[name].to_numpy(zero_copy_only=False).astype(np.float64),
            tuple(table[f"{name}_undefined"].to_pylist()),
        )
        for name in names
    }
    return SiteScores(site, table["neuron"].to_numpy(), scores)


def _score_shard(
    folder: Folder, file: str, record_set: RecordSet, shard: Shard, settings: ScoreSettings
) -> pa.Table:
    simulations = folder.read(file)
    neurons = np.unique(simulations["neuron"].to_numpy())
    names = SEQUENCE_SCORES if predicts_sequences(folder) else TOKEN_SCORES
    if not len(neurons):
        return _scores_table(neurons, {}, names)
    joined = _join(simulations, _truth(record_set, shard), record_set.corpus)
    if predicts_sequences(folder):
        scores = _sequence_scores(joined, simulations, record_set, shard, settings)
    else:
        scores = _token_scores(joined, neurons, settings)
    return _scores_table(neurons, scores, names)


def _token_scores(
    joined: "_Joined", neurons: NDArray[np.int32], settings: ScoreSettings
) -> dict[str, Scores]:
    pairs = joined.of_split(settings.split, neurons)
    calibration = joined.of_split("calibration", neurons)
    scores: dict[str, Scores] = {}
    for choice in CHOICES:
        chosen = pairs.mask & pairs.random if choice == "random_only" else pairs.mask
        if calibration.mask.any() and settings.split != "calibration":
            figures = score_all(
                pairs.truth,
                pairs.predicted,
                chosen,
                calibration_truth=calibration.truth,
                calibration_predicted=calibration.predicted,
                calibration_mask=calibration.mask,
            )
        else:  # no other tokens to calibrate on: imported, or the calibration split itself
            figures = {"correlation": correlation(pairs.truth, pairs.predicted, chosen)}
        scores |= {f"{name}_{choice}": figure for name, figure in figures.items()}
    return scores


def predicts_sequences(folder: Folder) -> bool:
    """Whether these simulations are verdicts about sequences; those that do not say are not."""
    return bool(folder.manifest().get("predicts") == "sequences")


def _sequence_scores(
    joined: "_Joined",
    simulations: pa.Table,
    record_set: RecordSet,
    shard: Shard,
    settings: ScoreSettings,
) -> dict[str, Scores]:
    """Against whether the neuron fires, or whether what was highlighted is where it does."""
    thresholds = {
        neuron.neuron.index: firing_threshold(neuron.statistics)
        for neuron in record_set.shard(shard, ["neurons"])
    }
    least = np.array([thresholds[neuron] for neuron in joined.neuron.tolist()])
    truth = pa.array(largest(joined.truth, joined.scored, joined.lengths) > least)
    if "genuine" in simulations.column_names:
        truth = pc.coalesce(simulations["genuine"].combine_chunks(), truth)
    defined = joined.scored & np.isfinite(joined.predicted)
    said = largest(joined.predicted, defined, joined.lengths)
    rows = joined.split == settings.split
    fires = truth.to_numpy(zero_copy_only=False)
    verdicts = Verdicts(joined.neuron[rows], fires[rows], said[rows])
    scores = verdicts.score(np.unique(joined.neuron))
    return {f"{name}_top_and_random": figure for name, figure in scores.items()}


def _truth(record_set: RecordSet, shard: Shard) -> pa.Table:
    columns = ["neuron", "kind", "split", "sequence", "activations"]
    parts = [
        record_set.folder.read(file, columns)
        for held, file in record_set.folder.shards("records")
        if held.start < shard.stop and shard.start < held.stop
    ]
    table = pa.concat_tables(parts)
    return table.filter(pc.is_valid(table["split"]))


_KEYS = ("neuron", "kind", "split", "sequence")


@dataclass(frozen=True, slots=True)
class _Joined:
    """Simulated records with their truth, one a row; `offsets` are into the flat arrays."""

    neuron: NDArray[np.int32]
    split: NDArray[np.str_]
    random: BoolArray
    lengths: NDArray[np.int64]
    truth: FloatArray
    predicted: FloatArray
    scored: BoolArray

    def of_split(self, split: str, neurons: NDArray[np.int32]) -> _Pairs:
        """The records of one split, concatenated for each of `neurons`."""
        rows = self.split == split
        tokens = np.repeat(rows, self.lengths)
        lengths = self.lengths[rows]
        owner = np.repeat(np.searchsorted(neurons, self.neuron[rows]), lengths)
        width = np.bincount(owner, minlength=len(neurons))
        start = np.concatenate([[0], np.cumsum(width)[:-1]])
        place = np.arange(len(owner)) - start[owner]
        shape = (len(neurons), int(width.max(initial=0)))

        def spread(values: NDArray[Number]) -> NDArray[Number]:
            matrix = np.zeros(shape, values.dtype)
            matrix[owner, place] = values
            return matrix

        predicted = self.predicted[tokens]
        defined = np.isfinite(predicted)
        return _Pairs(
            spread(self.truth[tokens]),
            spread(np.where(defined, predicted, 0.0)),
            spread(self.scored[tokens] & defined),
            spread(np.repeat(self.random[rows], lengths)),
        )


def _join(simulations: pa.Table, records: pa.Table, corpus: Corpus) -> _Joined:
    """Each simulation with the record it simulates. Raises DataError when one has none."""
    numbered = records.append_column("row", pa.array(np.arange(len(records))))
    order = pa.array(np.arange(len(simulations)))
    keys = simulations.select(_KEYS).append_column("order", order)
    found = keys.join(numbered.select([*_KEYS, "row"]), list(_KEYS)).sort_by("order")
    if found["row"].null_count or len(found) != len(simulations):
        raise DataError(
            "a simulation has no record: the records were collected anew since; "
            "delete the simulations and run neuron-explainer simulate again"
        )
    rows = found["row"].to_numpy()
    offsets, predicted = list_column(simulations["activations"])
    true_offsets, truth = list_column(records["activations"].combine_chunks().take(pa.array(rows)))
    if not np.array_equal(offsets, true_offsets):
        raise DataError("a simulation and its record differ in length: simulate again")
    sequences = simulations["sequence"].to_numpy()
    return _Joined(
        simulations["neuron"].to_numpy(),
        np.array(simulations["split"].to_pylist()),
        np.array(simulations["kind"].to_pylist()) == "random",
        np.diff(offsets),
        truth,
        predicted,
        np.concatenate(list(_scored(corpus, sequences))),
    )


def _scored(corpus: Corpus, sequences: Sequence[int] | NDArray[np.int32]) -> Iterator[BoolArray]:
    known: dict[int, BoolArray] = {}
    for sequence in sequences:
        if sequence not in known:
            known[sequence] = corpus.scored(corpus.token_ids(int(sequence)))
        yield known[sequence]


def _scores_table(
    neurons: NDArray[np.int32], scores: Mapping[str, Scores], names: Sequence[str]
) -> pa.Table:
    """All scores of some neurons; one that could not be computed is null with its reason."""
    columns: dict[str, pa.Array] = {"neuron": pa.array(neurons, pa.int32())}
    absent = Scores(np.full(len(neurons), np.nan), (NO_CALIBRATION_TOKENS,) * len(neurons))
    for name in names:
        figure = scores.get(name, absent)
        columns[name] = pa.array(figure.values, pa.float64(), mask=np.isnan(figure.values))
        columns[f"{name}_undefined"] = pa.array(figure.reasons, pa.string())
    return pa.table(columns)
