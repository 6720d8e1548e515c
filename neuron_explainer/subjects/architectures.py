"""Where the parts of a transformer's blocks lie, by Hugging Face's `model_type`: data alone.

block       attention and MLP, each adding to the residual stream
attention   its module, and the projection that its heads write through
MLP         its module, what its activation function reads, and what it writes through
adding      what reads the residual stream between attention and MLP, where it can be read there,
            and the norms, if any, that attention's and the MLP's outputs pass before they are added
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Attention:
    """Modules of a block; its projection reads `attn.hook_z`."""

    module: str
    projection: str


@dataclass(frozen=True, slots=True)
class Mlp:
    """Modules of a block. Without a gate `entry` is the only projection that reads the stream."""

    module: str  # its output is what the MLP adds, unless a norm follows
    entry: str  # its output goes through the activation function: the gate where there is one
    down: str  # its input is `mlp.hook_post`
    up: str | None = None  # what the gate is multiplied with
    halves: bool = False  # `entry` makes both, the gate in front
    experts: str | None = None  # fused experts, in the blocks that have them


@dataclass(frozen=True, slots=True)
class Adding:
    """How attention and MLP add to the stream."""

    middle: str | None = None  # reads the stream between them; None: both read the same
    after_attention: str | None = None
    after_mlp: str | None = None
    # (flag of the configuration, value) that makes the two parallel, so that there is no middle
    parallel: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """An architecture. Paths of `blocks` and `final_norm` are from the decoder."""

    attention: Attention
    mlp: Mlp
    adding: Adding
    blocks: str = "layers"
    final_norm: str = "norm"
    # (flag, value) without which its blocks are none of those described here
    requires: tuple[tuple[str, bool], ...] = ()


_SEQUENTIAL = Adding("post_attention_layernorm")
_PARALLEL = Adding()
_SANDWICH = Adding(  # norms before and after
    "pre_feedforward_layernorm", "post_attention_layernorm", "post_feedforward_layernorm"
)
_GATED = Mlp("mlp", "mlp.gate_proj", "mlp.down_proj", up="mlp.up_proj")
_PLAIN = Mlp("mlp", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")

_GPT2 = Layout(
    Attention("attn", "attn.c_proj"),
    Mlp("mlp", "mlp.c_fc", "mlp.c_proj"),
    Adding("ln_2"),
    blocks="h",
    final_norm="ln_f",
)
_LLAMA = Layout(Attention("self_attn", "self_attn.o_proj"), _GATED, _SEQUENTIAL)
_MIXTRAL = replace(_LLAMA, mlp=replace(_GATED, experts="mlp.experts"))
_GEMMA2 = replace(_LLAMA, adding=_SANDWICH)
_PHI3 = replace(_LLAMA, mlp=Mlp("mlp", "mlp.gate_up_proj", "mlp.down_proj", halves=True))
_PHI = Layout(
    Attention("self_attn", "self_attn.dense"),
    Mlp("mlp", "mlp.fc1", "mlp.fc2"),
    _PARALLEL,
    final_norm="final_layernorm",
)
_NEOX = Layout(
    Attention("attention", "attention.dense"),
    _PLAIN,
    replace(_SEQUENTIAL, parallel=(("use_parallel_residual", True),)),
    final_norm="final_layer_norm",
)
_OPT = Layout(
    Attention("self_attn", "self_attn.out_proj"),
    Mlp("fc2", "fc1", "fc2"),
    Adding("final_layer_norm"),
    final_norm="final_layer_norm",
    requires=(("do_layer_norm_before", True), ("_remove_final_layer_norm", False)),
)
_FALCON = Layout(
    Attention("self_attention", "self_attention.dense"),
    _PLAIN,
    replace(_SEQUENTIAL, parallel=(("parallel_attn", True), ("new_decoder_architecture", True))),
    blocks="h",
    final_norm="ln_f",
)

ARCHITECTURES: Mapping[str, Layout] = {
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA),
    **dict.fromkeys(("mixtral", "qwen3_moe"), _MIXTRAL),
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA2),
    "phi": _PHI,
    "phi3": _PHI3,
    "opt": _OPT,
    "falcon": _FALCON,
}

# What else blocks are made of, to be tried on an architecture that is not in the table
OTHER_ATTENTION = (Attention("attn", "attn.out_proj"), Attention("attn", "attn.attention.out_proj"))
OTHER_MLP = (
    Mlp("mlp", "mlp.fc_in", "mlp.fc_out"),
    Mlp("mlp", "mlp.up_proj", "mlp.down_proj"),
    Mlp("feed_forward", "feed_forward.w1", "feed_forward.w2", up="feed_forward.w3"),
)
OTHER_ADDING = (
    Adding("mlp", "post_attention_layernorm", "post_feedforward_layernorm"),
    Adding("feedforward_layernorm"),
)
OTHER_FINAL_NORMS = ("norm_f", "layer_norm")
