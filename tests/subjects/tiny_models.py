"""Tiny random models of the real classes, one for each architecture and variant."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import reference_forward as reference
import torch
import transformers

_OWN = {
    "vocab_size": 2000,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_COMMON = {**_OWN, "intermediate_size": 24}
LLAMA = {**_COMMON, "num_key_value_heads": 2}
_GEMMA = {**LLAMA, "head_dim": 6}
_KINDS = ["sliding_attention", "full_attention"]
_FALCON = {**_OWN, "bias": True, "ffn_hidden_size": 40}
_OPT = {**_OWN, "ffn_dim": 24, "word_embed_proj_dim": 16, "activation_function": "relu"}

Reference = Callable[[Any, Mapping[str, torch.Tensor]], reference.Model]

# name: (class of the configuration, its settings, reference forward)
MODELS: dict[str, tuple[str, dict[str, Any], Reference]] = {
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 2000, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
        | {"n_inner": 40, "bos_token_id": 0, "eos_token_id": 0},
        reference.gpt2,
    ),
    "gpt_neox": ("GPTNeoXConfig", {**_COMMON, "rotary_pct": 0.5}, reference.neox),
    "gpt_neox in sequence": (
        "GPTNeoXConfig",
        {**_COMMON, "rotary_pct": 0.5, "use_parallel_residual": False},
        reference.neox,
    ),
    "llama": ("LlamaConfig", LLAMA, reference.llama),
    "llama tied": ("LlamaConfig", {**LLAMA, "tie_word_embeddings": True}, reference.llama),
    "mistral": ("MistralConfig", {**LLAMA, "sliding_window": 4}, reference.llama),
    "mixtral": ("MixtralConfig", {**LLAMA, "num_local_experts": 4}, reference.llama),
    "qwen2": ("Qwen2Config", LLAMA, reference.llama),
    "qwen3": ("Qwen3Config", {**LLAMA, "head_dim": 6}, reference.llama),
    "gemma": ("GemmaConfig", _GEMMA, reference.llama),
    "gemma2": (
        "Gemma2Config",
        {**_GEMMA, "sliding_window": 4, "query_pre_attn_scalar": 9, "layer_types": _KINDS},
        reference.llama,
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {**_GEMMA, "sliding_window": 4, "query_pre_attn_scalar": 9, "layer_types": _KINDS},
        reference.llama,
    ),
    "phi": ("PhiConfig", _COMMON, reference.phi),
    "phi3": ("Phi3Config", {**LLAMA, "sliding_window": 4}, reference.llama),
    "opt": ("OPTConfig", _OPT, reference.opt),
    "falcon": ("FalconConfig", _FALCON, reference.falcon),
    "falcon grouped": (
        "FalconConfig",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
        reference.falcon,
    ),
    "falcon with ALiBi": (
        "FalconConfig",
        {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False},
        reference.falcon,
    ),
}


def build(config: str, settings: Mapping[str, Any]) -> Any:
    """A model with random weights, norms' gains among them."""
    torch.manual_seed(0)
    made = getattr(transformers, config)(**settings)
    classes: Any = transformers.AutoModelForCausalLM
    model = classes.from_config(made)
    for name, parameter in model.named_parameters():
        is_gain = parameter.dim() == 1 and name.endswith("weight")
        mean = 1.0 if is_gain and "gemma" not in made.model_type else 0.0
        torch.nn.init.normal_(parameter, mean, 0.3)
    # grouped products of experts are not to be had in float64
    return model.eval() if made.model_type == "mixtral" else model.eval().double()


def tokenizer(tiny: Path) -> Any:
    """The example's, which has fewer than 2,000 tokens."""
    return transformers.AutoTokenizer.from_pretrained(tiny / "model")
