"""Any Hugging Face causal language model, read through forward hooks on its own modules."""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.base import Observer
from neuron_explainer.subjects.tokenizer import HuggingFaceTokenizer

Side = Literal["input", "output"]

# TransformerLens name → side of a module of one GPT-2 block
GPT2_SITES: dict[str, tuple[Side, str]] = {
    "hook_resid_pre": ("input", ""),
    "attn.hook_z": ("input", "attn.c_proj"),
    "hook_attn_out": ("output", "attn"),
    "hook_resid_mid": ("input", "ln_2"),
    "mlp.hook_pre": ("output", "mlp.c_fc"),
    "mlp.hook_post": ("input", "mlp.c_proj"),
    "hook_mlp_out": ("output", "mlp"),
    "hook_resid_post": ("output", ""),
}
# sites whose neurons write through a projection; the others are the residual stream's own width,
GPT2_PROJECTIONS = {"attn.hook_z": "attn.c_proj", "mlp.hook_post": "mlp.c_proj"}
GPT2_NOT_LINEAR = "mlp.hook_pre"  # but for this one, which only GELU makes something of
_VOCABULARY_BLOCK = 8192  # rows of the unembedding made float32 at once
_SITE = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<hook>.+)")


class _Stop(Exception):
    """Ends the forward pass once the last site was read: never seen outside this module."""


class HuggingFaceSubject:
    """A causal LM of the GPT-2 architecture in evaluation mode."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self._model = model.eval()
        config: Any = model.config
        _check_architecture(config)
        self._config = config
        self.tokenizer = HuggingFaceTokenizer(tokenizer, config.vocab_size)

    @classmethod
    def load(cls, source: str, device: str = "cpu", dtype: str = "float32") -> "HuggingFaceSubject":
        """From a folder or a hub id. Raises SubjectError when it cannot be loaded whole."""
        import transformers
        from huggingface_hub.utils import logging as hub_logging
        from safetensors import SafetensorError

        hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries: what they come to is in our message
        logging: Any = transformers.utils.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            _check_architecture(transformers.AutoConfig.from_pretrained(source))
            tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=getattr(torch, dtype), output_loading_info=True
            )
            model, info = loaded
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise SubjectError(_cannot_load(source, error)) from error
        absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
        if absent:
            raise SubjectError(
                f"{source} lacks the weights {absent[0]} ({len(absent)} in all): "
                "its config.json and its weights do not belong together"
            )
        if len(tokenizer) <= len(
            tokenizer.all_special_tokens
        ):  # without files, an empty one is made
            raise SubjectError(f"{source} has no tokenizer: put its tokenizer.json there")
        return cls(_moved(model, device), tokenizer)

    @property
    def layers(self) -> int:
        """How many blocks the model has."""
        return int(self._config.n_layer)

    @property
    def context(self) -> int:
        """The longest sequence that the model takes, in tokens."""
        return int(self._config.n_positions)

    @cached_property
    def _widths(self) -> dict[str, int]:
        width = int(self._config.n_embd)
        inner = int(self._config.n_inner or 4 * width)
        return {
            hook: inner if hook in {"mlp.hook_pre", "mlp.hook_post"} else width
            for hook in GPT2_SITES
        }

    def sites(self) -> Mapping[str, int]:
        """Every site and its number of neurons, in the order in which the model computes them."""
        return {
            f"blocks.{layer}.{hook}": width
            for layer in range(self.layers)
            for hook, width in self._widths.items()
        }

    @torch.inference_mode()
    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        """Run `tokens` (batch, time), padded on the right, up to the last site in `observers`.

        No attention mask is needed: a causal model never looks at the padding behind a token.
        """
        order = [site for site in self.sites() if site in observers]
        trunk: Any = self._model.base_model
        with ExitStack() as stack:
            for site in order:
                last = site == order[-1]
                handle = self._hook(site, _reader(observers[site], last))
                stack.callback(handle.remove)
            with suppress(_Stop):
                trunk(tokens.to(trunk.device), use_cache=False)

    @torch.inference_mode()
    def writes(self, site: str, neurons: slice) -> Tensor | None:
        """Rows of the output projection (neurons, width), or of the identity at residual sites."""
        block, hook = self._place(site)
        if hook == GPT2_NOT_LINEAR:
            return None
        if hook not in GPT2_PROJECTIONS:
            return torch.eye(int(self._config.n_embd))[neurons]
        projection: Any = block.get_submodule(GPT2_PROJECTIONS[hook])
        rows: Tensor = projection.weight[neurons].float()  # transformers' Conv1D: (in, out)
        return rows

    @torch.inference_mode()
    def unembed(self, directions: Tensor) -> Tensor:
        """Through the final LayerNorm's centring and gain, and the unembedding, tied or not."""
        model: Any = self._model
        gain: Tensor = model.base_model.ln_f.weight.float()
        unembedding: Tensor = model.get_output_embeddings().weight  # (vocabulary, width)
        directions = directions.to(gain)
        read = (directions - directions.mean(-1, keepdim=True)) * gain
        blocks = torch.split(unembedding, _VOCABULARY_BLOCK)
        return torch.cat([linear(read, block.float()) for block in blocks], -1)

    def _hook(self, site: str, read: Callable[[Any], None]) -> Any:
        block, hook = self._place(site)
        side, path = GPT2_SITES[hook]
        module = block.get_submodule(path)
        if side == "input":
            return module.register_forward_pre_hook(lambda _, inputs: read(inputs[0]))
        return module.register_forward_hook(lambda _, __, output: read(output))

    def _place(self, site: str) -> tuple[nn.Module, str]:
        """The block that a site is in, and the site's name there."""
        match = _SITE.fullmatch(site)
        assert match is not None, site
        trunk: Any = self._model.base_model
        block: nn.Module = trunk.h[int(match["layer"])]
        return block, match["hook"]


def _reader(observer: Observer, last: bool) -> Callable[[Any], None]:
    def read(value: Any) -> None:
        observer(value[0] if isinstance(value, tuple) else value)
        if last:
            raise _Stop

    return read


def _check_architecture(config: Any) -> None:
    if config.model_type != "gpt2":
        raise SubjectError(
            f"the architecture '{config.model_type}' is not supported: "
            "choose a model of the GPT-2 architecture (model_type 'gpt2')"
        )


def _moved(model: Any, device: str) -> nn.Module:
    try:
        moved: nn.Module = model.to(device)
    except (
        AssertionError,
        RuntimeError,
    ) as error:  # the former is what a CPU build of torch raises
        reason = str(error).splitlines()[0]
        raise SubjectError(f"the model cannot go to --device {device}: {reason}") from error
    return moved


def _cannot_load(source: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(source).exists():
        return f"the model in {source} cannot be loaded: {reason}"
    return (
        f"no model at {source}: it is no folder here and the hub did not give it ({reason}); "
        "name a folder with config.json, model.safetensors and tokenizer.json"
    )
