"""Which tokens excite and inhibit a neuron: their embeddings, read through its input weights.

direction   what excites a neuron in the residual stream (width,), the gain and centring of the norm
            before its MLP folded in; of a gated neuron the gate's
effect      what a token's embedding adds to the neuron's input, less the mean over the vocabulary

This is the direct path from the embedding alone ("Residual stream virtual weights", Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits"): nothing of what earlier blocks make of a
token, of positions, or of biases. The norm's scale is not in it either: that depends on the whole
stream and is one positive factor for all tokens, so it changes no order. In the first block it says
much, in late ones often little.
"""

from torch import Tensor

from neuron_explainer.collect.logit_effects import TokenEffects
from neuron_explainer.subjects.base import ResidualReader


class InputTokens(TokenEffects):
    """The table `input_tokens` of a subject's sites, for the subjects that can tell."""

    table = "input_tokens"

    def products(self, site: str, neurons: slice) -> Tensor | None:
        """What the neurons read, with every token's embedding (neurons, vocabulary)."""
        if not isinstance(self._subject, ResidualReader):
            return None
        directions = self._subject.reads(site, neurons)
        return None if directions is None else self._subject.embed(directions)
