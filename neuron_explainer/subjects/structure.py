"""The layout of an architecture that is not in the table, found by trying and checked by numbers.

The parts that blocks of known architectures are made of are tried in a block of the model. What
fits is run on a few tokens: attention and MLP must write what enters and leaves them, and add up
to the residual stream. Where they do not, only what needs no such sum is offered.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects import architectures as known
from neuron_explainer.subjects.architectures import ARCHITECTURES, Adding, Layout, Mlp
from neuron_explainer.subjects.hooks import read
from neuron_explainer.subjects.places import Decoder, Place, mlp_places, places_of
from neuron_explainer.subjects.weights import oriented

_TOKENS = 8
# how far sums may be off, relative to the largest entry: bfloat16 rounds to 2⁻⁸
_TOLERANCE, _ROUGH = 1e-3, 2e-2
_NOISE = 1e-5  # of what is computed twice in the same way
_LAYOUTS = tuple(dict.fromkeys(ARCHITECTURES.values()))
_ATTENTIONS = (*dict.fromkeys(layout.attention for layout in _LAYOUTS), *known.OTHER_ATTENTION)
_MLPS = (*dict.fromkeys(layout.mlp for layout in _LAYOUTS), *known.OTHER_MLP)
_ADDINGS = (  # without a middle last: such sums hold in sequence too
    *dict.fromkeys(layout.adding for layout in _LAYOUTS if layout.adding.middle),
    *known.OTHER_ADDING,
    Adding(),
)
_FINAL_NORMS = (
    *dict.fromkeys(layout.final_norm for layout in _LAYOUTS),
    *known.OTHER_FINAL_NORMS,
)


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a model's sites."""

    places: Mapping[str, Place]
    final_norm: str | None  # path from the model; None: what neurons write is not read as logits
    note: str | None = None  # what the user should know about how it was found


@torch.inference_mode()
def find(model: Any, decoder: Decoder) -> Found:
    """The sites of `model`. Raises SubjectError when it has no stack of blocks, or is not causal.

    There may be none: then they must be named by hand, and `note` says what was seen.
    """
    kind = decoder.config.model_type
    layout = ARCHITECTURES.get(kind)
    if layout and all(
        getattr(decoder.config, flag, want) == want for flag, want in layout.requires
    ):
        places = places_of(decoder, layout)
        return Found(places, decoder.within(layout.final_norm))
    blocks = _blocks(decoder, kind)
    _check_causal(decoder)
    final = next((name for name in _FINAL_NORMS if getattr(decoder.module, name, None)), "")
    for layout in _candidates(decoder, blocks, final):
        places = places_of(decoder, layout)
        if _adds_up(model, decoder, places):
            ends = final and _ends_in(model, decoder, places, layout)
            note = f"the architecture '{kind}' is not known; its sites were found and checked"
            return Found(places, decoder.within(final) if ends else None, note)
    return _without_sums(model, decoder, blocks)


def _blocks(decoder: Decoder, kind: str) -> str:
    """Path from the decoder to its blocks."""
    depth = getattr(decoder.config, "num_hidden_layers", None)
    for path, module in decoder.module.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return str(path)
    raise SubjectError(
        f"the architecture '{kind}' is not supported: no list of {depth} blocks was found in it"
    )


def _candidates(decoder: Decoder, blocks: str, final: str) -> Iterator[Layout]:
    stack = decoder.module.get_submodule(blocks)
    parts = set.intersection(*({name for name, _ in block.named_modules()} for block in stack))
    for attention, mlp, adding in product(_ATTENTIONS, _mlps(stack, decoder), _ADDINGS):
        names = (attention.module, attention.projection)
        norms = (adding.middle, adding.after_attention, adding.after_mlp)
        if {*names, *filter(None, norms)} <= parts:
            yield Layout(attention, mlp, adding, blocks, final)


def _mlps(stack: Any, decoder: Decoder) -> list[Mlp]:
    """Those that every block has: blocks may be of several kinds."""
    return [mlp for mlp in _MLPS if all(_fits(mlp, block, decoder.width) for block in stack)]


def _fits(mlp: Mlp, block: nn.Module, width: int) -> bool:
    """Whether its projections are there and lead from the stream to neurons and back."""
    modules = dict(block.named_modules())
    needed = [mlp.module, mlp.entry, mlp.down, *([mlp.up] if mlp.up else [])]
    if mlp.experts is not None or not set(needed) <= modules.keys():
        return False
    if not all(hasattr(modules[name], "weight") for name in needed[1:]):
        return False
    shapes = [tuple(oriented(modules[name]).shape) for name in needed[1:]]
    neurons = shapes[1][0]
    entry = (width, neurons * (2 if mlp.halves else 1))
    return shapes[:2] == [entry, (neurons, width)] and shapes[2:] in ([], [entry])


def _embedding(model: Any) -> Tensor:
    weight: Tensor = model.get_input_embeddings().weight
    return weight


def _tokens(model: Any) -> Tensor:
    embedding = _embedding(model)
    size = min(embedding.shape[0], 1000)
    tokens = torch.arange(_TOKENS, device=embedding.device)[None]
    return torch.as_tensor(tokens * 7 % size)


def _seen(model: Any, decoder: Decoder, places: Mapping[str, Place]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}

    def keeping(site: str) -> Any:
        def keep(activations: Tensor) -> None:
            values[site] = activations.to("cpu", torch.float64, copy=True)

        return keep

    observers = {site: keeping(site) for site in places}
    read(model, lambda tokens: _run(decoder, tokens), places, observers, _tokens(model))
    return values


def _run(decoder: Decoder, tokens: Tensor) -> Tensor:
    output: Any = decoder.module(tokens, use_cache=False)
    return torch.as_tensor(output[0])


def _adds_up(model: Any, decoder: Decoder, places: Mapping[str, Place]) -> bool:
    try:
        values = _seen(model, decoder, places)
    except (SubjectError, RuntimeError):
        return False
    return all(
        _holds(model, places, values, f"blocks.{layer}")
        for layer in range(decoder.config.num_hidden_layers)
    )


def _holds(
    model: Any, places: Mapping[str, Place], values: Mapping[str, Tensor], block: str
) -> bool:
    def at(hook: str) -> Tensor:
        return values[f"{block}.{hook}"]

    middle = at("hook_resid_pre") + at("hook_attn_out")
    sums = [(middle + at("hook_mlp_out"), at("hook_resid_post"))]
    if f"{block}.hook_resid_mid" in values:
        sums.append((middle, at("hook_resid_mid")))
    for inner, outer in (("attn.hook_z", "hook_attn_out"), ("mlp.hook_post", "hook_mlp_out")):
        place = places[f"{block}.{inner}"]
        if place.norm is None and place.projection is not None:
            projection = model.get_submodule(place.projection)
            written = at(inner) @ oriented(projection).double().cpu()
            bias = getattr(projection, "bias", None)
            sums.append((written if bias is None else written + bias.double().cpu(), at(outer)))
    return all(_close(*pair, _rounding(model, _TOLERANCE)) for pair in sums)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool((one - other).abs().max() <= tolerance * other.abs().max())


def _rounding(model: Any, fine: float) -> float:
    return _ROUGH if model.dtype in {torch.float16, torch.bfloat16} else fine


def _ends_in(model: Any, decoder: Decoder, places: Mapping[str, Place], layout: Layout) -> bool:
    """Whether the final norm is all that follows the last block."""
    last = f"blocks.{decoder.config.num_hidden_layers - 1}.hook_resid_post"
    stream = _seen(model, decoder, {last: places[last]})[last]
    norm = decoder.module.get_submodule(layout.final_norm)
    normed = norm(stream.to(_embedding(model))).double().cpu()
    ended = _run(decoder, _tokens(model)).double().cpu()
    return _close(normed, ended, _rounding(model, _TOLERANCE))


def _check_causal(decoder: Decoder) -> None:
    """Padding on the right needs no mask only where no token looks ahead."""
    tokens = torch.arange(_TOKENS)[None].to(next(decoder.module.parameters()).device)
    other = tokens.clone()
    other[0, -1] = 0
    try:
        before, after = (_run(decoder, ids)[:, :-1].double() for ids in (tokens, other))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SubjectError(
            f"the architecture '{decoder.config.model_type}' is not known, and a trial run of it "
            f"failed: {reason}"
        ) from error
    if not _close(before, after, _rounding(decoder.module, _NOISE)):
        raise SubjectError(
            f"the architecture '{decoder.config.model_type}' is not causal: its tokens look ahead"
        )


def _without_sums(model: Any, decoder: Decoder, blocks: str) -> Found:
    """The stream between blocks, and MLP neurons where they are found."""
    kind, path = decoder.config.model_type, decoder.within(blocks)
    stack = decoder.module.get_submodule(blocks)
    fitting = _mlps(stack, decoder)
    places: dict[str, Place] = {}
    for layer, block in enumerate(stack):
        where, site = f"{path}.{layer}", f"blocks.{layer}"
        places[f"{site}.hook_resid_pre"] = Place(where, "input", decoder.width)
        if fitting:
            layout = Layout(_ATTENTIONS[0], fitting[0], Adding(), blocks)
            for hook, place in mlp_places(block, where, layout).items():
                places[f"{site}.{hook}"] = replace(place, projection=None)
        places[f"{site}.hook_resid_post"] = Place(where, "output", decoder.width)
    if fitting:
        note = (
            f"the architecture '{kind}' is not known: its blocks at {path} and their MLPs were "
            "found, but attention and MLP do not add up to the residual stream, so that other "
            "sites and logit effects are left out; name further sites by --module"
        )
        return Found(places, None, note)
    parts = ", ".join(name for name, _ in stack[0].named_children())
    note = (
        f"the architecture '{kind}' is not known, and no MLP was found in its {len(stack)} blocks "
        f"at {path}, which hold {parts}; name sites by hand: "
        f"--module 'blocks.*.mlp.hook_post={path}.*.MODULE:input'"
    )
    return Found(places if _follow(model, decoder, places) else {}, None, note)


def _follow(model: Any, decoder: Decoder, places: Mapping[str, Place]) -> bool:
    """Whether each block takes what the one before it gives."""
    try:
        values = _seen(model, decoder, places)
    except (SubjectError, RuntimeError):
        return False
    return all(
        values[f"blocks.{layer}.hook_resid_post"].equal(
            values[f"blocks.{layer + 1}.hook_resid_pre"]
        )
        for layer in range(decoder.config.num_hidden_layers - 1)
    )
