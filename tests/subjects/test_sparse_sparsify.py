"""sparsify's folders against their formula, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saelens_files import random_tensors, write_sparsify
from torch import Tensor

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.sparse_formats import load, save

D_IN, N, K = 6, 12, 3


def _config(**more: Any) -> dict[str, Any]:
    values = {"activation": "topk", "expansion_factor": 2, "normalize_decoder": True}
    values |= {"num_latents": 0, "k": K, "multi_topk": False, "skip_connection": False}
    return values | {"transcode": False, "d_in": D_IN} | more


def _tensors(d_in: int = D_IN, n: int = N, skip: bool = False) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (n, d_in), "encoder.bias": (n,)}
    shapes |= {"W_dec": (n, d_in), "b_dec": (d_in,)} | ({"W_skip": (d_in, d_in)} if skip else {})
    return random_tensors(shapes)


def _inputs(rows: int = 20, width: int = D_IN) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * 3 + 1


def _latents(t: dict[str, Tensor], x: Tensor, k: int) -> Tensor:
    """sparsify takes ReLU first, then the k largest."""
    raw = (x @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    values, places = raw.topk(k, sorted=False)
    return torch.zeros_like(raw).scatter(-1, places, values)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("transcode", [True, False])
def test_a_folder_computes_its_formula(tmp_path: Path, transcode: bool, skip: bool) -> None:
    t, x = _tensors(skip=skip), _inputs()
    folder = tmp_path / "layers.3.mlp"
    sae = load(str(write_sparsify(folder, _config(transcode=transcode, skip_connection=skip), t)))
    latents = _latents(t, x if transcode else x - t["b_dec"], K)
    torch.testing.assert_close(sae.encode(x), latents)
    expected = latents @ t["W_dec"] + t["b_dec"]
    torch.testing.assert_close(
        sae.reconstruct(x), expected + x @ t["W_skip"].T if skip else expected
    )
    assert (sae.n, sae.transcodes) == (N, transcode)
    assert sae.site == (None if transcode else "blocks.3.hook_mlp_out")


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("layers.5", "blocks.5.hook_resid_post"),
        ("h.11.attn", "blocks.11.hook_attn_out"),
        ("layers.2.self_attn", "blocks.2.hook_attn_out"),
        ("layers.2.mlp.act", None),
        ("mine", None),
    ],
)
def test_the_name_of_the_folder_is_the_hook_point(
    tmp_path: Path, name: str, site: str | None
) -> None:
    assert load(str(write_sparsify(tmp_path / name, _config(), _tensors()))).site == site


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activation": "groupmax"}, "activation is 'groupmax', not 'topk'"),
        ({"signed": True}, "signed is True, not false"),
        ({"gram_lookup": True}, "gram_lookup is True"),
        ({"embed_skip": True}, "embed_skip is True"),
        ({"k": 13}, "num_latents is 0, not a whole number of at least k, which is 13"),
        ({"num_latents": 10}, r"encoder.weight is \(12, 6\), but by its cfg.json .*\(10, 6\)"),
        ({"skip_connection": True}, "lacks W_skip"),
        ({"d_in": None}, "d_in is None"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    write_sparsify(tmp_path, _config(**change), _tensors())
    with pytest.raises(SubjectError, match=f"{tmp_path}.*{said}"):
        load(str(tmp_path))


def test_a_tensor_too_many_or_not_finite_is_refused(tmp_path: Path) -> None:
    write_sparsify(tmp_path, _config(), _tensors(skip=True))
    with pytest.raises(SubjectError, match=r"sae.safetensors should not hold W_skip"):
        load(str(tmp_path))
    t = _tensors()
    t["b_dec"][0] = torch.inf
    write_sparsify(tmp_path, _config(), t)
    with pytest.raises(SubjectError, match=r"sae.safetensors: b_dec holds 1 numbers"):
        load(str(tmp_path))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    d_in=st.integers(1, 8),
    n=st.integers(1, 12),
    transcode=st.booleans(),
    skip=st.booleans(),
    data=st.data(),
)
def test_what_is_written_is_read_as_exactly_the_same(
    tmp_path: Path, d_in: int, n: int, transcode: bool, skip: bool, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n))
    config = _config(d_in=d_in, num_latents=n, k=k, transcode=transcode, skip_connection=skip)
    write_sparsify(tmp_path / "a", config, _tensors(d_in, n, skip))
    first = load(str(tmp_path / "a"))
    save(first, tmp_path / "b", "sparsify")
    second = load(str(tmp_path / "b"))
    x = _inputs(5, d_in)
    assert torch.equal(first.encode(x), second.encode(x))
    assert torch.equal(first.reconstruct(x), second.reconstruct(x))
