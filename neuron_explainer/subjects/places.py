"""Sites of a model as places in its modules, from the description of its architecture."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.architectures import Layout
from neuron_explainer.subjects.weights import oriented

Side = Literal["input", "output"]
_NAMED = re.compile(r"(?P<site>blocks\.(?:\d+|\*)\.[\w.]+)=(?P<module>[\w.*]+):(?P<side>\w+)")


@dataclass(frozen=True, slots=True)
class Place:
    """What enters or leaves a module, or a part of it."""

    module: str  # path from the model
    side: Side
    width: int
    start: int = 0  # the site's first column there
    stream: bool = False  # its neurons are the residual stream's own directions
    projection: str | None = None  # what its neurons write through, and
    norm: str | None = None  # the norm that what they write passes
    expert: int | None = None  # of fused experts: `input` is what its down projection reads


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model's stack of blocks: `path` leads from the model to it."""

    module: Any
    path: str
    config: Any
    width: int  # of the residual stream

    def within(self, path: str) -> str:
        """A path from the decoder as one from the model."""
        return f"{self.path}.{path}" if self.path else path


def decoder_of(model: Any) -> Decoder:
    """The decoder of a causal LM, also of one that reads images besides."""
    module = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    path = next(name for name, candidate in model.named_modules() if candidate is module)
    config = model.config.get_text_config()
    return Decoder(module, path, config, int(config.hidden_size))


def holds(config: Any, flags: tuple[tuple[str, bool], ...]) -> Iterator[bool]:
    """Whether the configuration has each flag's value."""
    return (bool(getattr(config, name, False)) == value for name, value in flags)


def places_of(decoder: Decoder, layout: Layout) -> dict[str, Place]:
    """Every site by TransformerLens name, block after block, in the order of computation."""
    places = {}
    for layer, block in enumerate(decoder.module.get_submodule(layout.blocks)):
        path = decoder.within(f"{layout.blocks}.{layer}")
        parts = _block(block, path, decoder, layout)
        places.update({f"blocks.{layer}.{hook}": place for hook, place in parts.items()})
    return places


def _block(block: nn.Module, path: str, decoder: Decoder, layout: Layout) -> dict[str, Place]:
    attention, adding, width = layout.attention, layout.adding, decoder.width

    def at(module: str) -> str:
        return f"{path}.{module}"

    def stream(module: str, side: Side) -> Place:
        return Place(at(module) if module else path, side, width, stream=True)

    heads = oriented(block.get_submodule(attention.projection)).shape[0]
    after_attention = adding.after_attention and at(adding.after_attention)
    parts = {
        "hook_resid_pre": stream("", "input"),
        "attn.hook_z": Place(
            *(at(attention.projection), "input", heads),
            projection=at(attention.projection),
            norm=after_attention,
        ),
        "hook_attn_out": stream(adding.after_attention or attention.module, "output"),
    }
    if adding.middle is not None and not any(holds(decoder.config, adding.parallel)):
        parts["hook_resid_mid"] = stream(adding.middle, "input")
    parts |= mlp_places(block, path, layout)
    parts["hook_mlp_out"] = stream(adding.after_mlp or layout.mlp.module, "output")
    return parts | {"hook_resid_post": stream("", "output")}


def mlp_places(block: nn.Module, path: str, layout: Layout) -> dict[str, Place]:
    """The sites of the MLP in the block at `path`, of each expert's where it has fused ones."""
    mlp = layout.mlp
    norm = layout.adding.after_mlp and f"{path}.{layout.adding.after_mlp}"
    if mlp.experts is not None and _has(block, mlp.experts):
        return _experts(block.get_submodule(mlp.experts), f"{path}.{mlp.experts}", norm)
    down = f"{path}.{mlp.down}"
    neurons = oriented(block.get_submodule(mlp.down)).shape[0]
    parts = {"mlp.hook_pre": Place(f"{path}.{mlp.entry}", "output", neurons)}
    if mlp.halves:
        parts["mlp.hook_pre_linear"] = Place(f"{path}.{mlp.entry}", "output", neurons, neurons)
    elif mlp.up is not None:
        parts["mlp.hook_pre_linear"] = Place(f"{path}.{mlp.up}", "output", neurons)
    parts["mlp.hook_post"] = Place(down, "input", neurons, projection=down, norm=norm)
    return parts


def _experts(experts: Any, path: str, norm: str | None) -> dict[str, Place]:
    """Of experts held as tensors gate_up_proj (experts, 2·neurons, width) and down_proj."""
    count, _, neurons = experts.down_proj.shape
    parts = {}
    for expert in range(count):
        hook = f"mlp.experts.{expert}"
        parts[f"{hook}.hook_pre"] = Place(path, "output", neurons, expert=expert)
        parts[f"{hook}.hook_post"] = Place(
            path, "input", neurons, projection=path, norm=norm, expert=expert
        )
    return parts


def _has(module: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in module.named_modules())


def named_by_hand(model: nn.Module, given: tuple[str, ...], layers: int) -> Mapping[str, Place]:
    """Sites of the form `blocks.3.mlp.hook_post=PATH:input`, their widths still unknown (0).

    `*` stands for every block's number. Raises SubjectError naming what is wrong.
    """
    modules = {name for name, _ in model.named_modules()}
    places = {}
    for text in given:
        match = _NAMED.fullmatch(text)
        if match is None or match["side"] not in {"input", "output"}:
            raise SubjectError(
                f"--module {text}: write SITE=MODULE:input or :output, for example "
                "'blocks.*.mlp.hook_post=model.layers.*.mlp.down_proj:input'"
            )
        number = match["site"].split(".")[1]
        if number != "*" and int(number) >= layers:
            raise SubjectError(f"--module {text}: the model has {layers} blocks, no {number}")
        numbers = range(layers) if number == "*" else [int(number)]
        for layer in numbers:
            path = match["module"].replace("*", str(layer))
            if path not in modules:
                raise SubjectError(f"--module {text}: the model has no module {path}")
            side: Side = "input" if match["side"] == "input" else "output"
            places[match["site"].replace("*", str(layer))] = Place(path, side, 0)
    return places
