"""The score stage: truth against prediction, offline, and what a layer's scores come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neuron_explainer.config import ScoreSettings
from neuron_explainer.errors import DataError
from neuron_explainer.firing import firing_threshold
from neuron_explainer.record_set import RecordSet
from neuron_explainer.runner import Progress, silent
from neuron_explainer.runs import Run
from neuron_explainer.score.base import NO_CALIBRATION_TOKENS, Scores
from neuron_explainer.score.correlation import correlation
from neuron_explainer.score.joined import Joined, join, truth_of
from neuron_explainer.score.over_corpus import over_corpus
from neuron_explainer.score.panel import METRICS, score_all
from neuron_explainer.score.sequences import SEQUENCE_METRICS, Verdicts, largest
from neuron_explainer.score.strata import Strata
from neuron_explainer.store import Folder, Shard, locked

Number = TypeVar("Number", bound=np.generic)
RecordChoice = Literal["top_and_random", "random_only"]
CHOICES: tuple[RecordChoice, ...] = ("top_and_random", "random_only")
POPULATION = "correlation_population"
TOKEN_SCORES = (
    *(f"{metric}_{choice}" for choice in CHOICES for metric in METRICS),
    POPULATION,
)
# Random records alone are of one kind for most neurons: the mean would be over a few odd ones.
SEQUENCE_SCORES = tuple(f"{metric}_top_and_random" for metric in SEQUENCE_METRICS)


@dataclass(frozen=True, slots=True)
class SiteScores:
    """All scores of one site, by `<metric>_<choice of records>`."""

    site: str
    neurons: NDArray[np.int32]
    scores: Mapping[str, Scores]


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
    if changed := run.changed_since(folder):
        name = folder.manifest()["config"].get("simulator", simulator)
        raise DataError(
            f"{len(changed)} shards of run '{run.name}' were explained again since {simulator} "
            f"simulated them: repeat neuron-explainer simulate {run.name} --simulator {name}, with "
            "the options it had"
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


def begins(folder: Folder) -> bool:
    """Whether a shard of these simulations is there: a stage may have been stopped before."""
    return any("/simulations-" in file for file in folder.manifest()["shards"])


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
    joined = join(simulations, truth_of(record_set, shard), record_set.corpus)
    if predicts_sequences(folder):
        scores = _sequence_scores(joined, simulations, record_set, shard, settings)
    else:
        scores = _token_scores(joined, neurons, settings)
        scores[POPULATION] = over_corpus(
            joined, neurons, Strata.read(record_set, shard), settings.split
        )
    return _scores_table(neurons, scores, names)


def _token_scores(
    joined: Joined, neurons: NDArray[np.int32], settings: ScoreSettings
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
    joined: Joined,
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
