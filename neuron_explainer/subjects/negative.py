"""A neuron's negative side: the subject with every activation negated is again a subject.

Its sites are named `blocks.6.mlp.hook_post.negative`, so that their records lie beside those of
the positive side. Of a gated or GELU neuron the two sides often mean different things.
"""

from collections.abc import Mapping

from torch import Tensor

from neuron_explainer.records import NEGATIVE
from neuron_explainer.subjects.base import (
    Neurons,
    Observer,
    ResidualReader,
    ResidualWriter,
    Subject,
    Tokenizer,
)


def negative_site(site: str) -> str:
    """The name of a site's negative side."""
    return site + NEGATIVE


class NegativeSubject:
    """`subject`, each site negated."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.note: str | None = getattr(subject, "note", None)

    @property
    def tokenizer(self) -> Tokenizer:
        """The underlying subject's own."""
        return self._subject.tokenizer

    @property
    def context(self) -> int:
        """The longest sequence that the underlying model takes, in tokens."""
        return self._subject.context

    def sites(self) -> Mapping[str, int]:
        """The underlying sites under their names here."""
        return {negative_site(site): width for site, width in self._subject.sites().items()}

    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        """Run `tokens`; observers get the negated activations."""
        below = {_positive(site): _negating(observer) for site, observer in observers.items()}
        self._subject.observe(tokens, below)

    def writes(self, site: str, neurons: Neurons) -> Tensor | None:
        """What a neuron writes per unit of its negated activation (neurons, width)."""
        if not isinstance(self._subject, ResidualWriter):
            return None
        rows = self._subject.writes(_positive(site), neurons)
        return None if rows is None else -rows

    def unembed(self, directions: Tensor) -> Tensor:
        """As the underlying subject does, which must know what its neurons write."""
        assert isinstance(self._subject, ResidualWriter)
        return self._subject.unembed(directions)

    def reads(self, site: str, neurons: Neurons) -> Tensor | None:
        """What excites a neuron's negative side (neurons, width)."""
        if not isinstance(self._subject, ResidualReader):
            return None
        rows = self._subject.reads(_positive(site), neurons)
        return None if rows is None else -rows

    def embed(self, directions: Tensor) -> Tensor:
        """As the underlying subject does, which must know what its neurons read."""
        assert isinstance(self._subject, ResidualReader)
        return self._subject.embed(directions)


def _positive(site: str) -> str:
    return site.removesuffix(NEGATIVE)


def _negating(observer: Observer) -> Observer:
    return lambda activations: observer(0.0 - activations)  # never -0.0
