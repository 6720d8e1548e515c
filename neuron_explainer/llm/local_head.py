"""From a model's last hidden states to its logits, for the places and tokens that matter.

Most heads are a matrix product, of which only a few rows are needed. Others scale or cap the
logits: there the model's own code is run on the states. Which it is, is found by trying.
"""

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from neuron_explainer.llm.local_states import UNFIT

_ROWS = 512  # states whose logits are computed together
_TRIED = 16  # tokens or made-up states
_SCALES = (1.0, 30.0, 1000.0)  # a cap shows where logits are large
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUGH = 3e-2  # of half precision


class Head:
    """What follows a model's `base_model`."""

    def __init__(self, network: Any, *, plain: bool) -> None:
        self._network = network
        self._plain = plain  # logits are weight · state + bias, nothing more

    @classmethod
    def of(cls, network: Any) -> Self | None:
        """The head, or None when the model does not compute its logits from last hidden states."""
        own = cls(network, plain=False)
        try:
            if not own._is_the_models():
                return None
        except torch.OutOfMemoryError:
            raise
        except UNFIT:
            return None
        return cls(network, plain=own._is_plain())

    def chosen(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Logits (places, tokens), up to a constant a row, of states (places, width)."""
        if self._plain:
            weight, bias = self._parameters()
            part = None if bias is None else bias[tokens]
            return linear(states, weight[tokens], part).float()
        return torch.cat([self._own(some)[:, tokens] for some in torch.split(states, _ROWS)])

    def log_shares(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Log probabilities (places, tokens) among the whole vocabulary."""
        parts = [
            torch.log_softmax(self._logits(some), -1)[:, tokens]
            for some in torch.split(states, _ROWS)
        ]
        return torch.cat(parts)

    def _logits(self, states: Tensor) -> Tensor:
        return linear(states, *self._parameters()).float() if self._plain else self._own(states)

    def _parameters(self) -> tuple[Tensor, Tensor | None]:
        module = self._network.get_output_embeddings()
        return module.weight, getattr(module, "bias", None)

    def _own(self, states: Tensor) -> Tensor:
        """What the model's own code makes of states put in the place of a token's."""

        def replace(_: Any, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (states[None], *output[1:])
            output.last_hidden_state = states[None]
            return output

        hook = self._network.base_model.register_forward_hook(replace)
        try:
            token = torch.zeros((1, 1), dtype=torch.long, device=states.device)
            logits: Tensor = self._network(input_ids=token, use_cache=False).logits[0]
        finally:
            hook.remove()
        return logits.float()

    def _is_the_models(self) -> bool:
        """Whether real states give the logits of a plain forward pass."""
        ids = torch.arange(_TRIED, device=self._network.device)[None]
        logits = self._network(input_ids=ids, use_cache=False).logits[0].float()
        states = self._network.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        return self._same(self._own(states), logits)

    def _is_plain(self) -> bool:
        weight, bias = self._parameters()
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(_TRIED, weight.shape[1], generator=generator)
        for scale in _SCALES:
            made = (scale * states).to(weight.device, weight.dtype)
            if not self._same(linear(made, weight, bias).float(), self._own(made)):
                return False
        return True

    def _same(self, some: Tensor, others: Tensor) -> bool:
        if some.shape != others.shape:
            return False
        near = _TOLERANCE.get(self._network.dtype, _ROUGH) * others.abs().max()
        return bool((some - others).abs().max() <= near)
