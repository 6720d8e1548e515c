"""What a subject is and where it can be read, and whether an autoencoder fits it.

normalised MSE  mean over tokens of mean((x̂−x)²) / mean(x²)
mean's MSE      the same for the mean activation in place of x̂: what knowing nothing gives
L0              active latents at a token, on average
silent          share of latents that are active at none of the tokens
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from neuron_explainer.collect.corpus import CorpusSource
from neuron_explainer.errors import CorpusError, SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.base import Observer, Subject
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.sparse_quality import normalised_mean_squared_error

CHECKED_TOKENS = 4096
_LENGTH, _BATCH = 64, 16  # of an excerpt without BOS, and of a forward pass
_POOR = 0.4  # share of the mean's error that is left: published autoencoders leave far less
_SITE = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<hook>.+)")
_EXPERT = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True, slots=True)
class SiteGroup:
    """Sites of the same name and size."""

    hook: str  # "mlp.experts.N.hook_post" for those of all experts
    width: int
    layers: tuple[int, ...]
    sites: int


def groups(sites: Mapping[str, int]) -> list[SiteGroup]:
    """Sites by name and size, in the order of computation."""
    found: dict[tuple[str, int], list[int]] = {}
    for site, width in sites.items():
        match = _SITE.fullmatch(site)
        assert match is not None, site
        hook = _EXPERT.sub(".experts.N.", match["hook"])
        found.setdefault((hook, width), []).append(int(match["layer"]))
    return [
        SiteGroup(hook, width, tuple(dict.fromkeys(layers)), len(layers))
        for (hook, width), layers in found.items()
    ]


def about(subject: HuggingFaceSubject) -> dict[str, Any]:
    """The subject, for a report."""
    return {
        "architecture": subject.architecture,
        "layers": subject.layers,
        "width": subject.width,
        "heads": subject.heads,
        "vocabulary": len(subject.tokenizer.vocabulary),
        "context": subject.context,
        "dtype": str(subject.dtype).removeprefix("torch."),
        "note": subject.note,
        "sites": [asdict(group) for group in groups(subject.sites())],
    }


def about_autoencoder(autoencoder: Autoencoder) -> dict[str, Any]:
    """An autoencoder, for a report."""
    return {
        "format": autoencoder.format,
        "architecture": autoencoder.architecture,
        "k": autoencoder.k,
        "latents": autoencoder.n,
        "width": autoencoder.d_in,
        "normalisation": autoencoder.normalisation.replace("_", " "),
        "centred": autoencoder.centred,
        "reconstructs": autoencoder.site_out,
        "notes": list(autoencoder.notes),
    }


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What an autoencoder makes of some tokens."""

    tokens: int
    normalised_mse: float | None
    mean_normalised_mse: float | None
    l0: float
    silent: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why it looks as if it had been loaded wrongly, or belonged elsewhere."""
        said = []
        error, known = self.normalised_mse, self.mean_normalised_mse
        if error is not None and known is not None and error > _POOR * known:
            said.append(
                f"its normalised MSE is {error:.3g}, where the mean activation gives {known:.3g}"
            )
        if self.l0 < 1:
            said.append(f"only {self.l0:.2g} latents are active at a token")
        return tuple(said)


@torch.inference_mode()
def check(subject: Subject, site: str, autoencoder: Autoencoder, corpus: CorpusSource) -> SelfCheck:
    """Encode and decode `site` over the first tokens of a corpus; BOS is run but not counted.

    Raises CorpusError when the corpus holds no text, SubjectError when the site that a transcoder
    reconstructs is not there or has another width.
    """
    target = (autoencoder.site_out or "") if autoencoder.transcodes else site
    if autoencoder.transcodes and subject.sites().get(target) != autoencoder.d_out:
        raise SubjectError(
            f"the transcoder reconstructs {target or 'a site that its files do not name'}, of "
            f"width {autoencoder.d_out}, which the model does not have: it cannot be checked"
        )
    rows: dict[str, list[Tensor]] = {site: [], target: []}  # (tokens, width)
    first = 0 if subject.tokenizer.bos is None else 1

    def keeping(place: str) -> Observer:
        def keep(activations: Tensor) -> None:
            scored = activations[:, first:]
            rows[place].append(scored.reshape(-1, scored.shape[-1]).float().cpu())

        return keep

    for tokens in _batches(subject, corpus):
        subject.observe(tokens, {place: keeping(place) for place in rows})
    if not rows[site]:
        raise CorpusError(f"{corpus.path} holds too little text to try an autoencoder on")
    return self_check(autoencoder, torch.cat(rows[site]), torch.cat(rows[target]))


def self_check(autoencoder: Autoencoder, x: Tensor, target: Tensor) -> SelfCheck:
    """Judge how activations `x` (tokens, d_in) reconstruct `target` (tokens, d_out).

    The two are the same unless the autoencoder is a transcoder.
    """
    parts, active, fired = [], 0, torch.zeros(autoencoder.n, dtype=torch.bool)
    for block in torch.split(x, 256):
        latents = autoencoder.encode(block)
        parts.append(autoencoder.reconstruct(block))
        active += int((latents > 0).sum())
        fired |= (latents > 0).any(0)
    return SelfCheck(
        len(x),
        normalised_mean_squared_error(torch.cat(parts), target),
        normalised_mean_squared_error(target.mean(0).expand_as(target), target),
        active / len(x),
        1 - float(fired.float().mean()),
    )


def _batches(subject: Subject, corpus: CorpusSource) -> Iterator[Tensor]:
    """Excerpts of one length, of as many documents as it takes."""
    bos = subject.tokenizer.bos
    before = [] if bos is None else [bos]
    length = min(_LENGTH, subject.context - len(before))
    waiting: list[Sequence[int]] = []
    left = CHECKED_TOKENS // length
    for document in corpus.documents():
        (ids,) = subject.tokenizer.encode([document])
        ends = range(length, len(ids) + 1, length)
        waiting += [[*before, *ids[end - length : end].tolist()] for end in ends]
        while len(waiting) >= _BATCH and left > 0:
            yield torch.tensor(waiting[:_BATCH])
            waiting, left = waiting[_BATCH:], left - _BATCH
        if left <= 0:
            return
    if waiting:
        yield torch.tensor(waiting[:left])
