"""A GPT-2 of one block with weights set by hand: its head 0 attends to the previous token."""

from pathlib import Path
from typing import Any

import torch
import transformers
from example_corpus import first_documents

from neuron_explainer import workspace
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.attn.hook_pattern"
_POSITIONS = 16  # the stream's first half tells the position, the second half the token


def build(vocabulary: int = 2000) -> Any:
    """Head 0 writes each token's predecessor, head 1 a little of every token before."""
    width, half = 2 * _POSITIONS, _POSITIONS
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=width, n_layer=1, n_head=2, n_positions=_POSITIONS
    )
    torch.manual_seed(0)
    model: Any = transformers.GPT2LMHeadModel(config)
    model.train(False)
    with torch.no_grad():
        for parameter in model.transformer.h[0].attn.parameters():
            parameter.zero_()
        model.transformer.wpe.weight.zero_()[:, :half] = torch.eye(half)
        tokens = torch.nn.functional.normalize(torch.randn(vocabulary, half), dim=1)
        model.transformer.wte.weight.zero_()[:, half:] = tokens
        into, out = model.transformer.h[0].attn.c_attn.weight, model.transformer.h[0].attn.c_proj
        into[:half, :half] = 10 * torch.eye(half).roll(-1, 1)  # query i looks for position i - 1
        into[:half, width : width + half] = torch.eye(half)
        into[half:, 2 * width : 2 * width + half] = torch.eye(half)  # both heads' values: tokens
        into[half:, 2 * width + half :] = 0.1 * torch.eye(half)
        out.weight[:half, half:] = torch.eye(half)
        out.weight[half:, half:] = torch.eye(half)
    return model


def collected(tiny: Path, folder: Path, pairs: int = 40) -> Workspace:
    """A workspace in which the heads' pairs are collected, so many of each kind, as `planted`."""
    here = workspace.init(folder / "workspace")
    corpus = here.root / "some.jsonl"
    corpus.write_bytes(first_documents(tiny, 40))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "model")
    subject = HuggingFaceSubject(build(), tokenizer)
    sizes: dict[str, Any] = {"excerpt_tokens": 12, "minimum_tokens": 4}
    settings = CollectSettings(corpus=str(corpus), sites=(SITE,), top=pairs, random=pairs, **sizes)
    collect(here.data, SubjectSettings(model="planted"), settings, subject=subject)
    return here
