"""The collect stage: one pass of a subject over a corpus, all sites at once."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from neuron_explainer.collect import sites as site_choice
from neuron_explainer.collect.checkpoint import STATE_VERSION, Checkpoints
from neuron_explainer.collect.corpus import CorpusSource
from neuron_explainer.collect.excerpts import ExcerptRule, write_corpus
from neuron_explainer.collect.fitting import batch_tokens
from neuron_explainer.collect.logit_effects import LogitEffects
from neuron_explainer.collect.streaming import Plan, notices_of, stream, write
from neuron_explainer.collect.token_table import TableLayout
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import CorpusError, SubjectError
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.record_set import Corpus, RecordSet
from neuron_explainer.runner import Progress, silent
from neuron_explainer.store import Folder, locked
from neuron_explainer.subjects.base import HeadReader, Subject, Tokenizer
from neuron_explainer.subjects.sparse_formats import files_of, site_of
from neuron_explainer.workspace import check_name

CHECKPOINT = "checkpoint.npz"
_FEWEST_EXCERPTS = 4  # so that every split has a top and a random record


@dataclass(frozen=True, slots=True)
class Collected:
    """What collect did."""

    subject: str
    corpus: Corpus
    widths: Mapping[str, int]
    skipped: tuple[str, ...] = ()  # sites that were complete already
    notices: tuple[str, ...] = ()  # what the user should know
    layouts: Mapping[str, TableLayout] = field(default_factory=dict)


def load_subject(settings: SubjectSettings) -> Subject:
    """The model, with its autoencoders. Raises SubjectError when something cannot be loaded."""
    from neuron_explainer.registry import resolve

    if not settings.model:
        raise SubjectError("no subject was named: give --subject FOLDER or a hub id")
    loaded: Subject = resolve("subjects", "huggingface").load(
        settings.model, settings.device, settings.dtype, settings.by_hand
    )
    if settings.sae:
        from neuron_explainer.subjects.sparse import SparseSubject

        saes = with_sites(settings).sae
        loaded = SparseSubject.load(loaded, {sae.latents: sae.path for sae in saes})
    return loaded


def with_sites(settings: SubjectSettings) -> SubjectSettings:
    """The settings with each autoencoder's site, from its own files where none is given.

    Raises SubjectError when neither names one, or they differ.
    """
    saes = (replace(sae, site=site_of(sae.path, sae.site)) for sae in settings.sae)
    return replace(settings, sae=tuple(saes))


def collect(
    data: Path,
    subject_settings: SubjectSettings,
    settings: CollectSettings,
    progress: Progress = silent,
    subject: Subject | None = None,
) -> Collected:
    """Collect into `data/<subject>/`. Sites that are complete are not run again."""
    ready = prepare(subject_settings, settings, subject)
    settings = ready.collect
    notices: tuple[str, ...] = ()
    with locked(data / ready.name):
        corpus = tokenised(data, ready, settings, progress)
        folders = {site: RecordSet(data, ready.name, site).folder for site in ready.widths}
        config = configuration(ready.settings, settings, corpus)
        for site, folder in folders.items():
            folder.open(config | {"site": site})
        skipped = tuple(site for site, folder in folders.items() if folder.complete)
        todo = {site: width for site, width in ready.widths.items() if site not in skipped}
        # of all sites, so that a resumed run shares the memory as an undisturbed one does
        plan = Plan.of(corpus, settings, ready.widths) if todo else None
        if plan is not None:
            key = pass_key(config, ready.widths, settings) | {"todo": list(todo)}
            kept = Checkpoints(data / ready.name / CHECKPOINT, key, settings.checkpoint)
            done = stream(ready.subject, corpus, todo, plan, settings, progress, kept)
            notices = done.notices
            effects = LogitEffects(ready.subject, settings.logit_tokens)
            write(folders, done.collectors, effects.shard, corpus, settings, progress)
            kept.remove()
    layouts = {} if plan is None else plan.layouts
    notices = (*_known_only_by_inspection(ready.subject), *notices_of(layouts, settings), *notices)
    return Collected(ready.name, corpus, ready.widths, skipped, notices, layouts)


@dataclass(frozen=True, slots=True)
class Ready:
    """A subject that is loaded, and what of it is collected."""

    name: str
    subject: Subject
    source: CorpusSource
    widths: Mapping[str, int]  # of the sites that were chosen
    settings: SubjectSettings  # with every autoencoder's site
    collect: CollectSettings  # with the size of the batches


def prepare(
    subject_settings: SubjectSettings, settings: CollectSettings, subject: Subject | None
) -> Ready:
    """Load the subject and choose its sites. Raises CorpusError or SubjectError."""
    if not settings.corpus:
        raise CorpusError("no corpus was named: give --corpus FILE, or one in run.toml")
    source = CorpusSource(Path(settings.corpus), settings.split_on, settings.text_field)
    source.files()  # a missing corpus is found before the model is loaded
    subject_settings = with_sites(subject_settings)
    subject = subject or load_subject(subject_settings)
    chosen = _chosen(subject, settings, subject_settings)
    if settings.sign == "negative":
        subject, chosen = _negated(subject, chosen)
    known = _sites(subject)
    widths = {site: known[site] for site in chosen}
    name = check_name(subject_settings.folder_name)
    sized = replace(settings, batch_tokens=batch_tokens(settings, subject_settings.device))
    return Ready(name, subject, source, widths, subject_settings, sized)


def pass_key(
    config: Mapping[str, Any], widths: Mapping[str, int], settings: CollectSettings
) -> dict[str, Any]:
    """All that the state of a pass depends on."""
    limits = {name: getattr(settings, name) for name in ("batch", "batch_tokens", "memory_mb")}
    return {**config, "sites": dict(widths), **limits, "state": STATE_VERSION}


def _chosen(
    subject: Subject, settings: CollectSettings, subject_settings: SubjectSettings
) -> list[str]:
    named = _with_latents(settings, subject_settings)
    try:
        return site_choice.choose(_sites(subject), settings.layers, named)
    except SubjectError as error:
        notes = _known_only_by_inspection(subject)
        raise SubjectError("; ".join([str(error), *notes])) from error


def _negated(subject: Subject, chosen: list[str]) -> tuple[Subject, list[str]]:
    from neuron_explainer.subjects.negative import NegativeSubject, negative_site

    if latents := [site for site in chosen if "/" in site]:
        raise SubjectError(f"{latents[0]} has no negative side: latents are never below 0")
    if heads := [site for site in chosen if is_pattern(site)]:
        raise SubjectError(f"{heads[0]} has no negative side: norms are never below 0")
    return NegativeSubject(subject), [negative_site(site) for site in chosen]


def _sites(subject: Subject) -> Mapping[str, int]:
    """Sites of neurons, then those of heads."""
    heads = subject.patterns() if isinstance(subject, HeadReader) else {}
    return {**subject.sites(), **heads}


def _with_latents(settings: CollectSettings, subject: SubjectSettings) -> list[str]:
    return [*settings.sites, *(sae.latents for sae in subject.sae)]


def tokenised(data: Path, ready: Ready, settings: CollectSettings, progress: Progress) -> Corpus:
    """The tokenised corpus in `data`, made now unless it is there."""
    path, source, subject = data / ready.name / "corpus", ready.source, ready.subject
    rule = ExcerptRule(settings.excerpt_tokens, settings.minimum_tokens, settings.bos)
    if subject.context < rule.length + 1:
        raise SubjectError(
            f"the model takes {subject.context} tokens, BOS included: choose --excerpt-tokens "
            f"{subject.context - 1} or less"
        )
    folder = Folder(path, "neuron-explainer collect")
    complete = folder.complete
    folder.open(
        {
            "corpus": source.digest(),
            "split_on": source.split_on,
            "text_field": source.text_field,
            "excludes_first": True,
            "vocabulary": _vocabulary_digest(subject.tokenizer),
            **asdict(rule),
        }
    )
    if not complete:
        try:
            with progress("tokenise", 0, "documents") as advance:
                write_corpus(folder, _counted(source, advance), subject.tokenizer, rule)
            _check_number(len(Corpus(path)), source, rule)
        except CorpusError:  # it is no use: a better one must not find its place taken
            shutil.rmtree(path)
            raise
    return Corpus(path)


def _vocabulary_digest(tokenizer: Tokenizer) -> str:
    """So that two models of one name whose tokenizers differ cannot share a corpus."""
    names = hashlib.sha256(tokenizer.special.tobytes())
    for name in tokenizer.vocabulary:
        names.update(len(name).to_bytes(4) + name)
    return names.hexdigest()


def _check_number(excerpts: int, source: CorpusSource, rule: ExcerptRule) -> None:
    if excerpts < _FEWEST_EXCERPTS:
        raise CorpusError(
            f"{source.path} gives {excerpts} excerpts of {rule.length} tokens: at least "
            f"{_FEWEST_EXCERPTS} are needed to hold records out"
        )


def _counted(source: CorpusSource, advance: Callable[[int], None]) -> Iterator[str]:
    for document in source.documents():
        yield document
        advance(1)


def configuration(
    subject: SubjectSettings, settings: CollectSettings, corpus: Corpus
) -> dict[str, Any]:
    """What makes record sets differ: not where things lie, nor how large the batches are."""
    about = asdict(settings)
    for key in ("corpus", "layers", "sites", "split_on", "text_field", "memory_mb", "checkpoint"):
        del about[key]
    del about["batch"], about["batch_tokens"]
    if settings.sign == "positive":
        del about["sign"]
    if not settings.pairs:
        del about["pairs"]
    model: dict[str, Any] = {"dtype": subject.dtype, "weights": _fingerprint(subject.model)}
    if subject.by_hand:
        model["by_hand"] = list(subject.by_hand)
    saes = [{"site": sae.site, "weights": _digest(files_of(sae.path))} for sae in subject.sae]
    return about | {"subject": model, "sae": saes, "corpus": corpus.folder.manifest()["config"]}


def _fingerprint(source: str) -> str:
    """SHA-256 of a weights file, or of all in a folder; a hub id stands for itself."""
    path = Path(source)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    files = files or sorted(path.glob("*.bin"))
    return _digest(files) if files else source


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def _known_only_by_inspection(subject: Subject) -> tuple[str, ...]:
    note: str | None = getattr(subject, "note", None)
    return () if note is None else (note,)
