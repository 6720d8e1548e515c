"""Attention patterns and values as they pass through transformers' attention interface.

Each architecture's own eager function computes them: scale, soft cap, windows and grouped queries
are as they are in the model. Fast kernels never hold the pattern.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from neuron_explainer.subjects.weights import at_least_single

# (attention module, pattern (batch, heads, query, key), values (batch, key heads, key, size))
Seen = Callable[[Any, Tensor, Tensor], None]
_NAME = "neuron-explainer-heads"
_EAGER = "eager_attention_forward"


def is_readable(attention: Any) -> bool:
    """Whether an attention module computes its pattern through the interface."""
    return hasattr(sys.modules[type(attention).__module__], _EAGER)


@contextmanager
def seen(model: Any, see: Seen) -> Iterator[None]:
    """Let `see` have the pattern and the values of every attention that runs inside."""

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, *a: Any, **k: Any) -> Any:
        eager = getattr(sys.modules[type(module).__module__], _EAGER)
        output, pattern = eager(module, query, key, value, *a, **k)
        see(module, pattern, value)
        return output, pattern

    before = model.config._attn_implementation
    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, eager_mask)
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def write_norms(pattern: Tensor, values: Tensor, projection: Tensor) -> Tensor:
    """a · ‖v W_O‖ of every pair: (batch, heads, query, key), 0 where the key is after the query.

    `projection` is (heads · size, width); heads that share their keys share their values too.
    """
    heads = pattern.shape[1]
    values = at_least_single(values).repeat_interleave(heads // values.shape[1], 1)
    parts = projection.to(values).view(heads, values.shape[-1], -1)
    # head by head: all heads' writes at once would be as large as many residual streams
    norms = [(values[:, head] @ parts[head]).norm(dim=-1) for head in range(heads)]
    return at_least_single(pattern) * torch.stack(norms, 1)[:, :, None, :]
