"""The collect stage: one pass of a subject over a corpus, all sites at once."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from neuron_explainer.collect import sites as site_choice
from neuron_explainer.collect.checkpoint import STATE_VERSION, Checkpoints
from neuron_explainer.collect.excerpts import ExcerptRule, write_corpus
from neuron_explainer.collect.fitting import batch_tokens
from neuron_explainer.collect.sources import Source, amount, documents, source_of
from neuron_explainer.collect.streaming import Plan, notices_of, stream, write
from neuron_explainer.collect.taken import Taken
from neuron_explainer.collect.token_table import TableLayout
from neuron_explainer.collect.weight_tables import WeightTables
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import CorpusError, RunMismatch, SubjectError
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.neuron_list import neuron_text, parse_neurons
from neuron_explainer.record_set import Corpus, RecordSet
from neuron_explainer.runner import Progress, silent
from neuron_explainer.store import Folder, locked
from neuron_explainer.subject_loading import (
    autoencoders,
    fingerprint,
    load_subject,
    with_sites,
)
from neuron_explainer.subjects.base import HeadReader, Subject, Tokenizer
from neuron_explainer.workspace import check_name

CHECKPOINT = "checkpoint.npz"
# settings that change no record set, or are in the corpus's own configuration
_ELSEWHERE = (
    *("layers", "sites", "batch", "batch_tokens", "memory_mb", "checkpoint"),
    *("corpus", "split_on", "text_field", "corpus_config", "corpus_split"),
    *("documents", "corpus_tokens", "shuffle"),
)
_NEWER = ("input_tokens", "nearest")  # settings that older record sets do not know
_FEWEST_EXCERPTS = 4  # so that every split has a top and a random record


@dataclass(frozen=True, slots=True)
class Collected:
    """What collect did."""

    subject: str
    corpus: Corpus
    widths: Mapping[str, int]  # how many neurons of each site
    skipped: tuple[str, ...] = ()  # sites that were complete already
    notices: tuple[str, ...] = ()  # what the user should know
    layouts: Mapping[str, TableLayout] = field(default_factory=dict)


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
        folders = {site: RecordSet(data, ready.name, site).folder for site in ready.taken}
        config = configuration(ready.settings, settings, corpus)
        for site, folder in folders.items():
            open_record_set(folder, config | {"site": site})
        skipped = tuple(site for site, folder in folders.items() if folder.complete)
        todo = {site: width for site, width in ready.widths.items() if site not in skipped}
        # of all sites, so that a resumed run shares the memory as an undisturbed one does
        plan = Plan.of(corpus, settings, ready.widths) if todo else None
        if plan is not None:
            key = pass_key(config, ready.taken, settings) | {"todo": list(todo)}
            kept = Checkpoints(data / ready.name / CHECKPOINT, key, settings.checkpoint)
            done = stream(ready.subject, corpus, todo, plan, settings, progress, kept)
            notices = done.notices
            effects = WeightTables(ready.subject, ready.taken, settings)
            write(folders, done.collectors, effects.shard, corpus, settings, progress, ready.taken)
            kept.remove()
    layouts = {} if plan is None else plan.layouts
    notices = (*_known_only_by_inspection(ready.subject), *notices_of(layouts, settings), *notices)
    return Collected(ready.name, corpus, ready.widths, skipped, notices, layouts)


@dataclass(frozen=True, slots=True)
class Ready:
    """A subject that is loaded, and what of it is collected."""

    name: str
    subject: Subject  # with those neurons alone that are collected
    source: Source
    taken: Mapping[str, Taken]  # of the sites that were chosen
    settings: SubjectSettings  # with every autoencoder's site
    collect: CollectSettings  # with the size of the batches

    @property
    def widths(self) -> Mapping[str, int]:
        """How many neurons of each site are collected."""
        return {site: len(taken) for site, taken in self.taken.items()}


def prepare(
    subject_settings: SubjectSettings, settings: CollectSettings, subject: Subject | None
) -> Ready:
    """Load the subject and choose its sites. Raises CorpusError or SubjectError."""
    source = source_of(settings)
    source.check()  # a missing corpus is found before the model is loaded
    subject_settings = with_sites(subject_settings)
    subject = subject or load_subject(subject_settings)
    chosen = _chosen(subject, settings, subject_settings)
    if settings.sign == "negative":
        subject, chosen = _negated(subject, chosen)
    known = _sites(subject)
    taken = {site: Taken.of(known[site], settings.neurons) for site in chosen}
    if settings.neurons is not None:
        subject = _narrowed(subject, taken)
    name = check_name(subject_settings.folder_name)
    sized = replace(settings, batch_tokens=batch_tokens(settings, subject_settings.device))
    return Ready(name, subject, source, taken, subject_settings, sized)


def _narrowed(subject: Subject, taken: Mapping[str, Taken]) -> Subject:
    from neuron_explainer.subjects.chosen import chosen_of

    return chosen_of(subject, {site: neurons.indices or [] for site, neurons in taken.items()})


def pass_key(
    config: Mapping[str, Any], taken: Mapping[str, Taken], settings: CollectSettings
) -> dict[str, Any]:
    """All that the state of a pass depends on."""
    limits = {name: getattr(settings, name) for name in ("batch", "batch_tokens", "memory_mb")}
    widths = {site: neurons.width for site, neurons in taken.items()}
    return {**config, "sites": widths, **limits, "state": STATE_VERSION}


def open_record_set(folder: Folder, config: Mapping[str, Any]) -> None:
    """Begin or resume a record set. Raises RunMismatch where it is of another configuration."""
    if folder.exists:
        before = folder.manifest()["config"]
        if folder.complete:  # one that is older has no such tables and is none the worse
            config = {
                key: value for key, value in config.items() if key in before or key not in _NEWER
            }
        held = before.get("neurons")
        if held != (asked := config.get("neurons")):
            raise RunMismatch(
                f"{folder.path} is made of {_named(held)}, not of {_named(asked)}: collect those "
                "under another --name, or delete that folder"
            )
    folder.open(config)


def _named(neurons: str | None) -> str:
    return "all neurons" if neurons is None else f"the neurons {neurons}"


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
    known = folder.manifest()["config"] if folder.exists else {}
    identity = source.identity(known)
    more = {"excludes_first": True, "vocabulary": _vocabulary_digest(subject.tokenizer)}
    complete = folder.complete
    folder.open({**identity, **more, **asdict(rule), **amount(settings)})
    if not complete:
        try:
            with progress("tokenise", 0, "documents") as advance:
                texts = _Texts(advance)
                taken = documents(source, settings, identity, path, texts.seen)
                write_corpus(folder, taken, subject.tokenizer, rule, settings.corpus_tokens)
            _check_number(len(Corpus(path)), settings.corpus, rule)
        except CorpusError:  # it is no use: a better one must not find its place taken
            shutil.rmtree(path)
            raise
        if "revision" in identity:  # a name on the hub, not a content
            folder.update({"texts": texts.digest()})
    return Corpus(path)


class _Texts:
    """Counts documents and hashes them, each with its length before it."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._total = hashlib.sha256()

    def seen(self, text: str) -> None:
        content = text.encode("utf-8", "surrogatepass")
        self._total.update(len(content).to_bytes(8) + content)
        self._advance(1)

    def digest(self) -> str:
        return self._total.hexdigest()


def _vocabulary_digest(tokenizer: Tokenizer) -> str:
    """So that two models of one name whose tokenizers differ cannot share a corpus."""
    names = hashlib.sha256(tokenizer.special.tobytes())
    for name in tokenizer.vocabulary:
        names.update(len(name).to_bytes(4) + name)
    return names.hexdigest()


def _check_number(excerpts: int, corpus: str, rule: ExcerptRule) -> None:
    if excerpts < _FEWEST_EXCERPTS:
        raise CorpusError(
            f"{corpus} gives {excerpts} excerpts of {rule.length} tokens: at least "
            f"{_FEWEST_EXCERPTS} are needed to hold records out"
        )


def configuration(
    subject: SubjectSettings, settings: CollectSettings, corpus: Corpus
) -> dict[str, Any]:
    """What makes record sets differ: not where things lie, nor how large the batches are."""
    about = asdict(settings)
    for key in _ELSEWHERE:
        del about[key]
    if settings.sign == "positive":
        del about["sign"]
    if not settings.pairs:
        del about["pairs"]
    if settings.neurons is None:
        del about["neurons"]
    else:
        about["neurons"] = neuron_text(parse_neurons(settings.neurons, sys.maxsize))
    model: dict[str, Any] = {"dtype": subject.dtype, "weights": fingerprint(subject.model)}
    if subject.by_hand:
        model["by_hand"] = list(subject.by_hand)
    corpus_config = corpus.folder.manifest()["config"]
    return about | {"subject": model, "sae": autoencoders(subject), "corpus": corpus_config}


def _known_only_by_inspection(subject: Subject) -> tuple[str, ...]:
    note: str | None = getattr(subject, "note", None)
    return () if note is None else (note,)
