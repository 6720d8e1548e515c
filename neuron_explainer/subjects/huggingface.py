"""Any Hugging Face causal language model, read through forward hooks on its own modules."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from neuron_explainer.errors import SubjectError
from neuron_explainer.head_pairs import PATTERN
from neuron_explainer.subjects import attention
from neuron_explainer.subjects.base import Neurons, Observer, PairObserver
from neuron_explainer.subjects.hooks import Stop, Visit, read, visited
from neuron_explainer.subjects.interventions import Intervention
from neuron_explainer.subjects.loading import load_model
from neuron_explainer.subjects.places import Place, decoder_of, named_by_hand
from neuron_explainer.subjects.reading import norms_before
from neuron_explainer.subjects.structure import find
from neuron_explainer.subjects.tokenizer import HuggingFaceTokenizer
from neuron_explainer.subjects.weights import NormGain, at_least_single, gain_of, oriented

_VOCABULARY_BLOCK = 8192  # rows of the unembedding made float32 at once
_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
_UNBOUNDED = 2**31 - 1  # the context of a model whose configuration states none


class HuggingFaceSubject:
    """A causal LM in evaluation mode, by its own modules."""

    def __init__(self, model: nn.Module, tokenizer: Any, modules: tuple[str, ...] = ()) -> None:
        """`modules` are sites named by hand, as `places.named_by_hand` reads them.

        Raises SubjectError when no site is found or a module does not exist.
        """
        self._model: Any = model.eval()
        self._decoder = decoder_of(model)
        self._config = self._decoder.config
        self.tokenizer = HuggingFaceTokenizer(tokenizer, self._config.vocab_size)
        found = find(self._model, self._decoder)
        self.note = found.note  # what the user should know about the architecture
        self._final_norm = found.final_norm
        named = named_by_hand(self._model, modules, self.layers)
        if not found.places and not named:
            raise SubjectError(str(found.note))
        self._shape = (0, 0)  # (batch, time) of what is running
        self._found, self._by_hand = found.places, frozenset(named)
        self._places: Mapping[str, Place] = {**found.places, **self._measured(named)}

    @classmethod
    def load(
        cls,
        source: str,
        device: str = "cpu",
        dtype: str = "float32",
        modules: tuple[str, ...] = (),
    ) -> "HuggingFaceSubject":
        """From a folder or a hub id. Raises SubjectError when it cannot be loaded whole.

        `device` "auto" spreads the layers over all devices, which needs accelerate.
        """
        return cls(*load_model(source, device, dtype), modules)

    @property
    def architecture(self) -> str:
        """The configuration's `model_type`."""
        return str(self._config.model_type)

    @property
    def layers(self) -> int:
        """How many blocks the model has."""
        return int(self._config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self._decoder.width

    @property
    def heads(self) -> int:
        """How many attention heads a block has: each has its equal part of `attn.hook_z`."""
        return int(getattr(self._config, "num_attention_heads", None) or 0)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def context(self) -> int:
        """The longest sequence that the model takes, in tokens; 2³¹ − 1 where it states none."""
        return int(getattr(self._config, "max_position_embeddings", None) or _UNBOUNDED)

    def sites(self) -> Mapping[str, int]:
        """Every site and its number of neurons, in the order in which the model computes them."""
        return {site: place.width for site, place in self._places.items()}

    @torch.inference_mode()
    def observe(self, tokens: Tensor, observers: Mapping[str, Observer]) -> None:
        """Run `tokens` (batch, time), padded on the right, up to the last site in `observers`.

        No attention mask is needed: a causal model never looks at the padding behind a token.
        """
        self._shape = (tokens.shape[0], tokens.shape[1])
        read(self._model, self._run, self._places, observers, tokens.to(self._device))

    def patterns(self) -> Mapping[str, int]:
        """The heads of every block whose attention computes a pattern and adds what it writes."""
        return {f"{block}.{PATTERN}": self.heads for block in self._attentions.values()}

    @torch.inference_mode()
    def observe_pairs(self, tokens: Tensor, observers: Mapping[str, PairObserver]) -> None:
        """Run `tokens` (batch, time), padded on the right; see `base.HeadReader`.

        Where a norm follows attention its gain is in the norms and its scale, which depends on the
        query, is not, as in `writes`. The bias of the projection is no head's.
        """
        pending = set(observers)

        def see(module: nn.Module, pattern: Tensor, values: Tensor) -> None:
            site = f"{self._attentions[module]}.{PATTERN}"
            if site in observers:
                projection = self.writes(site.replace(PATTERN, "attn.hook_z"), slice(None))
                assert projection is not None
                observers[site](attention.write_norms(pattern, values, projection))
                pending.discard(site)
            if not pending:
                raise Stop

        with attention.seen(self._model, see), suppress(Stop):
            self._run(tokens.to(self._device))

    @torch.inference_mode()
    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, time), padded on the right → the model's own logits, soft cap and all.

        (batch, time, vocabulary).
        """
        self._shape = (tokens.shape[0], tokens.shape[1])
        logits: Tensor = self._model(tokens.to(self._device), use_cache=False).logits
        return logits

    @contextmanager
    def intervene(self, interventions: Mapping[str, Intervention]) -> Iterator[None]:
        """Replace the activations of sites in what runs inside. Raises SubjectError."""
        for site in interventions:
            if site not in self._places:
                raise SubjectError(f"there is no site '{site}' to intervene at")
        visits = [
            visit
            for site in self._places  # in the order of computation: each sees what came before
            if site in interventions
            for visit in self._replacing(site, interventions[site])
        ]
        remove = visited(self._model, self._places, visits, lambda: self._shape)
        try:
            yield
        finally:
            remove()

    @torch.inference_mode()
    def writes(self, site: str, neurons: Neurons) -> Tensor | None:
        """Rows of the output projection (neurons, width), or of the identity at residual sites.

        Through the norm that some architectures have behind it, without that norm's scale; of an
        expert's neurons without the weight that the router gives the expert.
        """
        place = self._places[site]
        if self._final_norm is None:
            return None
        if place.stream:
            return torch.eye(self.width)[neurons]
        if place.projection is None:
            return None
        module = self._model.get_submodule(place.projection)
        weight = oriented(module) if place.expert is None else module.down_proj[place.expert].T
        rows = at_least_single(weight[neurons])
        return rows if place.norm is None else self._gain(place.norm)(rows)

    @torch.inference_mode()
    def unembed(self, directions: Tensor) -> Tensor:
        """Through the final norm's gain, and centring where it centres, and the unembedding.

        A factor on all logits and the soft cap of Gemma 2 are left out: they keep the order.
        """
        assert self._final_norm is not None
        unembedding: Tensor = self._model.get_output_embeddings().weight  # (vocabulary, width)
        normed = self._gain(self._final_norm)(at_least_single(directions))
        normed = normed.to(unembedding.device)
        blocks = torch.split(unembedding, _VOCABULARY_BLOCK)
        return torch.cat([linear(normed, at_least_single(b).to(normed)) for b in blocks], -1)

    @torch.inference_mode()
    def reads(self, site: str, neurons: Neurons) -> Tensor | None:
        """Rows of the projection that enters an MLP (neurons, width), through the norm before it.

        Of a gated MLP the gate's, but for `hook_pre_linear`; the identity at the residual stream.
        """
        if self._embedding.shape[1] != self.width:
            return None
        if {site, site.replace("hook_post", "hook_pre")} & self._by_hand:
            return None
        if site.rpartition(".")[2] in _STREAM:
            return torch.eye(self.width)[neurons]
        site = site.replace("hook_post", "hook_pre")
        block, mlp, _ = site.partition(".mlp.")
        if not mlp or site not in self._places:
            return None
        entry, norm = self._places[site], self._norms_before.get(block)
        if norm is None:
            return None
        module = self._model.get_submodule(entry.module)
        fused = entry.expert is not None
        weight = module.gate_up_proj[entry.expert] if fused else oriented(module).T
        rows = at_least_single(weight[entry.start : entry.start + entry.width][neurons])
        return self._gain(norm).entering(rows) if norm else rows

    @torch.inference_mode()
    def embed(self, directions: Tensor) -> Tensor:
        """Products with the input embeddings, without what a model multiplies them with."""
        rows = at_least_single(directions).to(self._embedding.device)
        blocks = torch.split(self._embedding, _VOCABULARY_BLOCK)
        return torch.cat([linear(rows, at_least_single(b).to(rows)) for b in blocks], -1)

    @property
    def _embedding(self) -> Tensor:
        weight: Tensor = self._model.get_input_embeddings().weight  # (vocabulary, width)
        return weight

    @cached_property
    def _norms_before(self) -> Mapping[str, str]:
        """By block: see `reading.norms_before`."""
        return norms_before(self._model, self._found, self._run, self.width)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._model.get_input_embeddings().weight.device
        return device

    @cached_property
    def _attentions(self) -> Mapping[nn.Module, str]:
        """Attention modules whose pairs can be read, and their blocks: `blocks.6`."""
        found = {}
        for site, place in self._places.items():
            if site.endswith(".attn.hook_z") and place.projection and self._final_norm:
                module = self._model.get_submodule(place.projection.rpartition(".")[0])
                if attention.is_readable(module):
                    found[module] = site.removesuffix(".attn.hook_z")
        return found

    def _replacing(self, site: str, change: Intervention) -> list[tuple[str, Visit]]:
        """Where a site is replaced: the stream between attention and MLP in what attention adds.

        At its own place only the MLP would see it, and the stream would go on as it was.
        """
        block, _, hook = site.rpartition(".")
        stream = [f"{block}.hook_resid_pre", f"{block}.hook_attn_out"]
        if hook != "hook_resid_mid" or not all(name in self._places for name in stream):
            return [(site, change)]
        before: list[Tensor] = []

        def keep(activations: Tensor) -> None:
            before[:] = [activations.clone()]

        def add(attention: Tensor) -> Tensor:
            return change(before[0] + attention) - before[0]

        return [(stream[0], keep), (stream[1], add)]

    def _run(self, tokens: Tensor) -> object:
        return self._decoder.module(tokens, use_cache=False)

    def _gain(self, path: str) -> NormGain:
        if path not in self._gains:
            self._gains[path] = gain_of(self._model.get_submodule(path), self.width)
        return self._gains[path]

    @cached_property
    def _gains(self) -> dict[str, NormGain]:
        return {}

    def _measured(self, named: Mapping[str, Place]) -> dict[str, Place]:
        """Places with their widths, from one token."""
        widths: dict[str, int] = {}

        def measuring(site: str) -> Observer:
            return lambda activations: widths.update({site: activations.shape[-1]})

        if named:
            token = torch.zeros((1, 1), dtype=torch.int64, device=self._device)
            observers = {site: measuring(site) for site in named}
            with torch.inference_mode():
                read(self._model, self._run, named, observers, token)
        return {site: replace(place, width=widths[site]) for site, place in named.items()}
