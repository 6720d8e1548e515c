"""How strongly heads write, pair by pair, against writes that are spelled out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_architectures import close, observed
from torch import Tensor

from neuron_explainer.head_pairs import flat_index, pair_at
from neuron_explainer.subjects import attention
from neuron_explainer.subjects.huggingface import HuggingFaceSubject

_TOKENS = torch.randint(0, 1900, (2, 9), generator=torch.Generator().manual_seed(1))
_READABLE = [name for name in tiny_models.MODELS if not name.startswith("falcon")]


def _subject(tiny: Path, name: str, **changes: Any) -> tuple[Any, HuggingFaceSubject]:
    config, settings, _ = tiny_models.MODELS[name]
    model = tiny_models.build(config, settings | changes)
    return model, HuggingFaceSubject(model, tiny_models.tokenizer(tiny))


def _pairs(subject: HuggingFaceSubject, tokens: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keeping(site: str) -> Callable[[Tensor], None]:
        return lambda pairs: found.update({site: pairs.clone()})

    subject.observe_pairs(tokens, {site: keeping(site) for site in subject.patterns()})
    return found


@given(st.lists(st.integers(0, 2**25), min_size=1), st.data())
def test_a_flat_index_leads_back_to_its_pair(queries: list[int], data: st.DataObject) -> None:
    keys = [data.draw(st.integers(0, query)) for query in queries]
    query, key = np.array(queries, np.int64), np.array(keys, np.int64)
    again = pair_at(flat_index(query, key))
    np.testing.assert_array_equal(again, (query, key))
    assert flat_index(queries[0], keys[0]) == flat_index(query, key)[0]


def test_flat_indices_count_the_lower_triangle() -> None:
    rows, columns = np.tril_indices(7)
    np.testing.assert_array_equal(flat_index(rows, columns), np.arange(28))
    np.testing.assert_array_equal(pair_at(np.arange(28)), (rows, columns))


@torch.no_grad()
def test_gpt2_pairs_have_the_norm_of_the_write_computed_from_weights(tiny: Path) -> None:
    model, subject = _subject(tiny, "gpt2")
    model.set_attn_implementation("eager")
    patterns = model(_TOKENS, output_attentions=True).attentions
    found = _pairs(subject, _TOKENS)
    assert subject.patterns() == {f"blocks.{layer}.attn.hook_pattern": 4 for layer in range(2)}
    for layer, block in enumerate(model.transformer.h):
        normed = block.ln_1(observed(subject, _TOKENS)[f"blocks.{layer}.hook_resid_pre"].clone())
        values = block.attn.c_attn(normed)[..., 32:].view(2, 9, 4, 4)
        output = block.attn.c_proj.weight.view(4, 4, 16)
        write = torch.einsum("bhij,bjhd,hdw->bhijw", patterns[layer], values, output)
        close(found[f"blocks.{layer}.attn.hook_pattern"], write.norm(dim=-1))


@torch.no_grad()
def test_llama_heads_that_share_keys_have_norms_of_their_own(tiny: Path) -> None:
    model, subject = _subject(tiny, "llama")  # 4 heads, 2 of keys and values
    model.set_attn_implementation("eager")
    patterns = model(_TOKENS, output_attentions=True).attentions
    found = _pairs(subject, _TOKENS)
    for layer, block in enumerate(model.model.layers):
        pre = observed(subject, _TOKENS)[f"blocks.{layer}.hook_resid_pre"].clone()
        values = block.self_attn.v_proj(block.input_layernorm(pre)).view(2, 9, 2, 4)
        for head in range(4):
            output = block.self_attn.o_proj.weight[:, 4 * head : 4 * head + 4].T
            write = (
                patterns[layer][:, head, :, :, None] * (values[:, :, head // 2] @ output)[:, None]
            )
            close(found[f"blocks.{layer}.attn.hook_pattern"][:, head], write.norm(dim=-1))


@pytest.mark.parametrize("name", _READABLE)
def test_what_heads_write_pair_by_pair_adds_up_to_what_enters_the_projection(
    tiny: Path, name: str
) -> None:
    model, subject = _subject(tiny, name)
    summed: list[Tensor] = []
    before = model.config._attn_implementation

    def see(_: Any, pattern: Tensor, values: Tensor) -> None:
        values = values.repeat_interleave(pattern.shape[1] // values.shape[1], 1)
        summed.append((pattern @ values).transpose(1, 2).flatten(2))
        assert not pattern.triu(1).any()

    plain = model(_TOKENS).logits
    with torch.inference_mode(), attention.seen(model, see):
        close(model(_TOKENS).logits, plain)
    assert len(summed) == len(subject.patterns()) == 2
    values = observed(subject, _TOKENS)
    for layer, z in enumerate(summed):
        close(z, values[f"blocks.{layer}.attn.hook_z"])
    assert model.config._attn_implementation == before


def test_padding_and_the_number_of_sites_change_nothing(tiny: Path) -> None:
    _, subject = _subject(tiny, "llama")
    padded = torch.cat([_TOKENS, torch.zeros(2, 3, dtype=torch.int64)], 1)
    whole = _pairs(subject, padded)
    site = "blocks.0.attn.hook_pattern"
    close(whole[site][:, :, :9, :9], _pairs(subject, _TOKENS)[site])
    one: list[Tensor] = []
    subject.observe_pairs(_TOKENS, {site: one.append})
    close(one[0], whole[site][:, :, :9, :9])


def test_attention_that_goes_no_common_way_offers_no_heads(tiny: Path) -> None:
    assert _subject(tiny, "falcon")[1].patterns() == {}
