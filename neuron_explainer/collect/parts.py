"""A pass over a corpus in parts, by processes that need not know of each other, and their merging.

Part n of N takes every N-th batch of the pass that one process would make, the n-th first, so that
each forward pass is the same. It keeps the state of its collectors in
`data/<subject>.parts/<n>-of-<N>/`; the first part has the weights' tables, too. Merging adds the
states up: records, densities, histograms and counts are those of one process, sums of floats are
added in another order.
"""

import re
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from neuron_explainer.collect.checkpoint import Checkpoints, load_state, save_state
from neuron_explainer.collect.stage import (
    CHECKPOINT,
    Collected,
    Ready,
    configuration,
    open_record_set,
    pass_key,
    prepare,
    tokenised,
)
from neuron_explainer.collect.streaming import Plan, notices_of, stream, write
from neuron_explainer.collect.taken import Taken
from neuron_explainer.collect.weight_tables import WEIGHT_TABLES, WeightTables
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import ConfigError, DataError, RunMismatch
from neuron_explainer.record_set import Corpus, RecordSet
from neuron_explainer.runner import Progress, silent
from neuron_explainer.store import Folder, Shard, locked, shards_of
from neuron_explainer.subjects.base import Subject
from neuron_explainer.workspace import check_name

STATE = "state.npz"
_NAME = re.compile(r"(\d+)-of-(\d+)")
_PART = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")
# what a part's configuration adds to a record set's
_OWN = ("part", "sites", "batch", "batch_tokens", "memory_mb", "state")


@dataclass(frozen=True, slots=True)
class Part:
    """The `number`-th of so many parts of a corpus, from 1 on."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """`2/8`. Raises ConfigError."""
        match = _PART.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise ConfigError(f"--shard '{text}' is no part: write 2/8 for the second of eight")
        return cls(int(match[1]), int(match[2]))

    def folder(self, data: Path, subject: str) -> Folder:
        """Where its state is kept."""
        path = _parts_of(data, subject) / f"{self.number}-of-{self.of}"
        return Folder(path, f"neuron-explainer collect --shard {self.number}/{self.of}")


def _parts_of(data: Path, subject: str) -> Path:
    return data / f"{subject}.parts"


def collect_part(
    data: Path,
    subject_settings: SubjectSettings,
    settings: CollectSettings,
    part: Part,
    progress: Progress = silent,
    subject: Subject | None = None,
) -> Collected:
    """Collect one part of the corpus. A part that is complete is not run again."""
    ready = prepare(subject_settings, settings, subject)
    settings = ready.collect
    known = Folder(data / ready.name / "corpus").complete
    with nullcontext() if known else locked(data / ready.name, wait=True):
        corpus = tokenised(data, ready, settings, progress)
    folder = part.folder(data, ready.name)
    key = pass_key(configuration(ready.settings, settings, corpus), ready.taken, settings)
    with locked(folder.path):
        folder.open(key | {"part": [part.number, part.of]})
        if folder.complete:
            return Collected(ready.name, corpus, ready.widths, tuple(ready.widths))
        plan = Plan.of(corpus, settings, ready.widths)
        kept = Checkpoints(folder.path / CHECKPOINT, key, settings.checkpoint)
        where = (part.number, part.of)
        done = stream(ready.subject, corpus, ready.widths, plan, settings, progress, kept, where)
        save_state(folder.path / STATE, {}, done.collectors)
        folder.register(STATE, len(corpus))
        if part.number == 1:
            _write_weight_tables(folder, ready, settings)
        folder.update({"complete": True})
        kept.remove()
    notices = (*notices_of(plan.layouts, settings), *done.notices)
    return Collected(ready.name, corpus, ready.widths, (), notices)


def _write_weight_tables(folder: Folder, ready: Ready, settings: CollectSettings) -> None:
    tables = WeightTables(ready.subject, ready.taken, settings)
    for site, width in ready.widths.items():
        for shard in shards_of(width):
            made = tables.shard(site, shard)
            folder.write({f"{site}/{shard.file(name)}": table for name, table in made.items()})


def merge(data: Path, name: str, progress: Progress = silent) -> Collected:
    """Make of a subject's parts the record sets that one process would have made.

    Raises DataError where a part is missing or not complete, RunMismatch where two are not of one
    pass or the record sets are there from another.
    """
    folders = _whole(data, check_name(name))
    config = _config_of_all(folders)
    corpus = Corpus(data / name / "corpus")
    if corpus.folder.manifest()["config"] != config["corpus"]:
        raise RunMismatch(
            f"{corpus.folder.path} is not the corpus of {folders[0].path.parent}; delete it and "
            "put that of a part in its place"
        )
    widths: dict[str, int] = config["sites"]
    settings = _settings(config)
    taken = {site: Taken.of(width, settings.neurons) for site, width in widths.items()}
    counts = {site: len(neurons) for site, neurons in taken.items()}
    states = [folder.verified(STATE) for folder in folders]
    plan = Plan.of(corpus, settings, counts)
    about = {key: value for key, value in config.items() if key not in _OWN}
    skipped = []

    def effects(site: str, shard: Shard) -> dict[str, pa.Table]:
        files = {name: f"{site}/{shard.file(name)}" for name in WEIGHT_TABLES}
        return {name: folders[0].read(file) for name, file in files.items() if folders[0].has(file)}

    with locked(data / name):
        for site, width in counts.items():
            folder = RecordSet(data, name, site).folder
            open_record_set(folder, about | {"site": site})
            if folder.complete:
                skipped.append(site)
                continue
            collector = plan.collector(site, width)
            for state in states:
                collector.merge(load_state(state, site))
            write({site: folder}, {site: collector}, effects, corpus, settings, progress, taken)
    return Collected(name, corpus, counts, tuple(skipped), notices_of(plan.layouts, settings))


def _whole(data: Path, name: str) -> list[Folder]:
    """The folders of all parts, in order. Raises DataError when they are not whole."""
    root = _parts_of(data, name)
    matches = [_NAME.fullmatch(path.name) for path in sorted(root.glob("*-of-*"))]
    found = [Part(int(match[1]), int(match[2])) for match in matches if match]
    numbers = sorted({part.of for part in found})
    if not found:
        raise DataError(f"{root} holds no parts; make them with neuron-explainer collect --shard")
    if len(numbers) > 1:
        raise RunMismatch(
            f"{root} holds parts of {' and of '.join(map(str, numbers))}; delete those of one"
        )
    parts = [Part(number + 1, numbers[0]) for number in range(numbers[0])]
    for part in parts:
        folder = part.folder(data, name)
        if not folder.complete:
            state = "is not complete" if folder.exists else "is missing"
            raise DataError(f"{folder.path} {state}; finish it with {folder.rebuild}")
    return [part.folder(data, name) for part in parts]


def _config_of_all(folders: list[Folder]) -> dict[str, Any]:
    configs = [folder.manifest()["config"] for folder in folders]
    for config, folder in zip(configs, folders, strict=True):
        for key in sorted(config.keys() | configs[0].keys()):
            if key != "part" and config.get(key) != configs[0].get(key):
                raise RunMismatch(
                    f"{folder.path} was made with another {key} than {folders[0].path}; "
                    "collect it again with the options of the others"
                )
    first: dict[str, Any] = configs[0]
    return first


def _settings(config: dict[str, Any]) -> CollectSettings:
    """The settings that matter after the pass, from a part's configuration."""
    known = {setting.name for setting in fields(CollectSettings)} - {"corpus", "sites"}
    return CollectSettings(**{key: value for key, value in config.items() if key in known})
