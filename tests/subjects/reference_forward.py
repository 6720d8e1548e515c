"""Plain forward passes of the architectures, written from their definitions and in float64.

Nothing of transformers' modules is run: only the weights are read, by name. `forward` gives every
site's activations (batch, time, neurons) and the logits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu, softmax

Map = Callable[[Tensor], Tensor]


@dataclass
class Attention:
    """How queries, keys and values (batch, time, heads, size) become z."""

    split: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    scale: float
    rotary: int = 0  # leading dimensions of a head that are rotated
    theta: float = 10000.0
    window: int | None = None
    cap: float | None = None
    alibi: bool = False


@dataclass
class Block:
    """A block; `gate` is the MLP's only entry where `up` is None."""

    before_attention: Map
    attention: Attention
    attention_out: Map
    before_mlp: Map
    gate: Map
    down: Map
    act: Map = gelu
    up: Map | None = None
    parallel: bool = False
    after_attention: Map = field(default=lambda x: x)
    after_mlp: Map = field(default=lambda x: x)
    experts: "list[tuple[Map, Map, Map]] | None" = None  # gate, up, down of each
    router: Map | None = None


@dataclass
class Model:
    """A whole model."""

    embed: Map  # token ids → (batch, time, width)
    blocks: list[Block]
    final: Map
    unembed: Map


def forward(model: Model, tokens: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Every site and the logits."""
    sites: dict[str, Tensor] = {}
    x = model.embed(tokens)
    for layer, block in enumerate(model.blocks):
        at: dict[str, Tensor] = {"hook_resid_pre": x}
        at["attn.hook_z"] = _attend(block.attention, block.before_attention(x))
        at["hook_attn_out"] = block.after_attention(block.attention_out(at["attn.hook_z"]))
        middle = x + at["hook_attn_out"]
        if not block.parallel:
            at["hook_resid_mid"] = middle
        at |= _mlp(block, block.before_mlp(x if block.parallel else middle))
        x = middle + at["hook_mlp_out"]
        at["hook_resid_post"] = x
        sites |= {f"blocks.{layer}.{hook}": value for hook, value in at.items()}
    return sites, model.unembed(model.final(x))


def _mlp(block: Block, x: Tensor) -> dict[str, Tensor]:
    if block.experts is not None:
        return _mixture(block, x)
    at = {"mlp.hook_pre": block.gate(x)}
    post = block.act(at["mlp.hook_pre"])
    if block.up is not None:
        at["mlp.hook_pre_linear"] = block.up(x)
        post = post * at["mlp.hook_pre_linear"]
    return at | {"mlp.hook_post": post, "hook_mlp_out": block.after_mlp(block.down(post))}


def _mixture(block: Block, x: Tensor) -> dict[str, Tensor]:
    assert block.router is not None
    assert block.experts is not None
    best = softmax(block.router(x), -1).topk(2, -1)
    weights = best.values / best.values.sum(-1, keepdim=True)
    at: dict[str, Tensor] = {}
    total = torch.zeros_like(x)
    for expert, (gate, up, down) in enumerate(block.experts):
        share = (weights * (best.indices == expert)).sum(-1, keepdim=True)  # (batch, time, 1)
        pre = gate(x) * (share > 0)
        post = silu(pre) * up(x) * (share > 0)
        total = total + share * down(post)
        at |= {f"mlp.experts.{expert}.hook_pre": pre, f"mlp.experts.{expert}.hook_post": post}
    return {**at, "hook_mlp_out": total}


def _attend(attention: Attention, x: Tensor) -> Tensor:
    q, k, v = attention.split(x)
    time, heads = x.shape[1], q.shape[2]
    if attention.rotary:
        q, k = (_rotate(part, attention.rotary, attention.theta) for part in (q, k))
    k, v = (part.repeat_interleave(heads // part.shape[2], 2) for part in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * attention.scale
    if attention.cap is not None:
        scores = attention.cap * torch.tanh(scores / attention.cap)
    if attention.alibi:
        slopes = torch.tensor([2.0 ** (-8 * (head + 1) / heads) for head in range(heads)])
        distance = torch.arange(time)[None, :] - torch.arange(time)[:, None]
        scores = scores + slopes[:, None, None] * distance * attention.scale
    query, key = torch.arange(time)[:, None], torch.arange(time)[None, :]
    hidden = key > query
    if attention.window is not None:
        hidden = hidden | (query - key >= attention.window)
    pattern = softmax(scores.masked_fill(hidden, -torch.inf), -1)
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v).flatten(2)


def _rotate(x: Tensor, size: int, theta: float) -> Tensor:
    """Rotary position embedding of the first `size` dimensions, halves paired."""
    half = size // 2
    angles = torch.arange(x.shape[1]).double()[:, None] * theta ** (
        -torch.arange(half).double() / half
    )
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # (time, 1, half)
    one, two, rest = x[..., :half], x[..., half:size], x[..., size:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin, rest], -1)


class Weights:
    """A state dict in float64, and the maps that its tensors make."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str = "") -> None:
        self._state, self._prefix = state, prefix

    def within(self, prefix: str) -> "Weights":
        """Names below `prefix`."""
        return Weights(self._state, f"{self._prefix}{prefix}.")

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self._prefix + name].double()

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return self._prefix + name in self._state

    def linear(self, name: str, transposed: bool = False) -> Map:
        """x Wᵀ + b, or x W + b for weights that lie the other way round."""
        weight = self[f"{name}.weight"] if not transposed else self[f"{name}.weight"].T
        bias = self[f"{name}.bias"] if self.has(f"{name}.bias") else torch.zeros(())
        return lambda x: x @ weight.T + bias

    def layer_norm(self, name: str, epsilon: float) -> Map:
        """Centred, scaled, times gain, plus bias."""
        gain, bias = self[f"{name}.weight"], self[f"{name}.bias"]

        def norm(x: Tensor) -> Tensor:
            centred = x - x.mean(-1, keepdim=True)
            return (
                centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt() * gain + bias
            )

        return norm

    def rms_norm(self, name: str, epsilon: float, offset: float = 0.0) -> Map:
        """Scaled, times gain, which is the weight and `offset`."""
        gain = self[f"{name}.weight"] + offset
        return lambda x: x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * gain


def heads(x: Tensor, size: int) -> Tensor:
    """(batch, time, heads · size) → (batch, time, heads, size)."""
    return x.view(*x.shape[:-1], -1, size)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU's tanh approximation."""
    return gelu(x, approximate="tanh")


def _three(weights: Weights, names: tuple[str, str, str], size: int) -> Any:
    maps = [weights.linear(name) for name in names]
    return lambda x: tuple(heads(project(x), size) for project in maps)


def gpt2(config: Any, state: Mapping[str, Tensor]) -> Model:
    """GPT-2."""
    top = Weights(state).within("transformer")
    size, eps = config.n_embd // config.n_head, config.layer_norm_epsilon
    blocks = []
    for layer in range(config.n_layer):
        own = top.within(f"h.{layer}")
        qkv = own.linear("attn.c_attn", True)

        def split(x: Tensor, qkv: Map = qkv) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = qkv(x).chunk(3, -1)
            return heads(q, size), heads(k, size), heads(v, size)

        blocks.append(
            Block(
                own.layer_norm("ln_1", eps),
                Attention(split, size**-0.5),
                own.linear("attn.c_proj", True),
                own.layer_norm("ln_2", eps),
                own.linear("mlp.c_fc", True),
                own.linear("mlp.c_proj", True),
                gelu_tanh,
            )
        )

    def embed(tokens: Tensor) -> Tensor:
        return top["wte.weight"][tokens] + top["wpe.weight"][: tokens.shape[1]]

    return Model(embed, blocks, top.layer_norm("ln_f", eps), Weights(state).linear("lm_head"))


def neox(config: Any, state: Mapping[str, Tensor]) -> Model:
    """GPT-NeoX, whose fused queries, keys and values lie head by head."""
    top = Weights(state).within("gpt_neox")
    size, eps = config.hidden_size // config.num_attention_heads, config.layer_norm_eps
    blocks = []
    for layer in range(config.num_hidden_layers):
        own = top.within(f"layers.{layer}")
        qkv = own.linear("attention.query_key_value")

        def split(x: Tensor, qkv: Map = qkv) -> Any:
            return heads(qkv(x), 3 * size).chunk(3, -1)

        blocks.append(
            Block(
                own.layer_norm("input_layernorm", eps),
                Attention(
                    split,
                    size**-0.5,
                    rotary=int(size * config.rope_parameters["partial_rotary_factor"]),
                ),
                own.linear("attention.dense"),
                own.layer_norm("post_attention_layernorm", eps),
                own.linear("mlp.dense_h_to_4h"),
                own.linear("mlp.dense_4h_to_h"),
                gelu,
                parallel=config.use_parallel_residual,
            )
        )
    embedding = top["embed_in.weight"]
    final = top.layer_norm("final_layer_norm", eps)
    return Model(lambda ids: embedding[ids], blocks, final, Weights(state).linear("lm_head"))


def phi(config: Any, state: Mapping[str, Tensor]) -> Model:
    """Phi 1 to 2."""
    top = Weights(state).within("model")
    size, eps = config.hidden_size // config.num_attention_heads, config.layer_norm_eps
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    blocks = []
    for layer in range(config.num_hidden_layers):
        own = top.within(f"layers.{layer}")
        norm = own.layer_norm("input_layernorm", eps)
        rotary = int(size * config.rope_parameters["partial_rotary_factor"])
        blocks.append(
            Block(
                norm,
                Attention(_three(own, names, size), size**-0.5, rotary),
                own.linear("self_attn.dense"),
                norm,
                own.linear("mlp.fc1"),
                own.linear("mlp.fc2"),
                gelu_tanh,
                parallel=True,
            )
        )
    embedding = top["embed_tokens.weight"]
    final = top.layer_norm("final_layernorm", eps)
    return Model(lambda ids: embedding[ids], blocks, final, Weights(state).linear("lm_head"))


def opt(config: Any, state: Mapping[str, Tensor]) -> Model:
    """OPT, whose positions begin at 2."""
    top = Weights(state).within("model.decoder")
    size = config.hidden_size // config.num_attention_heads
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    blocks = []
    for layer in range(config.num_hidden_layers):
        own = top.within(f"layers.{layer}")
        blocks.append(
            Block(
                own.layer_norm("self_attn_layer_norm", 1e-5),
                Attention(_three(own, names, size), size**-0.5),
                own.linear("self_attn.out_proj"),
                own.layer_norm("final_layer_norm", 1e-5),
                own.linear("fc1"),
                own.linear("fc2"),
                relu,
            )
        )

    def embed(tokens: Tensor) -> Tensor:
        positions = top["embed_positions.weight"][2 : 2 + tokens.shape[1]]
        return top["embed_tokens.weight"][tokens] + positions

    final = top.layer_norm("final_layer_norm", 1e-5)
    return Model(embed, blocks, final, Weights(state).linear("lm_head"))


def falcon(config: Any, state: Mapping[str, Tensor]) -> Model:
    """Falcon: one key and value for all heads, or grouped with two norms, or ALiBi in sequence."""
    top = Weights(state).within("transformer")
    count, eps = config.num_attention_heads, config.layer_norm_epsilon
    size = config.hidden_size // count
    groups = config.num_kv_heads if config.new_decoder_architecture else 1
    blocks = []
    for layer in range(config.num_hidden_layers):
        own = top.within(f"h.{layer}")
        qkv = own.linear("self_attention.query_key_value")

        def split(x: Tensor, qkv: Map = qkv) -> Any:
            if not (config.multi_query or config.new_decoder_architecture):
                return heads(qkv(x), 3 * size).chunk(3, -1)
            grouped = heads(qkv(x), size)
            grouped = grouped.view(*x.shape[:2], groups, -1, size)
            return grouped[..., :-2, :].flatten(2, 3), grouped[..., -2, :], grouped[..., -1, :]

        names = ("input_layernorm",) * 2
        if config.new_decoder_architecture:
            names = ("ln_attn", "ln_mlp")
        elif not config.parallel_attn:
            names = ("input_layernorm", "post_attention_layernorm")
        blocks.append(
            Block(
                own.layer_norm(names[0], eps),
                Attention(split, size**-0.5, 0 if config.alibi else size, alibi=config.alibi),
                own.linear("self_attention.dense"),
                own.layer_norm(names[1], eps),
                own.linear("mlp.dense_h_to_4h"),
                own.linear("mlp.dense_4h_to_h"),
                gelu,
                parallel=config.parallel_attn or config.new_decoder_architecture,
            )
        )
    embedding, final = top["word_embeddings.weight"], top.layer_norm("ln_f", eps)
    return Model(lambda ids: embedding[ids], blocks, final, Weights(state).linear("lm_head"))


def llama(config: Any, state: Mapping[str, Tensor]) -> Model:
    """Llama and those that follow it: Mistral, Mixtral, Qwen, Gemma, Phi-3."""
    kind, eps = config.model_type, config.rms_norm_eps
    top, offset = Weights(state).within("model"), float("gemma" in kind)
    blocks = []
    for layer in range(config.num_hidden_layers):
        own = top.within(f"layers.{layer}")

        def norm(name: str, own: Weights = own) -> Map:
            return own.rms_norm(name, eps, offset)

        sandwich = kind in {"gemma2", "gemma3_text"}
        gate, up, down = _gated(config, own)
        block = Block(
            norm("input_layernorm"),
            _llama_attention(config, own, layer),
            own.linear("self_attn.o_proj"),
            norm("pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"),
            gate,
            down,
            gelu_tanh if "gemma" in kind else silu,
            up,
        )
        if sandwich:
            block.after_attention = norm("post_attention_layernorm")
            block.after_mlp = norm("post_feedforward_layernorm")
        if kind == "mixtral":
            block.router = own.linear("mlp.gate")
            block.experts = [_expert(own, index) for index in range(config.num_local_experts)]
        blocks.append(block)
    embedding = top["embed_tokens.weight"] * (config.hidden_size**0.5 if offset else 1.0)
    final = top.rms_norm("norm", eps, offset)
    head = Weights(state).linear("lm_head")
    cap = getattr(config, "final_logit_softcapping", None)
    capped: Map = (lambda x: cap * torch.tanh(head(x) / cap)) if cap else head
    return Model(lambda ids: embedding[ids], blocks, final, capped)


def _gated(config: Any, own: Weights) -> tuple[Map, Map, Map]:
    if config.model_type == "mixtral":
        return own.linear("mlp.gate"), own.linear("mlp.gate"), own.linear("mlp.gate")  # not used
    down = own.linear("mlp.down_proj")
    if config.model_type != "phi3":
        return own.linear("mlp.gate_proj"), own.linear("mlp.up_proj"), down
    both, half = own.linear("mlp.gate_up_proj"), config.intermediate_size
    return lambda x: both(x)[..., :half], lambda x: both(x)[..., half:], down


def _expert(own: Weights, index: int) -> tuple[Map, Map, Map]:
    gate, up = own["mlp.experts.gate_up_proj"][index].chunk(2)
    down = own["mlp.experts.down_proj"][index]
    return lambda x: x @ gate.T, lambda x: x @ up.T, lambda x: x @ down.T


def _llama_attention(config: Any, own: Weights, layer: int) -> Attention:
    kind = config.model_type
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    split = _fused(config, own, size) if kind == "phi3" else _three(own, names, size)
    if kind in {"qwen3", "gemma3_text"}:
        plain, offset = split, float("gemma" in kind)
        query, key = (
            own.rms_norm(f"self_attn.{name}_norm", config.rms_norm_eps, offset) for name in "qk"
        )

        def split(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = plain(x)
            return query(q), key(k), v

    scale, window, theta, cap = size**-0.5, None, 10000.0, None
    kinds: Any = getattr(config, "layer_types", None)
    if kind in {"mistral", "mixtral", "phi3"} or (kinds and kinds[layer] == "sliding_attention"):
        window = config.sliding_window
    if kind in {"gemma2", "gemma3_text"}:
        scale, cap = config.query_pre_attn_scalar**-0.5, config.attn_logit_softcapping
    if kind == "gemma3_text":
        theta = config.rope_parameters[kinds[layer]]["rope_theta"]
    elif kind == "mixtral":
        theta = config.rope_parameters["rope_theta"]
    return Attention(split, scale, size, theta, window, cap)


def _fused(config: Any, own: Weights, size: int) -> Any:
    qkv, pairs = own.linear("self_attn.qkv_proj"), config.num_key_value_heads
    sizes = [config.num_attention_heads * size, pairs * size, pairs * size]
    return lambda x: tuple(heads(part, size) for part in torch.split(qkv(x), sizes, -1))
