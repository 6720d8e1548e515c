"""What may be done to a site's activations during a forward pass.

    with subject.intervene({"blocks.2.mlp.hook_post": zero([5, 7])}):
        logits = subject.logits(tokens)

An intervention takes a site's activations (batch, time, neurons) and gives others of that shape.
On an autoencoder's site it changes latents: what they write changes, and the error, what the
autoencoder leaves unexplained, stays as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder

Intervention = Callable[[Tensor], Tensor]


@runtime_checkable
class Intervenable(Protocol):
    """A subject whose forward pass can be changed."""

    def intervene(self, interventions: Mapping[str, Intervention]) -> AbstractContextManager[None]:
        """Replace the activations of sites in whatever runs inside; may be nested."""

    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, time), padded on the right → logits (batch, time, vocabulary)."""


def zero(neurons: Sequence[int] | slice) -> Intervention:
    """Zero ablation of neurons, latents or the columns of a head (`head`)."""
    return set_to(neurons, 0.0)


def mean(neurons: Sequence[int] | slice, means: Tensor) -> Intervention:
    """Mean ablation: `means` (neurons of the site,) are over a corpus, as `collect` has them."""
    return set_to(neurons, means[neurons])


def set_to(neurons: Sequence[int] | slice, value: float | Tensor) -> Intervention:
    """The same value at every position, or one for each of the neurons (neurons,)."""

    def change(activations: Tensor) -> Tensor:
        changed = activations.clone()
        given = value if isinstance(value, float | int) else value.to(activations)
        changed[..., neurons] = given
        return changed

    return change


def head(number: int, heads: int, width: int) -> slice:
    """The columns of head `number` in `attn.hook_z`, which is `width` wide."""
    size = width // heads
    return slice(number * size, (number + 1) * size)


def splice(
    autoencoder: Autoencoder, change: Intervention | None = None, keep_error: bool = True
) -> Intervention:
    """An autoencoder's reconstruction in place of a site, its latents changed on the way.

    With the error kept and no change the site is what it was, to numerical precision; ablating
    latent i takes away exactly its activation times its decoder row. Without the error the rest
    of the model sees only what the autoencoder explains (Marks et al. 2024, "Sparse Feature
    Circuits", section 3.1). Raises SubjectError for a transcoder, which reconstructs another site.
    """
    if autoencoder.transcodes:
        raise SubjectError(
            "a transcoder's latents cannot be changed here: what they write is at another site"
        )

    def replace(activations: Tensor) -> Tensor:
        own = activations.to(autoencoder.decoder_weight.device)
        norm, latents = autoencoder.norm(own), autoencoder.encode(own)
        changed = latents if change is None else change(latents)
        spliced = autoencoder.decode(changed, norm)
        if keep_error:
            spliced = spliced + (own - autoencoder.decode(latents, norm))
        return spliced.to(activations)

    return replace
