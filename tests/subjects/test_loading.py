"""Models from folders: what they may hold, what is never run, and real ones."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_forward import forward, gpt2, llama
from safetensors.torch import load_file
from test_architectures import close, observed

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects import loading
from neuron_explainer.subjects.huggingface import HuggingFaceSubject


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the example's model."""
    return Path(shutil.copytree(tiny / "model", tmp_path / "model"))


@pytest.mark.parametrize(("name", "reference"), [("stories260K/hf", llama), ("gpt2-local", gpt2)])
def test_real_models_are_read_as_a_plain_forward_pass_has_it(
    assets: Path, name: str, reference: Any
) -> None:
    subject = HuggingFaceSubject.load(str(assets / name))
    tokens = torch.randint(5, 500, (2, 40), generator=torch.Generator().manual_seed(0))
    model: Any = subject._model
    expected, _ = forward(reference(model.config, model.state_dict()), tokens)
    values = observed(subject, tokens)
    assert values.keys() == expected.keys()
    for site, value in values.items():
        scale = expected[site].abs().max()  # some of GPT-2's residual stream is in the hundreds
        close(value / scale, expected[site] / scale, site)


def test_sentencepiece_tokens_are_the_bytes_of_the_text(assets: Path) -> None:
    subject = HuggingFaceSubject.load(str(assets / "stories260K/hf"))
    text = "Once upon a time, there was a café.\nIt was 東."
    (ids,) = subject.tokenizer.encode([text])
    joined = b"".join(subject.tokenizer.vocabulary[token] for token in ids)
    assert joined.decode().removeprefix(" ") == text


class _Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_code_in_pickled_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    trace = tmp_path / "ran"
    torch.save(weights | {"evil": _Evil(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(SubjectError, match="holds pickled objects, which could run code"):
        HuggingFaceSubject.load(str(folder))
    assert not trace.exists()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(_Evil(trace), file, protocol=2)
    with pytest.raises(SubjectError):
        HuggingFaceSubject.load(str(folder))
    assert not trace.exists()


def test_pickled_weights_without_objects_are_read(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    before = HuggingFaceSubject.load(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    after = HuggingFaceSubject.load(str(folder))
    tokens = torch.arange(8)[None]
    site = "blocks.3.hook_resid_post"
    close(observed(after, tokens)[site], observed(before, tokens)[site])


@pytest.mark.parametrize("model_type", ["mystery", "gpt2"])
def test_code_that_comes_with_a_model_is_not_run(
    folder: Path, tmp_path: Path, model_type: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config |= {"model_type": model_type, "auto_map": own}
    (folder / "config.json").write_text(json.dumps(config))
    trace = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(trace)!r}, 'w')\nclass OwnConfig: pass\n")
    if model_type == "gpt2":  # known to transformers: its own class is taken
        assert HuggingFaceSubject.load(str(folder)).layers == 4
    else:
        with pytest.raises(SubjectError, match=r"needs code of its own, .* is never run here"):
            HuggingFaceSubject.load(str(folder))
    assert not trace.exists()


def test_all_devices_need_accelerate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    with pytest.raises(SubjectError, match=r"pip install 'neuron-explainer\[accelerate\]'"):
        HuggingFaceSubject.load(str(folder), device="auto")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_held_in_the_type_asked_for(folder: Path, dtype: str) -> None:
    subject = HuggingFaceSubject.load(str(folder), dtype=dtype)
    assert subject.dtype == getattr(torch, dtype)
    rows = subject.writes("blocks.0.mlp.hook_post", slice(2))
    assert rows is not None
    assert rows.dtype == torch.float32
    assert subject.unembed(rows).dtype == torch.float32


def test_weights_that_found_no_device_are_not_left_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What accelerate cannot place it leaves on the meta device, without values."""
    import transformers

    classes: Any = transformers.AutoModelForCausalLM
    loaded = classes.from_pretrained

    def leaving(*arguments: Any, **options: Any) -> Any:
        model, info = loaded(*arguments, **options)
        model.transformer.h[3].to("meta")
        return model, info

    monkeypatch.setattr(classes, "from_pretrained", leaving)
    with pytest.raises(SubjectError, match="does not fit the devices that there are"):
        HuggingFaceSubject.load(str(folder))
