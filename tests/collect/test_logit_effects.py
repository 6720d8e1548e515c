"""Promoted and suppressed tokens: against float64, against the model's own logits, and on disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from fake_subject import SITE, FakeSubject, collect_from, table_lookup, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from neuron_explainer.collect.logit_effects import LogitEffects, strongest
from neuron_explainer.errors import SubjectError
from neuron_explainer.record_set import RecordSet
from neuron_explainer.store import Shard
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.sparse import SparseSubject
from neuron_explainer.subjects.sparse_openai import from_state, read
from neuron_explainer.workspace import Workspace

_WIDTH, _INNER, _LATENTS = 16, 40, 24
_MLP, _RESIDUAL = "blocks.1.mlp.hook_post", "blocks.1.hook_resid_post"


def _model(tokenizer: Any, tied: bool) -> Any:
    """A random GPT-2 whose final norm does something."""
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer) + 5,  # ids that stand for nothing
        n_positions=32,
        n_embd=_WIDTH,
        n_layer=2,
        n_head=2,
        n_inner=_INNER,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = transformers.GPT2LMHeadModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.normal_(model.transformer.ln_f.weight, 1.0, 0.5)
    return model.eval()


def _autoencoder(d_in: int, activation: str) -> Autoencoder:
    chance = torch.Generator().manual_seed(5)
    state: dict[str, Any] = {
        "pre_bias": torch.randn(d_in, generator=chance),
        "latent_bias": torch.randn(_LATENTS, generator=chance),
        "encoder.weight": torch.randn(_LATENTS, d_in, generator=chance),
        "decoder.weight": torch.randn(d_in, _LATENTS, generator=chance),
        "activation": activation,
        "activation_state_dict": {"k": 3, "postact_fn": "ReLU"},
    }
    return from_state(state)


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    """The example's."""
    return transformers.AutoTokenizer.from_pretrained(tiny / "model")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    """A small random GPT-2."""
    return _model(tokenizer, request.param)


@pytest.fixture(scope="module")
def subject(model: Any, tokenizer: Any) -> SparseSubject:
    """The model with an autoencoder over MLP neurons and one over the residual stream."""
    saes = {f"{_MLP}/relu": _autoencoder(_INNER, "ReLU")}
    saes[f"{_RESIDUAL}/topk"] = _autoencoder(_WIDTH, "TopK")
    return SparseSubject(HuggingFaceSubject(model, tokenizer), saes)


def _directions(model: Any) -> Mapping[str, NDArray[np.float64]]:
    """What neurons write (neurons, width), from the weights alone."""
    block = model.transformer.h[1]
    out = block.mlp.c_proj.weight.detach().double().numpy()
    decoders = {
        name: _autoencoder(d_in, name).decoder_weight.T.double().numpy()
        for name, d_in in (("ReLU", _INNER), ("TopK", _WIDTH))
    }
    return {
        _MLP: out,
        "blocks.1.attn.hook_z": block.attn.c_proj.weight.detach().double().numpy(),
        _RESIDUAL: np.eye(_WIDTH),
        "blocks.0.hook_resid_mid": np.eye(_WIDTH),
        "blocks.1.hook_mlp_out": np.eye(_WIDTH),
        f"{_MLP}/relu": decoders["ReLU"] @ out,
        f"{_RESIDUAL}/topk": decoders["TopK"],
    }


_SITES = (
    *(_MLP, "blocks.1.attn.hook_z", _RESIDUAL, "blocks.0.hook_resid_mid"),
    *("blocks.1.hook_mlp_out", f"{_MLP}/relu", f"{_RESIDUAL}/topk"),
)


def _reference(model: Any, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Effects (neurons, vocabulary) in double precision."""
    gain = model.transformer.ln_f.weight.detach().double().numpy()
    head = model.lm_head.weight.detach().double().numpy()
    logits = (directions - directions.mean(1, keepdims=True)) * gain @ head.T
    return np.asarray(logits - logits.mean(1, keepdims=True))


def _rows(table: Mapping[str, list[Any]], neuron: int) -> Iterator[tuple[int, float]]:
    for index, token, effect in zip(*table.values(), strict=True):
        if index == neuron:
            yield token, effect


@pytest.mark.parametrize("site", _SITES)
def test_effects_are_those_of_a_direct_computation(
    model: Any, subject: SparseSubject, site: str
) -> None:
    expected = _reference(model, _directions(model)[site])
    width = subject.sites()[site]
    assert len(expected) == width
    (table,) = LogitEffects(subject, 10).shard(site, Shard(0, width)).values()
    columns = table.to_pydict()
    named = [token for token, name in enumerate(subject.tokenizer.vocabulary) if name]
    assert len(named) == len(subject.tokenizer.vocabulary) - 5
    for neuron in range(width):
        rows = list(_rows(columns, neuron))
        effects = [effect for _, effect in rows]
        assert effects == sorted(effects, reverse=True)
        np.testing.assert_allclose(effects, expected[neuron, [t for t, _ in rows]], atol=1e-5)
        ordered = np.sort(expected[neuron, named])[::-1]
        np.testing.assert_allclose(effects, [*ordered[:10], *ordered[-10:]], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read_in_single(tokenizer: Any, dtype: torch.dtype) -> None:
    model = _model(tokenizer, tied=True).to(dtype)
    expected = _reference(model, _directions(model)[_MLP])
    effects = LogitEffects(HuggingFaceSubject(model, tokenizer), 10)
    (table,) = effects.shard(_MLP, Shard(0, _INNER)).values()
    columns = table.to_pydict()
    places = columns["neuron"], columns["token"]
    np.testing.assert_allclose(columns["effect"], expected[places], atol=1e-5)


def test_an_effect_is_how_the_models_own_logits_change_to_first_order(
    model: Any, subject: SparseSubject
) -> None:
    tokens = torch.randint(0, 100, (1, 7), generator=torch.Generator().manual_seed(0))
    exact = _model_in_double(model)
    norm = exact.transformer.ln_f
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    own = exact(tokens).logits[0, -1]
    residual = seen[0][0, -1]
    scale = (residual.var(unbiased=False) + norm.eps).sqrt()  # frozen

    def logits(x: torch.Tensor) -> torch.Tensor:
        normalised = (x - x.mean()) / scale * norm.weight + norm.bias
        return torch.as_tensor(exact.lm_head(normalised))

    torch.testing.assert_close(logits(residual), own)
    (table,) = LogitEffects(subject, 10).shard(_MLP, Shard(0, _INNER)).values()
    for neuron in range(0, _INNER, 7):
        direction = torch.from_numpy(_directions(model)[_MLP][neuron])
        change = (logits(residual + 1e-3 * direction) - logits(residual)) / 1e-3
        change = (change - change.mean()) * scale
        for token, effect in _rows(table.to_pydict(), neuron):
            assert effect == pytest.approx(float(change[token]), abs=1e-5)


def _model_in_double(model: Any) -> Any:
    exact: Any = transformers.GPT2LMHeadModel(model.config)
    exact.load_state_dict(model.state_dict())
    return exact.eval().double().requires_grad_(False)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_of_any_size_give_the_same(subject: SparseSubject, block: int) -> None:
    site = f"{_MLP}/relu"
    (whole,) = LogitEffects(subject, 6).shard(site, Shard(3, _LATENTS)).values()
    (parts,) = LogitEffects(subject, 6, block).shard(site, Shard(3, _LATENTS)).values()
    assert parts["neuron"].to_pylist() == whole["neuron"].to_pylist()
    assert parts["token"].to_pylist() == whole["token"].to_pylist()
    np.testing.assert_allclose(parts["effect"], whole["effect"], atol=1e-5)


def test_what_a_neuron_writes_before_its_activation_function_is_not_known(
    subject: SparseSubject,
) -> None:
    assert subject.writes("blocks.1.mlp.hook_pre", slice(None)) is None
    assert LogitEffects(subject, 6).shard("blocks.1.mlp.hook_pre", Shard(0, _INNER)) == {}


def test_a_weight_that_is_not_finite_is_refused(tokenizer: Any) -> None:
    model = _model(tokenizer, tied=True)
    model.transformer.ln_f.weight.data[2] = torch.inf
    effects = LogitEffects(HuggingFaceSubject(model, tokenizer), 5)
    with pytest.raises(SubjectError, match=f"{_MLP} is read through is not finite"):
        effects.shard(_MLP, Shard(0, 4))


# few values, so that ties are frequent; minus zero must tie with zero
_EFFECTS = st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.25, 1.0, 3.0])


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=_EFFECTS),
    st.integers(1, 6),
)
def test_the_strongest_are_those_of_a_full_sort(effects: NDArray[np.float32], number: int) -> None:
    tokens, kept = strongest(torch.from_numpy(effects), number)
    for row, found, values in zip(effects, tokens.tolist(), kept.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda token: (-row[token], token))[:number]
        lowest = sorted(range(len(row)), key=lambda token: (row[token], token))[:number]
        promoted = [(token, row[token]) for token in order if row[token] > 0]
        suppressed = [(token, row[token]) for token in reversed(lowest) if row[token] < 0]
        rows = [(token, value) for token, value in zip(found, values, strict=True) if value]
        assert rows == promoted + suppressed


def test_collect_keeps_the_effects_of_every_site(
    small_workspace: Workspace, tiny_subject: HuggingFaceSubject, tiny: Path
) -> None:
    model: Any = tiny_subject._model
    out = model.transformer.h[0].mlp.c_proj.weight.detach().double().numpy()
    decoder = read(tiny / "sae" / "blocks.2.hook_resid_post.pt").decoder_weight
    directions = {SITE: out, "blocks.2.hook_resid_post/topk": decoder.T.double().numpy()}
    for site, rows in directions.items():
        records = RecordSet(small_workspace.data, "tiny", site)
        names = records.corpus.vocabulary[0]
        expected = _reference(model, rows)
        for index in (0, records.width // 2, records.width - 1):
            neuron = records.neuron(index)
            assert neuron.promoted is not None
            assert neuron.suppressed is not None
            for sign, pairs in ((1, neuron.promoted), (-1, neuron.suppressed)):
                best = np.argsort(-sign * expected[index], kind="stable")[:10]
                assert [token for token, _ in pairs] == [names[token] for token in best]
                effects = [effect for _, effect in pairs]
                np.testing.assert_allclose(effects, expected[index, best], atol=1e-5)
            (in_shard,) = records.shard(Shard(index, index + 1))
            assert (in_shard.promoted, in_shard.suppressed) == (neuron.promoted, neuron.suppressed)


class _Writing(FakeSubject):
    """A fake subject whose neurons write: its logits are what they write."""

    def writes(self, site: str, neurons: slice) -> torch.Tensor | None:
        assert site == SITE
        return torch.eye(8)[neurons] * torch.tensor([0.0, *[1.0] * 7])[neurons, None]

    def unembed(self, directions: torch.Tensor) -> torch.Tensor:
        return directions @ torch.ones(8, 50).cumsum(1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A small one of random tokens."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 50, 10) for _ in range(60)]
    return write_documents(tmp_path / "corpus.jsonl", documents)


def _table() -> dict[str, Any]:
    values = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    return {SITE: table_lookup(values)}


def test_a_subject_that_cannot_tell_has_no_table(tmp_path: Path, corpus: Path) -> None:
    _, records = collect_from(tmp_path / "data", corpus, FakeSubject(_table(), 50))
    assert records.folder.shards("logit_effects") == []
    assert records.neuron(0).promoted is records.neuron(0).suppressed is None
    (neuron,) = records.shard(Shard(0, 1))
    assert neuron.promoted is None


def test_a_neuron_that_writes_nothing_promotes_nothing(tmp_path: Path, corpus: Path) -> None:
    _, records = collect_from(tmp_path / "data", corpus, _Writing(_table(), 50), logit_tokens=2)
    assert records.neuron(0).promoted == records.neuron(0).suppressed == ()
    assert records.neuron(1).promoted == ((b" t49", 24.5), (b" t48", 23.5))
    assert records.neuron(1).suppressed == ((b" t0", -24.5), (b"<|endoftext|>", -23.5))


def test_no_effects_are_kept_where_none_are_wanted(tmp_path: Path, corpus: Path) -> None:
    _, records = collect_from(tmp_path / "data", corpus, _Writing(_table(), 50), logit_tokens=0)
    assert records.folder.shards("logit_effects") == []
    assert records.neuron(1).promoted is None


def test_effects_come_out_the_same_after_a_run_was_cut_off(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = collect_from(tmp_path / "whole", corpus, _Writing(_table(), 50))

    def failing(self: LogitEffects, site: str, shard: Shard) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LogitEffects, "shard", failing)
        with pytest.raises(KeyboardInterrupt):
            collect_from(tmp_path / "cut", corpus, _Writing(_table(), 50))
    cut = RecordSet(tmp_path / "cut", "fake", SITE)
    assert not cut.folder.complete
    assert cut.folder.shards("records") == cut.folder.shards("logit_effects") == []
    collect_from(tmp_path / "cut", corpus, _Writing(_table(), 50))
    assert cut.folder.manifest()["shards"] == whole.folder.manifest()["shards"]
