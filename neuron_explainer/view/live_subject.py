"""The model behind a record set, where it is at hand, and what it does with typed text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuron_explainer import workspace as workspaces
from neuron_explainer.config import SubjectSettings, load
from neuron_explainer.errors import SubjectError, UserError
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import NEGATIVE, BoolArray
from neuron_explainer.subject_loading import autoencoders, fingerprint, load_subject, with_sites
from neuron_explainer.subjects.base import Subject
from neuron_explainer.view.contract import Unavailable

_CONFLICT = 409
_VIEW = "neuron-explainer view"


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of typed text, as long as the collected excerpts."""

    ids: NDArray[np.int32]  # (tokens,), BOS included
    tokens: tuple[bytes, ...]
    scored: BoolArray  # (tokens,)


class Subjects:
    """The model that was named, and the embedded example's; loaded when they are first used."""

    def __init__(
        self, named: SubjectSettings, loading: Callable[[SubjectSettings], Subject] = load_subject
    ) -> None:
        """Raises SubjectError where an autoencoder's site is not known."""
        self._named = with_sites(named) if named.model else None
        self._example = load(workspaces.example_file()).subject  # which names its sites
        self._load = loading
        self._plain: dict[SubjectSettings, Subject] = {}
        self._encoded: dict[SubjectSettings, Subject] = {}

    def require(self, records: RecordSet) -> SubjectSettings:
        """Which model `records` were collected from, as far as is known without reading it.

        Raises Unavailable where it is not at hand.
        """
        collected = _collected(records)
        settings = self._settings(records, collected)
        site, weights = records.site.removesuffix(NEGATIVE), collected["subject"]["weights"]
        if settings is None:
            raise Unavailable(
                _CONFLICT,
                f"the model that {records.subject} was collected from is not at hand",
                f"{_VIEW} --subject MODEL --name {records.subject}",
            )
        if "/" in site and site not in {sae.latents for sae in settings.sae}:
            raise Unavailable(
                _CONFLICT,
                f"the autoencoder of {site} is not at hand",
                f"{_VIEW} --subject {settings.model} --name {records.subject} --sae PATH "
                f"--site {site.rpartition('/')[0]}",
            )
        if _fingerprint(settings.model) != weights:
            raise Unavailable(
                _CONFLICT,
                f"{settings.model} is another model than {records.subject} was collected from: "
                "its weights differ",
                f"{_VIEW} --subject MODEL --name {records.subject}",
            )
        return settings

    def subject(self, records: RecordSet) -> Subject:
        """The loaded model, which has the site of `records`.

        Raises Unavailable where it is another one, SubjectError where it cannot be loaded.
        """
        settings = self.require(records)
        _check_autoencoder(settings, records)
        found = self._loaded(settings, "/" in records.site)
        if records.site.endswith(NEGATIVE):
            from neuron_explainer.subjects.negative import NegativeSubject

            found = NegativeSubject(found)
        if tuple(found.tokenizer.vocabulary) != records.corpus.vocabulary[0]:
            raise Unavailable(
                _CONFLICT, f"{settings.model} has another tokenizer than {records.subject} had"
            )
        return found

    def holds(self, records: RecordSet) -> bool:
        """Whether the model of `records` is loaded already."""
        return replace(self.require(records), sae=()) in self._plain

    def _loaded(self, settings: SubjectSettings, encoded: bool) -> Subject:
        """The model, held once whether or not autoencoders read it."""
        bare = replace(settings, sae=())
        if bare not in self._plain:
            self._plain[bare] = self._load(bare)
        plain = self._plain[bare]
        if not encoded:
            return plain
        if settings not in self._encoded:
            from neuron_explainer.subjects.sparse import SparseSubject

            sources = {sae.latents: sae.path for sae in settings.sae}
            self._encoded[settings] = SparseSubject.load(plain, sources)
        return self._encoded[settings]

    def _settings(self, records: RecordSet, collected: dict[str, Any]) -> SubjectSettings | None:
        if self._named is not None and self._named.folder_name == records.subject:
            return self._named
        weights = collected["subject"]["weights"]
        return self._example if weights == _fingerprint(self._example.model) else None


@cache
def _fingerprint(model: str) -> str:
    """Of a model that is named once and read for the life of the process."""
    return fingerprint(model)


@cache
def _autoencoders(settings: SubjectSettings) -> list[dict[str, str | None]]:
    return autoencoders(settings)


def _collected(records: RecordSet) -> dict[str, Any]:
    """The configuration that `records` were collected with. Raises Unavailable."""
    try:
        config: dict[str, Any] = records.folder.manifest()["config"]
    except UserError as error:
        raise Unavailable(_CONFLICT, str(error), records.folder.rebuild) from error
    subject = config.get("subject")
    if not isinstance(subject, dict) or "weights" not in subject:
        raise Unavailable(
            _CONFLICT,
            f"{records.subject} was imported: no model is known that these records are of",
        )
    return config


def _check_autoencoder(settings: SubjectSettings, records: RecordSet) -> None:
    """Raises Unavailable where a site's latents are those of another autoencoder."""
    site = records.site.removesuffix(NEGATIVE)
    if "/" not in site:
        return
    collected = {sae["weights"] for sae in _collected(records).get("sae", [])}
    [mine] = [sae for sae in settings.sae if sae.latents == site]
    [known] = _autoencoders(replace(settings, sae=(mine,)))
    if known["weights"] not in collected:
        raise Unavailable(
            _CONFLICT,
            f"{mine.path} is another autoencoder than {site} was collected from: its weights "
            "differ",
            f"{_VIEW} --subject {settings.model} --name {records.subject} --sae PATH",
        )


def windows(records: RecordSet, subject: Subject, text: str) -> Iterator[Window]:
    """`text`, cut as collect cuts a document; the last window is shown however short it is."""
    config = records.corpus.folder.manifest()["config"]
    bos = subject.tokenizer.bos if config["bos"] == "prepend" else None
    prefix = np.array([] if bos is None else [bos], np.int32)
    length = int(config["length"])
    if length + len(prefix) > subject.context:
        raise SubjectError(f"the model takes {subject.context} tokens, the excerpts have {length}")
    [tokens] = subject.tokenizer.encode([text])
    names = records.corpus.vocabulary[0]
    for start in range(0, len(tokens), length):
        ids = np.concatenate([prefix, tokens[start : start + length]]).astype(np.int32)
        yield Window(ids, tuple(names[token] for token in ids), records.corpus.scored(ids))
