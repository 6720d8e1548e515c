"""A sparse autoencoder over a subject is again a subject: its latents are neurons of a new site."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.base import Observer, Subject, Tokenizer
from neuron_explainer.subjects.sparse_formats import OpenAIAutoencoder


class SparseSubject:
    """`subject` with one more site for each autoencoder: `blocks.2.hook_resid_post/<name>`."""

    def __init__(self, subject: Subject, autoencoders: Mapping[str, OpenAIAutoencoder]) -> None:
        self._subject = subject
        self._autoencoders = dict(autoencoders)

    @classmethod
    def load(cls, subject: Subject, paths: Mapping[str, Path]) -> "SparseSubject":
        """`paths` maps a new site to the file of its autoencoder. Raises SubjectError."""
        widths = subject.sites()
        loaded = {}
        for site, path in paths.items():
            below = site.rpartition("/")[0]
            if below not in widths:
                raise SubjectError(f"no site {below} for the autoencoder {path}: see --site")
            loaded[site] = OpenAIAutoencoder.load(path)
            if loaded[site].d_in != widths[below]:
                raise SubjectError(
                    f"the autoencoder {path} takes {loaded[site].d_in} inputs, "
                    f"but {below} has {widths[below]}: it belongs to another model or site"
                )
        return cls(subject, loaded)

    @property
    def tokenizer(self) -> Tokenizer:
        """The underlying subject's own."""
        return self._subject.tokenizer

    @property
    def context(self) -> int:
        """The longest sequence that the underlying model takes, in tokens."""
        return self._subject.context

    def sites(self) -> Mapping[str, int]:
        """The underlying sites, then one for each autoencoder."""
        widths = {site: sae.n for site, sae in self._autoencoders.items()}
        return {**self._subject.sites(), **widths}

    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        """Run `tokens` and encode what the autoencoders' sites hold."""
        below: dict[str, list[Observer]] = {}
        for site, observer in observers.items():
            if site in self._autoencoders:
                observer = _encoding(self._autoencoders[site], observer)  # noqa: PLW2901
            below.setdefault(site.partition("/")[0], []).append(observer)
        self._subject.observe(tokens, {site: _each(chain) for site, chain in below.items()})


def _encoding(autoencoder: OpenAIAutoencoder, observer: Observer) -> Observer:
    return lambda activations: observer(autoencoder.encode(activations))


def _each(observers: list[Observer]) -> Observer:
    def observe(activations: Tensor) -> None:
        for observer in observers:
            observer(activations)

    return observe
