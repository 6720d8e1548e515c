"""Some neurons of a subject's sites: again a subject, whose sites are as wide as there are chosen.

What is collected of it costs time and memory for these neurons alone. Its neurons are numbered by
their place among the chosen; whoever stores them gives them their own numbers back.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from neuron_explainer.subjects.base import (
    HeadReader,
    LatentObserver,
    LatentReader,
    Latents,
    Neurons,
    Observer,
    PairObserver,
    ResidualReader,
    ResidualWriter,
    Subject,
    Tokenizer,
)


class ChosenSubject:
    """`subject` with only the neurons in `chosen`, site → indices (int64), in order."""

    def __init__(self, subject: Subject, chosen: Mapping[str, Tensor]) -> None:
        self._subject = subject
        self._chosen = dict(chosen)
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
        """The sites of which neurons are chosen, and how many."""
        return self._counted(self._subject.sites())

    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        """Run `tokens`; observers get the chosen neurons' activations."""
        picked = {site: self._picking(site, -1, seen) for site, seen in observers.items()}
        self._subject.observe(tokens, picked)

    def latents(self) -> Mapping[str, int]:
        """The sites of latents of which some are chosen, and how many."""
        return self._counted(
            self._subject.latents() if isinstance(self._subject, LatentReader) else {}
        )

    def observe_latents(
        self,
        tokens: Tensor,
        observers: Mapping[str, Observer],
        latents: Mapping[str, LatentObserver],
    ) -> None:
        """Run `tokens`; observers get the chosen neurons' activations and the chosen latents."""
        assert isinstance(self._subject, LatentReader)
        picked = {site: self._picking(site, -1, seen) for site, seen in observers.items()}
        listed = {site: self._listing(site, seen) for site, seen in latents.items()}
        self._subject.observe_latents(tokens, picked, listed)

    def patterns(self) -> Mapping[str, int]:
        """The blocks of which heads are chosen, and how many."""
        return self._counted(
            self._subject.patterns() if isinstance(self._subject, HeadReader) else {}
        )

    def observe_pairs(self, tokens: Tensor, observers: Mapping[str, PairObserver]) -> None:
        """Run `tokens`; observers get the chosen heads' norms."""
        assert isinstance(self._subject, HeadReader)
        picked = {site: self._picking(site, 1, seen) for site, seen in observers.items()}
        self._subject.observe_pairs(tokens, picked)

    def writes(self, site: str, neurons: Neurons) -> Tensor | None:
        """What the chosen neurons at these places write (neurons, width)."""
        if not isinstance(self._subject, ResidualWriter):
            return None
        return self._subject.writes(site, self._chosen[site][neurons])

    def unembed(self, directions: Tensor) -> Tensor:
        """As the underlying subject does, which must know what its neurons write."""
        assert isinstance(self._subject, ResidualWriter)
        return self._subject.unembed(directions)

    def reads(self, site: str, neurons: Neurons) -> Tensor | None:
        """What the chosen neurons at these places read (neurons, width)."""
        if not isinstance(self._subject, ResidualReader):
            return None
        return self._subject.reads(site, self._chosen[site][neurons])

    def embed(self, directions: Tensor) -> Tensor:
        """As the underlying subject does, which must know what its neurons read."""
        assert isinstance(self._subject, ResidualReader)
        return self._subject.embed(directions)

    @property
    def whole(self) -> Subject:
        """The subject with all its neurons."""
        return self._subject

    def _counted(self, widths: Mapping[str, int]) -> dict[str, int]:
        return {site: len(self._chosen[site]) for site in widths if site in self._chosen}

    def _picking(self, site: str, axis: int, observer: Observer) -> Observer:
        def observe(activations: Tensor) -> None:
            observer(activations.index_select(axis, self._chosen[site].to(activations.device)))

        return observe

    def _listing(self, site: str, observer: LatentObserver) -> LatentObserver:
        chosen = self._chosen[site]

        def observe(latents: Latents) -> None:
            batch, time, width = latents.shape
            device = latents.latent.device
            places = torch.full((width,), -1, device=device)
            places[chosen.to(device)] = torch.arange(len(chosen), device=device)
            there = torch.nonzero(places[latents.latent] >= 0)[:, 0]
            place, value = latents.place[there], latents.value[there]
            latent = places[latents.latent[there]]
            observer(Latents(place, latent, value, (batch, time, len(chosen))))

        return observe


def chosen_of(subject: Subject, neurons: Mapping[str, list[int]]) -> ChosenSubject:
    """The subject with only these neurons of its sites."""
    return ChosenSubject(
        subject, {site: torch.tensor(indices) for site, indices in neurons.items()}
    )
