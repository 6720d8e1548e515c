"""A sparse autoencoder over a subject is again a subject: its latents are neurons of a new site."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.base import Observer, ResidualWriter, Subject, Tokenizer
from neuron_explainer.subjects.interventions import Intervenable, Intervention, splice
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

    def autoencoder(self, site: str) -> OpenAIAutoencoder:
        """The one whose latents are the site's neurons."""
        return self._autoencoders[site]

    @property
    def note(self) -> str | None:
        """What the user should know about the underlying model."""
        note: str | None = getattr(self._subject, "note", None)
        return note

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

    def logits(self, tokens: Tensor) -> Tensor:
        """As the underlying subject has them (batch, time, vocabulary)."""
        assert isinstance(self._subject, Intervenable)
        return self._subject.logits(tokens)

    @contextmanager
    def intervene(self, interventions: Mapping[str, Intervention]) -> Iterator[None]:
        """Replace activations; on an autoencoder's site latents, the error kept."""
        assert isinstance(self._subject, Intervenable)
        with ExitStack() as stack:
            for site, change in interventions.items():
                if site in self._autoencoders:
                    spliced = splice(self._autoencoders[site], change)
                    below = {site.rpartition("/")[0]: spliced}
                else:
                    below = {site: change}
                stack.enter_context(self._subject.intervene(below))
            yield

    def writes(self, site: str, neurons: slice) -> Tensor | None:
        """A latent's decoder row (neurons, width), taken on by what the site below writes.

        The scale that a normalising autoencoder puts back depends on the input and is left out.
        """
        if not isinstance(self._subject, ResidualWriter):
            return None
        if site not in self._autoencoders:
            return self._subject.writes(site, neurons)
        below = self._subject.writes(site.rpartition("/")[0], slice(None))
        rows = self._autoencoders[site].decoder_weight.T[neurons]
        return None if below is None else rows.to(below) @ below

    def unembed(self, directions: Tensor) -> Tensor:
        """As the underlying subject does, which must know what its neurons write."""
        assert isinstance(self._subject, ResidualWriter)
        return self._subject.unembed(directions)


def _encoding(autoencoder: OpenAIAutoencoder, observer: Observer) -> Observer:
    device = autoencoder.decoder_weight.device
    return lambda activations: observer(autoencoder.encode(activations.to(device)))


def _each(observers: list[Observer]) -> Observer:
    def observe(activations: Tensor) -> None:
        for observer in observers:
            observer(activations)

    return observe
