"""A sparse autoencoder over a subject is again a subject: its latents are neurons of a new site."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.base import (
    LatentObserver,
    Neurons,
    Observer,
    ResidualReader,
    ResidualWriter,
    Subject,
    Tokenizer,
)
from neuron_explainer.subjects.interventions import Intervenable, Intervention, splice
from neuron_explainer.subjects.sparse_formats import load
from neuron_explainer.subjects.weights import at_least_single


class SparseSubject:
    """`subject` with one more site for each autoencoder: `blocks.2.hook_resid_post/<name>`."""

    def __init__(self, subject: Subject, autoencoders: Mapping[str, Autoencoder]) -> None:
        self._subject = subject
        self._autoencoders = dict(autoencoders)

    @classmethod
    def load(cls, subject: Subject, sources: Mapping[str, str]) -> "SparseSubject":
        """`sources` maps a new site to its autoencoder's file, folder or hub id.

        Raises SubjectError.
        """
        widths = subject.sites()
        loaded = {}
        for site, source in sources.items():
            below = site.rpartition("/")[0]
            if below not in widths:
                raise SubjectError(f"no site {below} for the autoencoder {source}: see --site")
            loaded[site] = load(source)
            if loaded[site].d_in != widths[below]:
                raise SubjectError(
                    f"the autoencoder {source} takes {loaded[site].d_in} inputs, "
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

    def autoencoder(self, site: str) -> Autoencoder:
        """The one whose latents are the site's neurons."""
        return self._autoencoders[site]

    @property
    def note(self) -> str | None:
        """What the user should know about the underlying model and the autoencoders."""
        below: str | None = getattr(self._subject, "note", None)
        notes = [note for sae in self._autoencoders.values() for note in sae.notes]
        return "; ".join([below, *notes] if below else notes) or None

    def sites(self) -> Mapping[str, int]:
        """The underlying sites, then one for each autoencoder."""
        return {**self._subject.sites(), **self.latents()}

    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        """Run `tokens` and encode what the autoencoders' sites hold."""
        self.observe_latents(tokens, observers, {})

    def latents(self) -> Mapping[str, int]:
        """The autoencoders' sites."""
        return {site: sae.n for site, sae in self._autoencoders.items()}

    def observe_latents(
        self,
        tokens: Tensor,
        observers: Mapping[str, Observer],
        latents: Mapping[str, LatentObserver],
    ) -> None:
        """As `observe`, with the sites in `latents` as lists of what is not zero."""
        below: dict[str, list[Observer]] = {}
        for site, observer in observers.items():
            if site in self._autoencoders:
                observer = self._encoding(site, observer)  # noqa: PLW2901
            below.setdefault(site.partition("/")[0], []).append(observer)
        for site, lister in latents.items():
            below.setdefault(site.partition("/")[0], []).append(self._listing(site, lister))
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

    def writes(self, site: str, neurons: Neurons) -> Tensor | None:
        """A latent's decoder row (neurons, width), taken on by what the site below writes.

        Of a transcoder, by what the site that it reconstructs writes; None where it names none.
        The scale that a normalising autoencoder puts back depends on the input and is left out.
        """
        if not isinstance(self._subject, ResidualWriter):
            return None
        if site not in self._autoencoders:
            return self._subject.writes(site, neurons)
        autoencoder = self._autoencoders[site]
        target = autoencoder.site_out if autoencoder.transcodes else site.rpartition("/")[0]
        if target is None or target not in self._subject.sites():
            return None
        below = self._subject.writes(target, slice(None))
        rows = autoencoder.decoder_weight.T[neurons]
        return None if below is None else rows.to(below) @ below

    def unembed(self, directions: Tensor) -> Tensor:
        """As the underlying subject does, which must know what its neurons write."""
        assert isinstance(self._subject, ResidualWriter)
        return self._subject.unembed(directions)

    def reads(self, site: str, neurons: Neurons) -> Tensor | None:
        """A latent's encoder row (neurons, width), where it reads the residual stream itself.

        The scale that a normalising autoencoder takes off depends on the input and is left out.
        """
        if not isinstance(self._subject, ResidualReader):
            return None
        if site not in self._autoencoders:
            return self._subject.reads(site, neurons)
        below, autoencoder = site.rpartition("/")[0], self._autoencoders[site]
        if ".hook_resid_" not in below or self._subject.reads(below, slice(0)) is None:
            return None
        rows = at_least_single(autoencoder.encoder_weight[neurons])
        centres = autoencoder.centred or autoencoder.normalisation == "layer_norm"
        return rows - rows.mean(-1, keepdim=True) if centres else rows

    def embed(self, directions: Tensor) -> Tensor:
        """As the underlying subject does, which must know what its neurons read."""
        assert isinstance(self._subject, ResidualReader)
        return self._subject.embed(directions)

    def _encoding(self, site: str, observer: Observer) -> Observer:
        def encode(activations: Tensor) -> None:
            observer(self._beside(site, activations).encode(activations))

        return encode

    def _listing(self, site: str, observer: LatentObserver) -> Observer:
        def encode(activations: Tensor) -> None:
            observer(self._beside(site, activations).encode_sparse(activations))

        return encode

    def _beside(self, site: str, activations: Tensor) -> Autoencoder:
        """The site's autoencoder, on the device of what it reads: moved once, not every time."""
        autoencoder = self._autoencoders[site].on(activations.device)
        self._autoencoders[site] = autoencoder
        return autoencoder


def _each(observers: list[Observer]) -> Observer:
    def observe(activations: Tensor) -> None:
        for observer in observers:
            observer(activations)

    return observe
