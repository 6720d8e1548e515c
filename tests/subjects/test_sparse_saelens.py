"""SAELens' folders, old and new, against the formulas written out; and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saelens_files import (
    SITE,
    flat_config,
    nested_config,
    saelens_encode,
    saelens_tensors,
    write_saelens,
)
from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.sparse_formats import load, save

D_IN, N, K = 6, 10, 3
KINDS = ["standard", "topk", "jumprelu", "gated"]
TRANSCODERS = [
    *("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"),
]
Change = dict[str, Any]


def _inputs(rows: int = 20, width: int = D_IN) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * 5 + 2


def _load(folder: Path, kind: str, **more: Any) -> tuple[Autoencoder, dict[str, Tensor]]:
    tensors = saelens_tensors(kind, D_IN, N)
    chosen = ({"k": K} if kind == "topk" else {}) | more
    write_saelens(folder, nested_config(kind, D_IN, N, **chosen), tensors)
    return load(str(folder)), tensors


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_computes_its_formula(tmp_path: Path, kind: str, bias: bool) -> None:
    sae, t = _load(tmp_path, kind, apply_b_dec_to_input=bias)
    x = _inputs()
    latents = saelens_encode(kind, t, x - t["b_dec"] if bias else x, K)
    assert (sae.architecture, sae.site, sae.d_in, sae.n) == (kind, SITE, D_IN, N)
    torch.testing.assert_close(sae.encode(x), latents)
    torch.testing.assert_close(sae.reconstruct(x), latents @ t["W_dec"] + t["b_dec"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_older_flat_configuration_means_the_same(tmp_path: Path, kind: str) -> None:
    t = saelens_tensors(kind, D_IN, N)
    as_activation = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    config = flat_config("standard" if kind == "topk" else kind, D_IN, N)
    config |= as_activation if kind == "topk" else {}
    sae = load(str(write_saelens(tmp_path, config, t)))
    assert (sae.architecture, sae.site) == (kind, SITE)
    latents = saelens_encode(kind, t, _inputs() - t["b_dec"], K)
    torch.testing.assert_close(sae.encode(_inputs()), latents)


def test_the_oldest_configuration_has_little_in_it(tmp_path: Path) -> None:
    t = saelens_tensors("standard", D_IN, N) | {"scaling_factor": torch.ones(N)}
    config = {"d_in": D_IN, "d_sae": N, "hook_point": SITE, "hook_point_layer": 1}
    config |= {"model_name": "gpt2-small", "dtype": "torch.float32", "normalize_activations": False}
    sae = load(str(write_saelens(tmp_path, config, t)))
    assert (sae.architecture, sae.site, sae.subtracts_bias) == ("standard", SITE, True)
    assert "res-jb" in sae.notes[0]


@pytest.mark.parametrize("kind", TRANSCODERS)
def test_transcoders_read_one_site_and_reconstruct_another(tmp_path: Path, kind: str) -> None:
    t = saelens_tensors(kind, D_IN, N, d_out=4)
    out = "blocks.1.hook_mlp_out"
    config = nested_config(kind, D_IN, N, d_out=4, metadata={"hook_name_out": out})
    sae = load(str(write_saelens(tmp_path, config, t)))
    x = _inputs()
    expected = saelens_encode(kind, t, x) @ t["W_dec"] + t["b_dec"]
    expected = expected + x @ t["W_skip"].T if "skip" in kind else expected
    torch.testing.assert_close(sae.reconstruct(x), expected)
    assert (sae.transcodes, sae.site, sae.site_out, sae.d_out) == (True, SITE, out, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_layer_norm_and_constant_norm_are_taken_off_and_put_back(tmp_path: Path, kind: str) -> None:
    x = _inputs()
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    scale = x.norm(dim=-1, keepdim=True) / D_IN**0.5
    ways: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
        "layer_norm": ((x - mean) / (std + 1e-5), lambda y: y * std + mean),
        "constant_norm_rescale": (x / scale, lambda y: y * scale),
    }
    for name, (ready, undone) in ways.items():
        sae, t = _load(tmp_path / name, kind, normalize_activations=name)
        latents = saelens_encode(kind, t, ready - t["b_dec"], K)
        torch.testing.assert_close(sae.encode(x), latents, rtol=1e-4, atol=1e-4)
        decoded = undone(latents @ t["W_dec"] + t["b_dec"])
        torch.testing.assert_close(sae.reconstruct(x), decoded, rtol=1e-4, atol=1e-3)


def test_an_input_of_zeros_stays_finite_under_constant_norm(tmp_path: Path) -> None:
    sae, _ = _load(tmp_path, "standard", normalize_activations="constant_norm_rescale")
    assert bool(torch.isfinite(sae.reconstruct(torch.zeros(1, D_IN))).all())


def test_latents_in_units_of_decoder_rows_choose_the_same_k(tmp_path: Path) -> None:
    sae, t = _load(tmp_path, "topk", rescale_acts_by_decoder_norm=True)
    x, lengths = _inputs(), t["W_dec"].norm(dim=-1)
    scaled = t | {"W_enc": t["W_enc"] * lengths, "b_enc": t["b_enc"] * lengths}
    latents = saelens_encode("topk", scaled, x - t["b_dec"], K)
    torch.testing.assert_close(sae.encode(x), latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        sae.reconstruct(x), (latents / lengths) @ t["W_dec"] + t["b_dec"], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(sae.decoder_weight.norm(dim=0), torch.ones(N))


def test_an_average_norm_needs_its_factor(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=r"cfg.json: .*expected_average_only_in, whose factor"):
        _load(tmp_path, "standard", normalize_activations="expected_average_only_in")
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    sae, t = _load(tmp_path, "standard", normalize_activations="expected_average_only_in")
    x = _inputs()
    latents = saelens_encode("standard", t, 0.25 * x - t["b_dec"])
    torch.testing.assert_close(sae.encode(x), latents)
    torch.testing.assert_close(sae.reconstruct(x), (latents @ t["W_dec"] + t["b_dec"]) / 0.25)


def test_a_finetuned_factor_scales_what_latents_write(tmp_path: Path) -> None:
    t = saelens_tensors("standard", D_IN, N) | {"scaling_factor": torch.rand(N) + 0.5}
    config = flat_config("standard", D_IN, N, finetuning_scaling_factor=True)
    sae = load(str(write_saelens(tmp_path, config, t)))
    latents = saelens_encode("standard", t, _inputs() - t["b_dec"])
    expected = (latents * t["scaling_factor"]) @ t["W_dec"] + t["b_dec"]
    torch.testing.assert_close(sae.reconstruct(_inputs()), expected)
    write_saelens(tmp_path, flat_config("standard", D_IN, N), t)
    with pytest.raises(SubjectError, match="scaling_factor is not all ones"):
        load(str(tmp_path))


def test_weights_trained_on_centred_models_see_the_mean_taken_off(tmp_path: Path) -> None:
    kwargs = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    sae, t = _load(tmp_path, "standard", metadata=kwargs)
    x = _inputs()
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(
        sae.encode(x), saelens_encode("standard", t, centred - t["b_dec"]), rtol=1e-4, atol=1e-4
    )
    inner = {"hook_name": "blocks.0.mlp.hook_post"} | kwargs
    assert not _load(tmp_path, "standard", metadata=inner)[0].centred


def test_attention_outputs_are_read_with_heads_side_by_side(tmp_path: Path) -> None:
    heads = {"hook_name": "blocks.0.attn.hook_z"}
    sae, _ = _load(tmp_path, "standard", reshape_activations="hook_z", metadata=heads)
    assert (sae.site, sae.d_in) == ("blocks.0.attn.hook_z", D_IN)


REFUSED: dict[str, tuple[Change, str]] = {
    "an unknown architecture": ({"architecture": "temporal"}, "architecture 'temporal' is not"),
    "a checkpoint": ({"architecture": "batchtopk"}, "batchtopk is a training checkpoint"),
    "another architecture": ({"architecture": "jumprelu"}, "lacks threshold"),
    "gated": ({"architecture": "gated"}, "lacks b_gate, b_mag, r_mag and should not hold b_enc"),
    "topk without k": ({"architecture": "topk"}, "k is None, not a whole number"),
    "a large k": ({"architecture": "topk", "k": 11}, "k is 11, of 10 latents"),
    "a width": ({"d_in": 7}, r"W_enc is \(6, 10\), but by its cfg.json it must be \(7, 10\)"),
    "no width": ({"d_sae": None}, "d_sae is None"),
    "an activation": ({"activation_fn": "tanh-relu"}, "activation_fn is 'tanh-relu', not 'relu'"),
    "a norm": ({"normalize_activations": "whiten"}, "normalize_activations is 'whiten', not one"),
    "an average of old": ({"normalize_activations": True}, "expected_average_only_in"),
    "a reshape": ({"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'"),
    "one head": ({"metadata": {"hook_head_index": 3}}, "hook_head_index is 3"),
    "a rescaled standard one": ({"rescale_acts_by_decoder_norm": True}, "not for standard"),
    "folded value biases": (
        {
            "metadata": {
                "hook_name": "blocks.0.attn.hook_z",
                "model_from_pretrained_kwargs": {"fold_value_biases": True},
            }
        },
        "fold_value_biases",
    ),
    "a flag that is none": ({"apply_b_dec_to_input": "yes"}, "'yes', not true or false"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_honoured_is_refused_by_name(
    tmp_path: Path, change: Change, said: str
) -> None:
    t = saelens_tensors("standard", D_IN, N)
    write_saelens(tmp_path, nested_config("standard", D_IN, N) | change, t)
    with pytest.raises(SubjectError, match=f"{tmp_path}.*{said}"):
        load(str(tmp_path))


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    t = saelens_tensors("standard", D_IN, N)
    t["W_dec"][3, 2] = torch.nan
    write_saelens(tmp_path, nested_config("standard", D_IN, N), t)
    with pytest.raises(SubjectError, match=r"sae_weights.safetensors: W_dec holds 1 numbers"):
        load(str(tmp_path))
    (tmp_path / "sae_weights.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0oops")
    with pytest.raises(SubjectError, match=r"sae_weights.safetensors cannot be read"):
        load(str(tmp_path))
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(SubjectError, match=r"cfg.json is no valid JSON"):
        load(str(tmp_path))
    (tmp_path / "cfg.json").unlink()
    with pytest.raises(SubjectError, match=r"cannot read .*cfg.json: no such file"):
        load(str(tmp_path))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from([*KINDS, *TRANSCODERS]),
    d_in=st.integers(1, 9),
    n=st.integers(1, 12),
    data=st.data(),
)
def test_what_is_written_is_read_as_exactly_the_same(
    tmp_path: Path, kind: str, d_in: int, n: int, data: st.DataObject
) -> None:
    norm = data.draw(st.sampled_from(["none", "constant_norm_rescale"]))
    d_out = data.draw(st.integers(1, 5)) if "transcoder" in kind else None
    more = {"k": data.draw(st.integers(1, n))} if kind == "topk" else {}
    more |= {"d_out": d_out} if d_out else {}
    config = nested_config(kind, d_in, n, normalize_activations=norm, **more)
    write_saelens(tmp_path / "a", config, saelens_tensors(kind, d_in, n, d_out))
    first = load(str(tmp_path / "a"))
    save(first, tmp_path / "b", "saelens")
    second = load(str(tmp_path / "b"))
    x = _inputs(5, d_in)
    assert torch.equal(first.encode(x), second.encode(x))
    assert torch.equal(first.reconstruct(x), second.reconstruct(x))
    assert first.architecture == second.architecture
    written = json.loads((tmp_path / "b" / "cfg.json").read_text())
    assert (written["architecture"], written["metadata"]["hook_name"]) == (kind, SITE)
