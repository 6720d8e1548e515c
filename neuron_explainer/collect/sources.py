"""Where a corpus comes from, as the settings say, and how much of it is taken in which order."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from neuron_explainer.collect.corpus import CorpusSource, is_corpus_file
from neuron_explainer.collect.datasets_corpus import DatasetSource, is_hub_id, is_saved
from neuron_explainer.collect.shuffle import Shuffle
from neuron_explainer.config import CollectSettings
from neuron_explainer.errors import CorpusError


class Source(Protocol):
    """Documents, and what they are."""

    def check(self) -> None:
        """Raises CorpusError when it cannot be read, as far as that is known before reading."""

    def identity(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What makes the corpus what it is, wherever it lies; `known` is what is stored of one."""

    def documents(
        self, shuffle: Shuffle | None = None, identity: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """Every document that is not blank, of the corpus that has this identity."""


def source_of(settings: CollectSettings) -> Source:
    """The files, or the dataset, that `corpus` names. Raises CorpusError."""
    if not settings.corpus:
        raise CorpusError("no corpus was named: give --corpus FILE, or one in run.toml")
    name, path = settings.corpus, Path(settings.corpus)
    as_dataset = settings.corpus_config is not None or settings.corpus_split is not None
    remote = not path.exists() and is_hub_id(name) and not is_corpus_file(path)
    if remote or (path.is_dir() and (as_dataset or is_saved(path))):
        split = settings.corpus_split or "train"
        return DatasetSource(name, settings.corpus_config, split, settings.text_field)
    if as_dataset and path.exists():
        raise CorpusError(f"{path} is a file: --corpus-config and --corpus-split are for datasets")
    return CorpusSource(path, settings.split_on, settings.text_field)


def amount(settings: CollectSettings) -> dict[str, Any]:
    """How much is taken in which order, for the corpus's identity: nothing where it is all."""
    chosen = {"documents": settings.documents, "tokens": settings.corpus_tokens}
    if settings.shuffle:
        chosen["shuffled"] = settings.seed
    return {key: value for key, value in chosen.items() if value is not None}


def documents(
    source: Source,
    settings: CollectSettings,
    identity: Mapping[str, Any],
    scratch: Path,
    seen: Callable[[str], None],
) -> Iterator[str]:
    """The documents that are taken, each shown to `seen` before."""
    shuffle = Shuffle(settings.seed, scratch, settings.documents) if settings.shuffle else None
    for text in islice(source.documents(shuffle, identity), settings.documents):
        seen(text)
        yield text
