"""The training of an autoencoder, from a model and a corpus to a folder that `--sae` takes."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuron_explainer.collect.stage import Ready, prepare, tokenised
from neuron_explainer.config import CollectSettings, SubjectSettings, TrainSettings
from neuron_explainer.errors import ConfigError, CorpusError, SubjectError
from neuron_explainer.record_set import Corpus
from neuron_explainer.runner import Progress, silent
from neuron_explainer.store import Folder, locked
from neuron_explainer.subject_loading import fingerprint
from neuron_explainer.subjects import sparse_formats
from neuron_explainer.subjects.base import Subject
from neuron_explainer.train import recipe
from neuron_explainer.train.buffer import Buffer, Reader
from neuron_explainer.train.checkpoint import Checkpoints
from neuron_explainer.train.figures import measure
from neuron_explainer.train.loop import steps_of
from neuron_explainer.train.objectives import Objective
from neuron_explainer.train.place import Place
from neuron_explainer.train.training import Display, Training, split, unseen

HELD_OUT = 16_384  # tokens, and at most a tenth of the corpus
_STATE = "state.pt"
_FLOAT = 4  # bytes
_MANY = 20  # passes over the corpus
_FEW = 2000  # tokens


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training made."""

    path: Path  # what --sae takes
    site: str
    report: Mapping[str, Any]  # as in training.json
    named: bool  # whether its files say which site it reads
    skipped: bool  # it was there already
    notices: tuple[str, ...]  # what the user should know


def train(
    to: Path,
    subject_settings: SubjectSettings,
    settings: TrainSettings,
    progress: Progress = silent,
    display: Display = unseen,
    subject: Subject | None = None,
) -> Trained:
    """Train an autoencoder on a site of the subject and write it to the folder `to`.

    Raises ConfigError for settings that contradict each other or the format, SubjectError and
    CorpusError for a site or a text that cannot be had, WorkspaceError or RunMismatch when `to`
    holds something else.
    """
    settings = recipe.check(settings)
    place = Place(to, settings.file_format)
    place.check()
    reading = _reading(settings)
    ready = prepare(subject_settings, reading, subject)
    width = ready.widths[settings.site]
    settings = recipe.complete(settings, width)
    objective = recipe.objective(settings, width)
    with locked(to):
        config = _configuration(place, ready, subject_settings, settings)
        found = place.finished(config)
        report = found
        if report is None:
            Folder(place.work, "neuron-explainer train-sae").open(config)
            try:
                corpus = tokenised(place.work, ready, reading, progress)
                report = _trained(place, ready, corpus, objective, settings, display)
            except (ConfigError, CorpusError, SubjectError):  # to go on would end there again
                shutil.rmtree(place.work)
                raise
            place.note(report | {"config": config})
        shutil.rmtree(place.work, ignore_errors=True)
    named = sparse_formats.format_named(settings.file_format).site_of(place.autoencoder) is not None
    said = _notices(ready, report, settings, named)
    return Trained(place.autoencoder, settings.site, report, named, found is not None, said)


def _trained(
    place: Place,
    ready: Ready,
    corpus: Corpus,
    objective: Objective,
    settings: TrainSettings,
    display: Display,
) -> dict[str, Any]:
    """Train and write the autoencoder; what is to be said of it."""
    lengths = torch.from_numpy(corpus.lengths - 1)  # the first position does not count
    held, places = split(lengths, HELD_OUT, settings.seed)
    reader = Reader(ready.subject, settings.site, corpus, settings.forward)
    training = Training.begin(_buffer(reader, places, settings), objective, settings)
    kept = Checkpoints(place.work / _STATE, Folder(place.work).manifest(), settings.checkpoint)
    if (state := kept.load()) is not None:
        training.restore(state)
    training.run(settings, kept, display)
    trainer = training.trainer
    made = trainer.weights.autoencoder(
        trainer.unit, objective.k, settings.normalisation, settings.site
    )
    bos = ready.subject.tokenizer.bos if settings.bos == "prepend" else None
    made = replace(made, with_bos=bos is not None)
    judged = _rows(reader, held)
    figures = measure(made, judged, training.components, trainer.unit)
    sparse_formats.save(made, place.autoencoder, settings.file_format)
    tokens = trainer.step * settings.batch
    return {
        "subject": ready.name,
        "corpus": Path(settings.corpus).name,
        "training": {
            "tokens": tokens,
            "steps": trainer.step,
            "passes": tokens / int(lengths[places].sum()),
            "latents": made.n,
            "dead": int(trainer.dead.sum()) / made.n,
            "dead_after": trainer.long,
        },
        "held_out": asdict(figures),
    }


def _buffer(reader: Reader, places: Tensor, settings: TrainSettings) -> Buffer:
    """As large as the memory allows and the training needs."""
    wanted = steps_of(settings) * settings.batch
    width = reader.subject.sites()[settings.site]
    most = settings.memory_mb * 2**20 // (_FLOAT * width)
    capacity = max(min(most, wanted + reader.most), 2 * reader.most + settings.batch)
    return Buffer(reader, places, settings.normalisation, capacity, wanted, settings.seed)


def _rows(reader: Reader, places: Tensor) -> Tensor:
    """The activations of the excerpts at `places`, (tokens, width)."""
    return torch.cat(list(map(reader.rows, reader.once(places))))


def _reading(settings: TrainSettings) -> CollectSettings:
    """How collect would read the corpus and the site."""
    return CollectSettings(
        corpus=settings.corpus,
        sites=(settings.site,),
        split_on=settings.split_on,
        text_field=settings.text_field,
        corpus_config=settings.corpus_config,
        corpus_split=settings.corpus_split,
        documents=settings.documents,
        corpus_tokens=settings.corpus_tokens,
        shuffle=settings.shuffle,
        seed=settings.seed,
        excerpt_tokens=settings.excerpt_tokens,
        minimum_tokens=settings.minimum_tokens,
        bos=settings.bos,
    )


def _configuration(
    place: Place, ready: Ready, subject: SubjectSettings, settings: TrainSettings
) -> dict[str, Any]:
    """What makes trainings differ: not where things lie, nor how often the state is saved."""
    about = asdict(settings)
    del about["checkpoint"]
    model: dict[str, Any] = {"dtype": subject.dtype, "weights": fingerprint(subject.model)}
    if subject.by_hand:
        model["by_hand"] = list(subject.by_hand)
    stored = Folder(place.work / ready.name / "corpus")
    known = stored.manifest()["config"] if stored.exists else {}
    return {**about, **ready.source.identity(known), "subject": model}


def _notices(
    ready: Ready, report: Mapping[str, Any], settings: TrainSettings, named: bool
) -> tuple[str, ...]:
    said: list[str] = []
    note: str | None = getattr(ready.subject, "note", None)
    if note is not None:
        said.append(note)
    passes, tokens = report["training"]["passes"], report["held_out"]["tokens"]
    if passes > _MANY:
        said.append(
            f"the training saw every token {passes:.1f} times: more text, or a smaller --tokens, "
            "keeps it from learning this text by heart"
        )
    if tokens < _FEW:
        said.append(f"only {tokens:,} tokens were held out: the figures on them are rough")
    if not named and settings.file_format == "sparsify":
        said.append(
            "sparsify's format names a site by its folder, such as layers.5 or layers.5.mlp, and "
            f"--to does not name {settings.site}: give --site with --sae"
        )
    return tuple(said)
