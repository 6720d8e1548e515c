"""A site of a run in Neuronpedia's export layout, streamed: a shard of neurons in memory."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from neuron_explainer.errors import ConfigError, DataError, NeuronFailure
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.interchange import json_lines
from neuron_explainer.interchange.neuronpedia import (
    ACTIVATIONS,
    EXPLAINERS,
    EXPLANATIONS,
    FEATURES,
    PARTS,
    Target,
)
from neuron_explainer.interchange.neuronpedia_about import About
from neuron_explainer.interchange.neuronpedia_rows import Described, Row, RowMaker
from neuron_explainer.interchange.openai_published import between
from neuron_explainer.record_set import RecordSet, collected_sites
from neuron_explainer.records import Failure, NeuronRecord
from neuron_explainer.runs import Run
from neuron_explainer.store import SHARD_SIZE, Folder, Shard, replace_file
from neuron_explainer.workspace import Workspace

SMALLEST_BATCH = 1024  # features
MOST_FILES = 999  # in a folder
NO_CLOCK = "1970-01-01T00:00:00.000Z"  # so that the same run gives the same bytes


@dataclass(frozen=True)
class ExportSettings:
    """How a site is called there, and what goes into every line."""

    model: str
    source: str
    site: str | None = None  # None: the only one of the run
    simulator: str | None = None  # whose scores are noted; None: the only useful one
    all_neurons: bool = False  # of the record set, not only those of the run
    creator: str = "neuron-explainer"
    created: str = NO_CLOCK
    release: str | None = None  # None: the name of the source set
    explanation_type: str | None = None
    explanation_model: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    to: Path
    rows: dict[str, int]  # by folder
    failures: tuple[Failure, ...]  # neurons that could not be


@dataclass(frozen=True)
class SiteOfRun:
    """A site of a run, its records and what is said of its neurons."""

    run: Run
    site: str
    maker: RowMaker
    settings: ExportSettings

    @classmethod
    def open(cls, root: Path, name: str, settings: ExportSettings) -> "SiteOfRun":
        """Raises ConfigError and DataError when there is no such run or site."""
        run = Run(Workspace(root), name)
        run.require()
        site = _site(run, settings.site)
        if is_pattern(site):
            raise ConfigError(
                f"{site}: Neuronpedia's layout has an activation a token, and those of attention "
                "heads are of pairs of them: choose a site of neurons or latents"
            )
        target = Target.of(settings.model, settings.source, site)
        maker = RowMaker(target, site, run.subject, settings.creator, settings.created)
        return cls(run, site, maker, settings)

    @property
    def record_set(self) -> RecordSet:
        """The records."""
        return RecordSet(self.run.workspace.data, self.run.subject, self.site)

    def neurons(self) -> list[int]:
        """Which neurons the run is about, or all that there are."""
        if self.settings.all_neurons:
            return list(self.record_set.neurons)
        ranges = self.run.folder.shards(f"{self.site}/explanations")
        return sorted({neuron for shard, _ in ranges for neuron in range(shard.start, shard.stop)})

    def rows(self, neurons: Sequence[int]) -> Iterator[dict[str, list[Row]] | Failure]:
        """The rows of each neuron by folder, or why there are none."""
        said = self._said()
        for neuron, boundaries in read_neurons(self.record_set, neurons):
            index = neuron.neuron.index
            try:
                yield {
                    FEATURES: [self.maker.feature(neuron)],
                    ACTIVATIONS: self.maker.activations(neuron, boundaries),
                    EXPLANATIONS: [self.maker.explanation(neuron, said[index])]
                    if index in said
                    else [],
                }
            except NeuronFailure as failure:
                yield Failure(neuron.neuron, "export", failure.cause, str(failure))

    def _said(self) -> dict[int, Described]:
        config = self.run.folder.manifest()["config"]
        model = self.settings.explanation_model or _model_name(config.get("llm"))
        notes = _notes(self.run, self.site, self.settings.simulator)
        found = {}
        for _, file in self.run.folder.shards(f"{self.site}/explanations"):
            for index, explanation in self.run.explanations(self.site, file).items():
                kind = self.settings.explanation_type or EXPLAINERS.get(explanation.explainer)
                found[index] = Described(explanation.text, kind, model, notes.get(index))
        return found


def export_run(root: Path, name: str, settings: ExportSettings, to: Path) -> Exported:
    """Run `name` of the workspace at `root` as `{to}/v1/{model}/{source}/`: whole or not at all.

    Raises ConfigError and DataError as `SiteOfRun.open` does, and when the folder exists.
    """
    site = SiteOfRun.open(root, name, settings)
    target = site.maker.target
    folder = to / "v1" / target.model / target.source
    if folder.exists():
        raise DataError(f"{folder} exists: delete it or choose another --to")
    partial = folder.with_name(f".{target.source}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for file, content in _about(site).files().items():
            replace_file(
                partial / f"{file}.jsonl",
                orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE),
            )
        counts, failures = dict.fromkeys(PARTS, 0), list[Failure]()
        for number, neurons in enumerate(batches(site.neurons())):
            failures += _write_batch(partial, number, site.rows(neurons), counts)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(folder, counts, tuple(failures))


def batches(neurons: Sequence[int]) -> list[Sequence[int]]:
    """Neurons cut into files of about equal size, each of at least SMALLEST_BATCH where it can."""
    number = min(MOST_FILES, max(1, len(neurons) // SMALLEST_BATCH))
    bounds = [len(neurons) * place // number for place in range(number + 1)]
    return [neurons[first:stop] for first, stop in pairwise(bounds)]


def _write_batch(
    folder: Path,
    number: int,
    neurons: Iterator[dict[str, list[Row]] | Failure],
    counts: dict[str, int],
) -> list[Failure]:
    failures = []
    with ExitStack() as stack:
        files = {
            part: stack.enter_context(
                json_lines.writing(folder / part / f"batch-{number}.jsonl.gz")
            )
            for part in PARTS
        }
        for made in neurons:
            if isinstance(made, Failure):
                failures.append(made)
                continue
            for part, rows in made.items():
                counts[part] += len(rows)
                for row in rows:
                    files[part].write(dump(row))
    return failures


def dump(row: Row) -> bytes:
    """A row as a line."""
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def read_neurons(
    record_set: RecordSet, neurons: Sequence[int]
) -> Iterator[tuple[NeuronRecord, Sequence[float] | None]]:
    """Neurons with their quantile boundaries; those of which nothing is known are left out."""
    chosen = set(neurons)
    for start in sorted({neuron // SHARD_SIZE * SHARD_SIZE for neuron in neurons}):
        shard = Shard(start, min(start + SHARD_SIZE, max(neurons) + 1))
        boundaries = _boundaries(record_set.folder, shard)
        for neuron in record_set.shard(shard, ("records", "neurons", "logit_effects", "nearest")):
            known = neuron.statistics is not None or neuron.records
            if neuron.neuron.index in chosen and known:
                yield neuron, boundaries.get(neuron.neuron.index)


def _boundaries(folder: Folder, shard: Shard) -> dict[int, Any]:
    rows = between(folder, "neurons", shard, ["neuron", "quantile_boundaries"])
    if rows is None:
        return {}
    return {row["neuron"]: row["quantile_boundaries"] for row in rows.to_pylist()}


def _site(run: Run, site: str | None) -> str:
    known = run.sites()
    if site is None and len(known) == 1:
        return known[0]
    if site is None or site not in known:
        what = "which site?" if site is None else f"{run.name} has no site '{site}';"
        raise ConfigError(f"{what} --site takes one of: {', '.join(known) or 'none'}")
    return site


def _about(site: SiteOfRun) -> About:
    run, record_set, settings = site.run, site.record_set, site.settings
    layers = [int(name.split(".")[1]) for name in collected_sites(run.workspace.data, run.subject)]
    return About(
        site.maker.target,
        site.site,
        1 + max(layers, default=site.maker.target.layer),
        record_set.width,
        len(record_set.corpus),
        record_set.corpus.excludes_first,
        settings.release or site.maker.target.set,
        settings.creator,
        settings.created,
    )


def _model_name(model: object) -> str | None:
    return model.rpartition("/")[2] if isinstance(model, str) else None


def _notes(run: Run, site: str, simulator: str | None) -> dict[int, str]:
    """What is noted of each neuron: its scores, shortly."""
    known = run.simulators()
    chosen = simulator or next((name for name in ("imported", "token-lookup") if name in known), "")
    if chosen not in known:
        if simulator is not None:
            raise ConfigError(
                f"no simulator '{simulator}' has run on {run.name}: {', '.join(known) or 'none'}"
            )
        return {}
    folder = run.simulations(chosen)
    notes: dict[int, str] = {}
    for table in ("scores", "published"):
        for _, file in folder.shards(f"{site}/{table}"):
            for row in folder.read(file).to_pylist():
                if note := _note(row, chosen):
                    notes.setdefault(row["neuron"], note)
    return notes


def _note(row: Row, simulator: str) -> str | None:
    named = {
        "correlation_top_and_random": "top and random",
        "correlation_random_only": "random only",
        "ev_correlation_score": "as published",
    }
    parts = [
        f"{row[name]:.3f} {label}" for name, label in named.items() if row.get(name) is not None
    ]
    return f"correlation {', '.join(parts)} ({simulator}, split valid)" if parts else None
