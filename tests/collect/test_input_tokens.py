"""What neurons read and which are alike: against float64 from the weights alone, and on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from example_corpus import first_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuron_explainer import schemas
from neuron_explainer.collect.input_tokens import InputTokens
from neuron_explainer.collect.nearest import Nearest, closest
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import RunMismatch, SubjectError
from neuron_explainer.interchange.neuronpedia import Target
from neuron_explainer.interchange.neuronpedia_rows import RowMaker
from neuron_explainer.record_set import RecordSet
from neuron_explainer.store import Shard
from neuron_explainer.subjects.chosen import chosen_of
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.negative import NegativeSubject
from neuron_explainer.subjects.sparse import SparseSubject
from neuron_explainer.subjects.sparse_openai import from_state
from neuron_explainer.terminal import neuron_view

MLP, RESIDUAL = "blocks.1.mlp.hook_post", "blocks.1.hook_resid_post"
_NEW = ("input_tokens", "nearest")
_SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_SIZES |= {"intermediate_size": 24, "max_position_embeddings": 32}


def _subject(tiny: Path, name: str) -> tuple[Any, HuggingFaceSubject]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "model")
    tokens: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0}
    small = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24, "n_positions": 32}
    kind, sizes = {
        "gpt2": ("GPT2Config", small),
        "llama": ("LlamaConfig", _SIZES),
        "neox": ("GPTNeoXConfig", _SIZES),
    }[name]
    config = getattr(transformers, kind)(**sizes, **tokens)
    torch.manual_seed(2)
    classes: Any = transformers.AutoModelForCausalLM
    model = classes.from_config(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model, HuggingFaceSubject(model, tokenizer)


def _double(weight: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(weight.detach().double().numpy())


def _centred(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows - rows.mean(1, keepdims=True))


def _read(model: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the second block's neurons read (neurons, width), and the embeddings, by formula."""
    if name == "gpt2":
        block = model.transformer.h[1]
        rows = _centred(_double(block.mlp.c_fc.weight).T * _double(block.ln_2.weight))
        return rows, _double(model.transformer.wte.weight)
    if name == "llama":
        block = model.model.layers[1]
        gain = _double(block.post_attention_layernorm.weight)
        return _double(block.mlp.gate_proj.weight) * gain, _double(model.model.embed_tokens.weight)
    block = model.gpt_neox.layers[1]
    gain = _double(block.post_attention_layernorm.weight)
    rows = _centred(_double(block.mlp.dense_h_to_4h.weight) * gain)
    return rows, _double(model.gpt_neox.embed_in.weight)


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_tokens_that_excite_a_neuron_are_those_of_a_direct_computation(
    tiny: Path, name: str
) -> None:
    model, subject = _subject(tiny, name)
    rows, embeddings = _read(model, name)
    expected = _centred(rows @ embeddings.T)
    (table,) = InputTokens(subject, 6).shard(MLP, Shard(0, 24)).values()
    assert table.schema == schemas.INPUT_TOKENS
    for neuron in range(24):
        mine = table.filter(pa.compute.equal(table["neuron"], neuron))
        tokens, effects = mine["token"].to_pylist(), mine["effect"].to_pylist()
        np.testing.assert_allclose(effects, expected[neuron, tokens], atol=1e-4)
        ordered = np.sort(expected[neuron])[::-1]
        np.testing.assert_allclose(effects, [*ordered[:6], *ordered[-6:]], atol=1e-4)


def _cosines(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines)


def _check_nearest(table: pa.Table, direction: str, rows: NDArray[np.float64]) -> None:
    cosines = _cosines(rows)
    own = table.filter(pa.compute.equal(table["direction"], direction))
    for neuron in set(own["neuron"].to_pylist()):
        mine = own.filter(pa.compute.equal(own["neuron"], neuron))
        assert mine["rank"].to_pylist() == list(range(len(mine)))
        found = mine["cosine"].to_numpy()
        np.testing.assert_allclose(found, cosines[neuron, mine["other"].to_numpy()], atol=1e-5)
        np.testing.assert_allclose(found, np.sort(cosines[neuron])[::-1][: len(mine)], atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_the_nearest_neurons_are_those_of_largest_cosine(tiny: Path, name: str) -> None:
    model, subject = _subject(tiny, name)
    written = subject.writes(MLP, slice(None))
    assert written is not None
    (table,) = Nearest(subject, 5, block=7).shard(MLP, range(24)).values()
    assert table.schema == schemas.NEAREST
    assert len(table) == 2 * 24 * 5
    assert table["neuron"].to_pylist() == sorted(table["neuron"].to_pylist())
    _check_nearest(table, "output", _double(written))
    _check_nearest(table, "input", _read(model, name)[0])


@pytest.fixture(scope="module")
def sparse(tiny: Path) -> SparseSubject:
    """A GPT-2 with an autoencoder over the residual stream and one over neurons."""
    saes = {}
    for site, width in ((RESIDUAL, 16), (MLP, 24)):
        chance = torch.Generator().manual_seed(5)
        state: dict[str, Any] = {
            "pre_bias": torch.zeros(width),
            "latent_bias": torch.zeros(40),
            "encoder.weight": torch.randn(40, width, generator=chance),
            "decoder.weight": torch.randn(width, 40, generator=chance),
            "activation": "ReLU",
            "activation_state_dict": {},
        }
        saes[f"{site}/sae"] = from_state(state)
    return SparseSubject(_subject(tiny, "gpt2")[1], saes)


def test_latents_are_alike_by_decoder_and_by_encoder(sparse: SparseSubject) -> None:
    site = f"{RESIDUAL}/sae"
    (table,) = Nearest(sparse, 4).shard(site, range(40)).values()
    autoencoder = sparse.autoencoder(site)
    _check_nearest(table, "output", _double(autoencoder.decoder_weight).T)
    _check_nearest(table, "input", _double(autoencoder.encoder_weight))
    embedding = _double(sparse._subject._embedding)  # type: ignore[attr-defined]
    expected = _centred(_double(autoencoder.encoder_weight) @ embedding.T)
    (tokens,) = InputTokens(sparse, 1).shard(site, Shard(0, 40)).values()
    best = expected.argmax(1)
    np.testing.assert_array_equal(tokens["token"].to_numpy()[::2], best)


def test_latents_over_neurons_read_no_direction_of_the_stream(sparse: SparseSubject) -> None:
    site = f"{MLP}/sae"
    assert InputTokens(sparse, 3).shard(site, Shard(0, 40)) == {}
    (table,) = Nearest(sparse, 3).shard(site, range(40)).values()
    assert set(table["direction"].to_pylist()) == {"output"}


@pytest.mark.parametrize("site", ["blocks.1.attn.hook_z", "blocks.1.hook_mlp_out"])
def test_what_reads_nothing_has_no_table(sparse: SparseSubject, site: str) -> None:
    assert InputTokens(sparse, 3).shard(site, Shard(0, 16)) == {}


def test_directions_of_the_stream_are_like_none(sparse: SparseSubject) -> None:
    (table,) = Nearest(sparse, 3).shard(RESIDUAL, range(16)).values()
    assert len(table) == 0


def test_the_negative_side_is_excited_by_what_inhibits_the_positive(sparse: SparseSubject) -> None:
    negative = NegativeSubject(sparse)
    (mine,) = InputTokens(sparse, 3).shard(MLP, Shard(0, 2)).values()
    (other,) = InputTokens(negative, 3).shard(f"{MLP}.negative", Shard(0, 2)).values()
    for neuron in range(2):
        one, two = (t.filter(pa.compute.equal(t["neuron"], neuron)) for t in (mine, other))
        assert one["token"].to_pylist() == two["token"].to_pylist()[::-1]


def test_chosen_neurons_are_compared_with_all(sparse: SparseSubject) -> None:
    some = chosen_of(sparse, {MLP: [3, 20]})
    (table,) = InputTokens(some, 3).shard(MLP, Shard(0, 2)).values()
    (whole,) = InputTokens(sparse, 3).shard(MLP, Shard(20, 21)).values()
    assert table["token"].to_pylist()[6:] == whole["token"].to_pylist()
    (near,) = Nearest(sparse, 3).shard(MLP, [3, 20]).values()
    (every,) = Nearest(sparse, 3).shard(MLP, range(24)).values()
    kept = every.filter(pa.compute.is_in(every["neuron"], pa.array([3, 20], pa.int32())))
    assert near["other"].to_pylist() == kept["other"].to_pylist()


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 100))
def test_blocks_do_not_change_who_is_closest(count: int, number: int, seed: int) -> None:
    rows = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    units = rows / rows.norm(dim=1, keepdim=True)
    others, cosines = closest(units, torch.arange(count), number)
    assert others.shape == (count, min(number, count - 1))
    assert (others != torch.arange(count)[:, None]).all()
    assert (cosines.diff(dim=1) <= 0).all()
    for neuron in range(count):
        alone, _ = closest(units, torch.tensor([neuron]), number)
        assert alone[0].equal(others[neuron])


def test_a_weight_that_is_not_finite_is_refused(tiny: Path) -> None:
    model, subject = _subject(tiny, "gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.inf
    with pytest.raises(SubjectError, match=f"a weight that {MLP} is read through is not finite"):
        Nearest(subject, 3).shard(MLP, range(24))
    with pytest.raises(SubjectError, match="is not finite"):
        InputTokens(subject, 3).shard(MLP, Shard(0, 24))


def _collected(data: Path, tiny: Path, subject: Any, **given: Any) -> RecordSet:
    settings = CollectSettings(
        corpus=str(data.parent / "corpus.jsonl"), sites=(MLP,), neurons="0-40", **given
    )
    collect(data, SubjectSettings(str(tiny / "model"), "tiny"), settings, subject=subject)
    return RecordSet(data, "tiny", MLP)


@pytest.fixture(scope="module")
def stored(
    tiny: Path, tiny_subject: HuggingFaceSubject, tmp_path_factory: pytest.TempPathFactory
) -> RecordSet:
    """Records of some of the example's neurons."""
    root = tmp_path_factory.mktemp("stored")
    (root / "corpus.jsonl").write_bytes(first_documents(tiny, 8))
    return _collected(root / "data", tiny, tiny_subject)


def test_collect_keeps_both_tables_and_they_are_shown(stored: RecordSet) -> None:
    neuron = stored.neuron(17)
    assert neuron.excited_by is not None
    assert neuron.inhibited_by is not None
    assert neuron.nearest is not None
    assert len(neuron.excited_by) == len(neuron.inhibited_by) == 10
    assert [other.direction for other in neuron.nearest] == ["output"] * 10 + ["input"] * 10
    lines = str(neuron_view(neuron, [], [], plain=True).renderables)  # type: ignore[union-attr]
    for verb in ("excited by", "inhibited by", "writes like", "reads like"):
        assert verb in lines


def test_neuronpedia_gets_the_neurons_that_write_alike(stored: RecordSet) -> None:
    target = Target.of("m", "1-mlp-neurons-acme", MLP)
    neuron = stored.neuron(17)
    row = RowMaker(target, MLP, "tiny", "me", "2020-01-01T00:00:00.000Z").feature(neuron)
    alike = [other for other in neuron.nearest or () if other.direction == "output"]
    assert row["topkCosSimIndices"] == [other.neuron for other in alike]
    assert row["topkCosSimValues"] == [other.cosine for other in alike]


def test_numbers_of_0_leave_them_out(
    tiny: Path, tiny_subject: HuggingFaceSubject, stored: RecordSet, tmp_path: Path
) -> None:
    (tmp_path / "corpus.jsonl").write_bytes((stored.data.parent / "corpus.jsonl").read_bytes())
    data = tmp_path / "data"
    without = _collected(data, tiny, tiny_subject, input_tokens=0, nearest=0)
    assert without.folder.shards("input_tokens") == without.folder.shards("nearest") == []
    neuron = without.neuron(17)
    assert (neuron.excited_by, neuron.inhibited_by, neuron.nearest) == (None, None, None)
    with pytest.raises(RunMismatch, match="was made with input_tokens = 0, not 10"):
        _collected(data, tiny, tiny_subject)
    before = without.folder.manifest()
    old = {key: value for key, value in before["config"].items() if key not in _NEW}
    without.folder.update({"config": old})
    digest = without.folder.digest()
    _collected(data, tiny, tiny_subject)  # of a time that did not know them: as good as before
    assert without.folder.digest() == digest
