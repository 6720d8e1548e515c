"""Which format a path holds, where it lies, and what it reads."""

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from saelens_files import SITE, flat_config, nested_config, saelens_tensors, write_saelens

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.sparse_formats import load, save, site_of

D_IN, N = 6, 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = saelens_tensors("standard", D_IN, N)
    return write_saelens(tmp_path / "sae", nested_config("standard", D_IN, N), tensors)


def test_a_path_that_holds_no_autoencoder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SubjectError, match=r"empty holds no sae_weights.safetensors or sae.safe"):
        load(str(tmp_path / "empty"))
    with pytest.raises(SubjectError, match="is a part of an autoencoder: name its folder"):
        load(str(folder / "sae_weights.safetensors"))
    (folder / "sae.safetensors").write_bytes(b"")
    with pytest.raises(SubjectError, match="sae holds more than one of sae_weights"):
        load(str(folder))


@pytest.mark.parametrize("source", ["absent", "/absent/folder", "./absent/folder/x", "a/../b"])
def test_a_path_that_is_not_there_and_no_hub_id_is_refused(source: str) -> None:
    with pytest.raises(SubjectError, match=f"no autoencoder at {source}: .* name a .pt file, or"):
        load(source)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of an offline machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def _fetched(cache: Path, repository: str, inner: str) -> Path:
    """Where the hub's client keeps a fetched folder."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    return place / "snapshots" / ("0" * 40) / inner


def test_a_hub_id_that_was_fetched_is_found_offline(cache: Path) -> None:
    place = _fetched(cache, "somebody/saes", "layer_3/wide")
    write_saelens(place, nested_config("standard", D_IN, N), saelens_tensors("standard", D_IN, N))
    assert load("somebody/saes/layer_3/wide").n == N
    with pytest.raises(SubjectError, match="somebody/saes on the hub does not hold it"):
        load("somebody/saes/layer_4")


def test_what_the_hub_cannot_give_is_said_in_one_line(cache: Path) -> None:
    with pytest.raises(SubjectError) as raised:
        load("nobody/nothing/blocks.0")
    message = str(raised.value)
    assert message.startswith("no autoencoder at nobody/nothing/blocks.0: it is no file or folder")
    assert message.endswith("name a .pt file, or a folder with cfg.json and its weights")
    assert "\n" not in message


def test_autoencoders_known_to_be_of_centred_weights_are_read_so(cache: Path) -> None:
    place = _fetched(cache, "jbloom/GPT2-Small-SAEs-Reformatted", SITE)
    config = {"d_in": D_IN, "d_sae": N, "hook_point": SITE, "model_name": "gpt2-small"}
    write_saelens(place, config, saelens_tensors("standard", D_IN, N))
    known = load(f"jbloom/GPT2-Small-SAEs-Reformatted/{SITE}")
    assert (known.centred, known.notes) == (True, ())
    x = torch.randn(4, D_IN)
    torch.testing.assert_close(known.encode(x), known.encode(x + 100), rtol=1e-3, atol=1e-3)
    elsewhere = load(str(place))
    assert not elsewhere.centred
    assert "center_writing_weights" in elsewhere.notes[0]


def test_given_and_named_sites_must_agree(folder: Path, tmp_path: Path) -> None:
    assert site_of(str(folder), None) == SITE
    assert site_of(str(folder), SITE) == SITE
    with pytest.raises(SubjectError, match=f"sae was trained on {SITE}, not on blocks.9.hook_x"):
        site_of(str(folder), "blocks.9.hook_x")
    config = flat_config("standard", D_IN, N, hook_name=None)
    nameless = write_saelens(tmp_path / "b", config, saelens_tensors("standard", D_IN, N))
    assert site_of(str(nameless), SITE) == SITE
    with pytest.raises(SubjectError, match="b does not say what it reads: --sae needs --site"):
        site_of(str(nameless), None)


def test_training_without_bos_is_said(tmp_path: Path) -> None:
    config = nested_config("standard", D_IN, N, metadata={"prepend_bos": False})
    write_saelens(tmp_path, config, saelens_tensors("standard", D_IN, N))
    assert "--bos none" in load(str(tmp_path)).notes[0]


def _plain() -> Autoencoder:
    return Autoencoder(
        encoder_weight=torch.randn(N, D_IN),
        encoder_bias=torch.randn(N),
        decoder_weight=torch.randn(D_IN, N),
        decoder_bias=torch.randn(D_IN),
        k=3,
    )


def test_a_trained_autoencoder_can_be_written_in_every_format(tmp_path: Path) -> None:
    made = {
        "openai": replace(_plain(), normalisation="layer_norm"),
        "saelens": replace(_plain(), normalisation="layer_norm", centred=True, site=SITE),
        "sparsify": _plain(),
    }
    x = torch.randn(7, D_IN)
    for name, sae in made.items():
        path = tmp_path / (f"{name}.pt" if name == "openai" else name)
        save(sae, path, name)
        again = load(str(path))
        assert again.format == name
        assert torch.equal(again.encode(x), sae.encode(x))
        assert torch.equal(again.reconstruct(x), sae.reconstruct(x))
        assert (again.centred, again.site) == (sae.centred, sae.site)


CANNOT = [
    ("openai", {"normalisation": "none"}, "gives topk autoencoders the normalisation layer_norm"),
    ("openai", {"k": None, "threshold": torch.ones(N)}, "has no jumprelu autoencoders"),
    ("openai", {"normalisation": "layer_norm", "centred": True}, "this one has centring"),
    ("openai", {"normalisation": "layer_norm", "subtracts_bias": False}, "always subtracts"),
    ("openai", {"normalisation": "layer_norm", "transcodes": True}, "no topk transcoder"),
    ("saelens", {"transcodes": True, "subtracts_bias": False}, "has no topk transcoder"),
    ("saelens", {"skip": torch.eye(D_IN)}, "past the latents of transcoders only"),
    ("saelens", {"k": None, "transcodes": True}, "subtracts no decoder bias"),
    ("sparsify", {"k": None}, "has no standard, only topk"),
    ("sparsify", {"centred": True}, "this one has centring"),
    ("sparsify", {"subtracts_bias": False}, "subtracts the decoder bias"),
    ("other", {}, "no format other of autoencoders; known are openai, saelens, sparsify"),
]


@pytest.mark.parametrize(("name", "change", "said"), CANNOT)
def test_what_a_format_cannot_express_is_not_written(
    tmp_path: Path, name: str, change: dict[str, object], said: str
) -> None:
    with pytest.raises(SubjectError, match=said):
        save(replace(_plain(), **change), tmp_path / "made", name)  # type: ignore[arg-type]
    assert not (tmp_path / "made").exists()
