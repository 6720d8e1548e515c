"""Architectures that are not in the table: what is found in them, and what is named by hand."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from reference_forward import forward
from test_architectures import close, observed
from torch import Tensor

from neuron_explainer.collect import sites
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects import structure
from neuron_explainer.subjects.huggingface import HuggingFaceSubject

_TOKENS = torch.randint(0, 1900, (2, 9), generator=torch.Generator().manual_seed(1))
_OWN: dict[str, Any] = {"vocab_size": 2000, "bos_token_id": 0, "eos_token_id": 0}
_BLOOM = {**_OWN, "hidden_size": 16, "n_layer": 2, "n_head": 4}
_HOOKS = "hook_resid_pre attn.hook_z hook_attn_out hook_resid_mid mlp.hook_pre mlp.hook_post"
_HOOKS += " hook_mlp_out hook_resid_post"


def _subject(tiny: Path, model: Any, *modules: str) -> HuggingFaceSubject:
    return HuggingFaceSubject(model, tiny_models.tokenizer(tiny), modules)


@pytest.mark.parametrize("name", [name for name in tiny_models.MODELS if name != "mixtral"])
def test_known_architectures_are_found_again_without_the_table(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config, settings, reference = tiny_models.MODELS[name]
    model = tiny_models.build(config, settings)
    monkeypatch.setattr(structure, "ARCHITECTURES", {})
    subject = _subject(tiny, model)
    assert "not known; its sites were found and checked" in str(subject.note)
    expected, _ = forward(reference(model.config, model.state_dict()), _TOKENS)
    values = observed(subject, _TOKENS)
    assert values.keys() == expected.keys()
    for site, value in values.items():
        close(value, expected[site], site)
    assert subject.writes("blocks.1.mlp.hook_post", slice(None)) is not None


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("GPTJConfig", {**_OWN, "n_embd": 16, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
        ("Olmo2Config", {**tiny_models.LLAMA, "pad_token_id": 0}),
        ("GPTNeoConfig", {**_OWN, "hidden_size": 16, "num_layers": 2, "num_heads": 4}
         | {"attention_types": [[["global", "local"], 1]]}),
        ("Starcoder2Config", tiny_models.LLAMA),
        ("OlmoConfig", tiny_models.LLAMA),  # norms without parameters
    ],
)  # fmt: skip
def test_other_architectures_are_found_and_add_up(
    tiny: Path, config: str, settings: dict[str, Any]
) -> None:
    model = tiny_models.build(config, settings)
    subject = _subject(tiny, model)
    values = observed(subject, _TOKENS)
    for layer in range(2):
        at = {hook: values.get(f"blocks.{layer}.{hook}") for hook in _HOOKS.split()}
        pre, attention, mlp = at["hook_resid_pre"], at["hook_attn_out"], at["hook_mlp_out"]
        assert pre is not None
        assert attention is not None
        assert mlp is not None
        assert at["hook_resid_post"] is not None
        close(pre + attention + mlp, at["hook_resid_post"])
        if at["hook_resid_mid"] is not None:
            close(pre + attention, at["hook_resid_mid"])
    own = subject.unembed(values["blocks.1.hook_resid_post"].reshape(-1, 16))
    head = model.get_output_embeddings()
    logits = model(_TOKENS).logits.reshape(own.shape).detach()
    logits = logits - (0 if getattr(head, "bias", None) is None else head.bias.detach())
    cosine = torch.cosine_similarity(own.double(), logits.double(), -1)
    assert cosine.min() > 0.9  # the final norm's bias is not in it


def test_attention_that_returns_the_stream_is_not_taken_for_what_attention_adds(
    tiny: Path,
) -> None:
    subject = _subject(tiny, tiny_models.build("BloomConfig", _BLOOM))
    hooks = {site.split(".", 2)[2] for site in subject.sites()}
    assert hooks == {"hook_resid_pre", "mlp.hook_pre", "mlp.hook_post", "hook_resid_post"}
    assert "do not add up" in str(subject.note)
    assert "--module" in str(subject.note)
    for site in subject.sites():
        assert subject.writes(site, slice(None)) is None
    values = observed(subject, _TOKENS)
    close(values["blocks.0.hook_resid_post"], values["blocks.1.hook_resid_pre"])


def test_norms_after_the_sum_leave_the_stream_and_the_neurons(tiny: Path) -> None:
    config, settings, _ = tiny_models.MODELS["opt"]
    subject = _subject(tiny, tiny_models.build(config, settings | {"do_layer_norm_before": False}))
    hooks = {site.split(".", 2)[2] for site in subject.sites()}
    assert hooks == {"hook_resid_pre", "mlp.hook_pre", "mlp.hook_post", "hook_resid_post"}
    assert subject.context == 32


def _without_mlp_names() -> Any:
    """A GPT-2 whose MLPs have a name that nobody knows."""
    config, settings, _ = tiny_models.MODELS["gpt2"]
    model = tiny_models.build(config, settings)
    model.config.model_type = "mystery"
    for block in model.transformer.h:
        block.mystery = block.mlp
        block.mlp = _Calling(block.mystery)
    return model


class _Calling(torch.nn.Module):
    """Calls a module without holding it."""

    def __init__(self, called: torch.nn.Module) -> None:
        super().__init__()
        self._called = [called]

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self._called[0](x))


def test_a_model_without_an_mlp_says_what_it_has_and_how_to_name_it(
    tiny: Path, tmp_path: Path
) -> None:
    subject = _subject(tiny, _without_mlp_names())
    assert {site.split(".", 2)[2] for site in subject.sites()} == {
        "hook_resid_pre",
        "hook_resid_post",
    }
    (tmp_path / "text.txt").write_text("Anything.")
    settings = CollectSettings(corpus=str(tmp_path / "text.txt"), layers="0")
    with pytest.raises(SubjectError) as raised:
        collect(tmp_path / "data", SubjectSettings(model="x"), settings, subject=subject)
    said = str(raised.value)
    assert "there is no site 'blocks.0.mlp.hook_post'" in said
    assert "'mystery' is not known, and no MLP was found in its 2 blocks at transformer.h" in said
    assert "ln_1, attn, ln_2, mlp, mystery" in said
    assert "--module 'blocks.*.mlp.hook_post=transformer.h.*.MODULE:input'" in said
    assert "\n" not in said


def test_sites_named_by_hand_are_read_at_their_modules(tiny: Path) -> None:
    named = "blocks.*.mlp.hook_post=transformer.h.*.mystery.c_proj:input"
    one = "blocks.1.hook_odd=transformer.h.1.attn:output"
    subject = _subject(tiny, _without_mlp_names(), named, one)
    found = {site: width for site, width in subject.sites().items() if "resid" not in site}
    assert found == {
        "blocks.0.mlp.hook_post": 40,
        "blocks.1.mlp.hook_post": 40,
        "blocks.1.hook_odd": 16,
    }
    config, settings, reference = tiny_models.MODELS["gpt2"]
    model = tiny_models.build(config, settings)
    expected, _ = forward(reference(model.config, model.state_dict()), _TOKENS)
    values = observed(subject, _TOKENS)
    close(values["blocks.1.mlp.hook_post"], expected["blocks.1.mlp.hook_post"])
    close(values["blocks.1.hook_odd"], expected["blocks.1.hook_attn_out"])
    assert subject.writes("blocks.0.mlp.hook_post", slice(None)) is None


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("blocks.0.x", "write SITE=MODULE:input or :output"),
        ("blocks.0.x=transformer.h.0:above", "write SITE=MODULE:input or :output"),
        ("blocks.0.x=transformer.h.9:input", "the model has no module transformer.h.9"),
        ("blocks.*.x=transformer.g.*:input", "the model has no module transformer.g.0"),
        ("blocks.0.x=lm_head:input", "the model ran without lm_head, where blocks.0.x is read"),
        ("blocks.7.x=transformer.h.0:input", "the model has 2 blocks, no 7"),
    ],
)
def test_a_module_that_is_not_there_is_one_clear_line(tiny: Path, module: str, said: str) -> None:
    config, settings, _ = tiny_models.MODELS["gpt2"]
    model = tiny_models.build(config, settings)
    with pytest.raises(SubjectError, match=said) as raised:
        _subject(tiny, model, module)
    assert "\n" not in str(raised.value)


def test_a_model_whose_tokens_look_ahead_is_refused(tiny: Path) -> None:
    settings = {**_OWN, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(**settings, intermediate_size=24, is_decoder=False)
    with pytest.raises(SubjectError, match="'bert' is not causal: its tokens look ahead"):
        _subject(tiny, transformers.BertLMHeadModel(config))


def test_a_layer_of_experts_means_the_neurons_of_all_of_them(tiny: Path) -> None:
    config, settings, _ = tiny_models.MODELS["mixtral"]
    known = _subject(tiny, tiny_models.build(config, settings)).sites()
    chosen = sites.choose(known, "1", ())
    assert chosen == [f"blocks.1.mlp.experts.{expert}.hook_post" for expert in range(4)]
    assert "mlp.experts.N.hook_post" in sites.describe(known)
    assert "experts.3" not in sites.describe(known)


def test_the_decoder_of_a_model_that_reads_images_is_a_subject(tiny: Path) -> None:
    text = transformers.Gemma3TextConfig(**tiny_models.MODELS["gemma3"][1])
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4
    )
    torch.manual_seed(0)
    subject = _subject(tiny, transformers.Gemma3ForConditionalGeneration(config).double())
    assert (subject.architecture, subject.layers, subject.note) == ("gemma3_text", 2, None)
    values = observed(subject, _TOKENS)
    middle = values["blocks.1.hook_resid_pre"] + values["blocks.1.hook_attn_out"]
    close(middle + values["blocks.1.hook_mlp_out"], values["blocks.1.hook_resid_post"])
    assert subject.unembed(values["blocks.1.hook_resid_post"][0]).shape == (9, 2000)
    assert subject.logits(_TOKENS).shape == (2, 9, 2000)
