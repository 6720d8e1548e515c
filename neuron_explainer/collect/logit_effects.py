"""Which tokens a neuron promotes and suppresses: what it writes, read through the unembedding.

direction   what a neuron adds to the residual stream per unit of activation (width,)
effect      what the direction adds to a token's logit, less the mean over the vocabulary, which
            softmax does not see

This is the direct path alone ("direct logit attribution", Elhage et al. 2021, "A Mathematical
Framework for Transformer Circuits"; the reading of the residual stream is the "logit lens",
nostalgebraist 2020; for MLP neurons see Geva et al. 2022, "Transformer Feed-Forward Layers Build
Predictions by Promoting Concepts in the Vocabulary Space"). The final norm's centring and gain are
in an effect. Its scale is not: that depends on the input and is one positive factor for all tokens,
so it changes no order. Nor are what later layers make of the direction, and biases.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from neuron_explainer import schemas
from neuron_explainer.collect.reservoirs import activation_keys, positions_of
from neuron_explainer.errors import SubjectError
from neuron_explainer.store import Shard
from neuron_explainer.subjects.base import ResidualWriter, Subject

_BLOCK = 64  # neurons at once: with a vocabulary of 50,000 they take about 75 MB


class TokenEffects(ABC):
    """A table of the tokens that have most to do with a direction of each neuron, either way."""

    table: ClassVar[str]

    def __init__(self, subject: Subject, number: int, block: int = _BLOCK) -> None:
        """Keep up to `number` tokens of the largest and `number` of the smallest effect."""
        self._subject = subject
        self._number = number
        self._block = block
        self._unnamed = torch.tensor([not name for name in subject.tokenizer.vocabulary])

    @abstractmethod
    def products(self, site: str, neurons: slice) -> Tensor | None:
        """The direction of each neuron with every token (neurons, vocabulary), if there is one."""

    @torch.inference_mode()
    def shard(self, site: str, shard: Shard) -> dict[str, pa.Table]:
        """The table of the neurons in `shard`, by name; none where the subject cannot tell.

        Raises SubjectError when an effect is not finite.
        """
        parts = []
        for start in range(shard.start, shard.stop if self._number else shard.start, self._block):
            neurons = Shard(start, min(start + self._block, shard.stop))
            effects = self._effects(site, neurons)
            if effects is None:
                return {}
            parts.append(_rows(neurons, *strongest(effects, self._number)))
        return {self.table: pa.concat_tables(parts)} if parts else {}

    def _effects(self, site: str, neurons: Shard) -> Tensor | None:
        """(neurons, vocabulary), less their mean; 0 for token ids that stand for nothing."""
        products = self.products(site, slice(neurons.start, neurons.stop))
        if products is None:
            return None
        effects = products - products.mean(1, keepdim=True)
        if not effects.isfinite().all():
            raise SubjectError(f"a weight that {site} is read through is not finite")
        return effects.masked_fill_(self._unnamed.to(effects.device), 0.0)


class LogitEffects(TokenEffects):
    """The table `logit_effects` of a subject's sites, for the subjects that can tell."""

    table = "logit_effects"

    def products(self, site: str, neurons: slice) -> Tensor | None:
        """What the neurons write, as logits (neurons, vocabulary)."""
        if not isinstance(self._subject, ResidualWriter):
            return None
        directions = self._subject.writes(site, neurons)
        return None if directions is None else self._subject.unembed(directions)


def strongest(effects: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Tokens and effects of the largest and the smallest of each row, by falling effect.

    Both are (neurons, 2 · number), or less wide in a smaller vocabulary. Of equal effects the
    lower token is taken; a place that no promoted or suppressed token fills has effect 0.
    """
    number = min(number, effects.shape[1])
    tokens = torch.arange(effects.shape[1], device=effects.device)
    promoted, suppressed = (
        positions_of(activation_keys(sign * effects, tokens).topk(number, 1).values)
        for sign in (1, -1)
    )
    both = torch.cat([promoted, suppressed.flip(1)], 1)
    kept = effects.gather(1, both)
    kept[:, :number].clamp_(min=0.0)
    kept[:, number:].clamp_(max=0.0)
    return both, kept


def _rows(neurons: Shard, tokens: Tensor, effects: Tensor) -> pa.Table:
    kept = (effects != 0).cpu()
    indices = np.arange(neurons.start, neurons.stop, dtype=np.int32)
    columns = [
        pa.array(np.repeat(indices, kept.sum(1).numpy())),
        pa.array(tokens.cpu()[kept].numpy().astype(np.int32)),
        pa.array(effects.cpu()[kept].numpy()),
    ]
    return pa.table(columns, schema=schemas.LOGIT_EFFECTS)
