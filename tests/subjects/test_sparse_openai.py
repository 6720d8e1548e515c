"""Autoencoders in OpenAI's format."""

from pathlib import Path
from typing import Any

import pytest
import torch

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import layer_norm, top_k
from neuron_explainer.subjects.sparse_openai import from_state, read, to_state, write

D_IN, N = 6, 10


def _state(activation: str | None = "TopK", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    random = torch.Generator().manual_seed(0)
    state: dict[str, Any] = {
        "pre_bias": torch.randn(D_IN, generator=random).to(dtype),
        "latent_bias": torch.randn(N, generator=random).to(dtype),
        "encoder.weight": torch.randn(N, D_IN, generator=random).to(dtype),
        "decoder.weight": torch.randn(D_IN, N, generator=random).to(dtype),
        "stats_last_nonzero": torch.zeros(N, dtype=torch.long),
    }
    if activation is not None:
        state["activation"] = activation
    if activation == "TopK":
        state["activation_state_dict"] = {"k": 3, "postact_fn": "ReLU"}
    return state


def _inputs(rows: int = 20) -> torch.Tensor:
    return torch.randn(rows, D_IN, generator=torch.Generator().manual_seed(1)) * 5 + 2


@pytest.mark.parametrize("activation", ["TopK", "ReLU"])
def test_a_saved_autoencoder_loads_as_the_same(tmp_path: Path, activation: str) -> None:
    first = from_state(_state(activation))
    write(first, tmp_path / "0.pt")
    second = read(tmp_path / "0.pt")
    assert second.k == (3 if activation == "TopK" else None)
    torch.testing.assert_close(second.encode(_inputs()), first.encode(_inputs()), rtol=0, atol=0)
    assert to_state(second).keys() == to_state(first).keys()


def test_a_file_without_an_activation_is_a_relu_one() -> None:
    old = from_state(_state(None))
    assert (old.architecture, old.k, old.norm(_inputs())) == ("standard", None, None)


def test_relu_autoencoders_do_not_normalise() -> None:
    model, x = from_state(_state("ReLU")), _inputs()
    state = _state("ReLU")
    by_hand = ((x - state["pre_bias"]) @ state["encoder.weight"].T + state["latent_bias"]).relu()
    torch.testing.assert_close(model.encode(x), by_hand)
    decoded = by_hand @ state["decoder.weight"].T + state["pre_bias"]
    torch.testing.assert_close(model.decode(by_hand, model.norm(x)), decoded)


def test_topk_autoencoders_do_not_see_shift_and_scale() -> None:
    model, x = from_state(_state(), torch.float64), _inputs().double()
    torch.testing.assert_close(model.encode(x), model.encode(7 * x + 3), rtol=1e-4, atol=1e-4)


def test_topk_keeps_at_most_k_positive_latents() -> None:
    model = from_state(_state())
    latents, raw = model.encode(_inputs()), model.encode_raw(_inputs())
    assert latents.shape == (20, N)
    assert bool((latents >= 0).all())
    assert int((latents > 0).sum(dim=-1).max()) <= 3
    fired = latents > 0
    torch.testing.assert_close(latents[fired], raw[fired])


def test_top_k_of_negative_numbers_is_nothing() -> None:
    assert top_k(torch.tensor([[-3.0, -1.0, -2.0]]), 2).tolist() == [[0.0, 0.0, 0.0]]


def test_layer_norm_is_undone_by_decode() -> None:
    x = _inputs()
    normal, norm = layer_norm(x)
    torch.testing.assert_close(normal * norm.scale + norm.mean, x, rtol=1e-4, atol=1e-4)
    assert layer_norm(torch.zeros(1, 4))[0].tolist() == [[0.0] * 4]


def test_half_precision_weights_are_computed_in_single_precision(tmp_path: Path) -> None:
    torch.save(_state(dtype=torch.float16), tmp_path / "half.pt")
    model = read(tmp_path / "half.pt")
    assert model.encode(_inputs().half()).dtype == torch.float32
    double = read(tmp_path / "half.pt", torch.float64)
    assert double.encode(_inputs()).dtype == torch.float64
    torch.testing.assert_close(double.encode_raw(_inputs()).float(), model.encode_raw(_inputs()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_bias": None}, "lacks pre_bias"),
        ({"W_enc": torch.zeros(2)}, "holds W_enc"),
        ({"latent_bias": torch.zeros(N + 1)}, r"latent_bias is \(11,\).*must be \(10,\)"),
        ({"decoder.weight": torch.zeros(N, D_IN)}, r"decoder.weight is \(10, 6\).*\(6, 10\)"),
        ({"encoder.weight": torch.zeros(N)}, r"encoder.weight is \(10,\), not \(n, d_in\)"),
        ({"stats_last_nonzero": torch.zeros(2)}, "stats_last_nonzero is"),
        ({"pre_bias": 3}, "pre_bias is a int, not a tensor"),
        ({"activation": "JumpReLU"}, "activation is 'JumpReLU'"),
        ({"activation_state_dict": None}, "activation_state_dict is missing"),
        ({"activation_state_dict": {"k": 11}}, "k is 11, not a number from 1 to 10"),
        ({"activation_state_dict": {"k": 3, "postact_fn": "Identity"}}, "postact_fn is 'Identity'"),
    ],
)
def test_a_file_in_another_layout_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    state = {key: value for key, value in (_state() | change).items() if value is not None}
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(SubjectError, match=f"bad.pt: .*{message}"):
        read(tmp_path / "bad.pt")


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a model")
    torch.save(_state(), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:500])
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("text.pt", "cut.pt", "list.pt", "absent.pt"):
        with pytest.raises(SubjectError, match=name):
            read(tmp_path / name)


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(SubjectError, match="takes width 6, not 5"):
        from_state(_state()).encode(torch.zeros(1, 5))
