"""Through which norm an MLP reads the residual stream, found by what passes its block's modules.

Architectures differ in which norm that is, and in whether there is one: a norm is believed to be it
when what leaves it is what enters the MLP, and what enters it is the stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuron_explainer.subjects.places import Place

_TOKENS = 8
_PRE = ".hook_resid_pre"


@dataclass
class _Seen:
    """What passed in one block: the stream, norms by their paths, and what entered the MLP."""

    streams: list[Tensor] = field(default_factory=list)
    norms: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    entered: Tensor | None = None

    def norm(self) -> str | None:
        """The norm's path, "" where the stream is read as it is, None where neither holds."""
        if self.entered is None:
            return None
        if self._is_stream(self.entered):
            return ""
        for path, (before, after) in self.norms.items():
            if torch.equal(after, self.entered) and self._is_stream(before):
                return path
        return None

    def _is_stream(self, values: Tensor) -> bool:
        return any(torch.equal(values, stream) for stream in self.streams)


@torch.inference_mode()
def norms_before(
    model: Any, places: Mapping[str, Place], run: Callable[[Tensor], object], width: int
) -> dict[str, str]:
    """Of each block the norm before its MLP; "" where there is none.

    A block is left out whose MLP reads anything else. Runs the model on eight tokens.
    """
    seen: dict[str, _Seen] = {}
    handles: list[Any] = []
    blocks = [site.removesuffix(_PRE) for site in places if site.endswith(_PRE)]
    for block in blocks:
        entry = _entry(places, block)
        if entry is not None:
            seen[block] = _Seen()
            handles += _watching(model, places, block, entry, seen[block], width)
    weight = model.get_input_embeddings().weight
    tokens = torch.arange(_TOKENS, device=weight.device)[None] * 7 % min(len(weight), 1000)
    try:
        run(tokens)
    finally:
        for handle in handles:
            handle.remove()
    found = {block: passed.norm() for block, passed in seen.items()}
    return {block: path for block, path in found.items() if path is not None}


def _entry(places: Mapping[str, Place], block: str) -> str | None:
    hooks = (f"{block}.mlp.hook_pre", f"{block}.mlp.experts.0.hook_pre")
    return next((places[hook].module for hook in hooks if hook in places), None)


def _watching(
    model: Any, places: Mapping[str, Place], block: str, entry: str, seen: _Seen, width: int
) -> list[Any]:
    path = places[block + _PRE].module
    stream = [path]
    if (middle := places.get(f"{block}.hook_resid_mid")) is not None:
        stream.append(middle.module)

    def entering(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.entered = _rows(given, named, width)

    def passing(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.streams.append(_rows(given, named, width))

    def norming(name: str) -> Any:
        def hook(_: Any, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            if isinstance(output, Tensor):
                seen.norms[name] = (_rows(given, named, width), _flat(output, width))

        return hook

    def before(module: str, hook: Any) -> Any:
        return model.get_submodule(module).register_forward_pre_hook(hook, with_kwargs=True)

    return [
        *(before(module, passing) for module in stream),
        before(entry, entering),
        *(
            module.register_forward_hook(norming(f"{path}.{name}"), with_kwargs=True)
            for name, module in model.get_submodule(path).named_modules()
            if _may_norm(module, width)
        ),
    ]


def _may_norm(module: nn.Module, width: int) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.shape == (width,)


def _rows(given: tuple[Any, ...], named: Mapping[str, Any], width: int) -> Tensor:
    return _flat(given[0] if given else next(iter(named.values())), width)


def _flat(values: Tensor, width: int) -> Tensor:
    """(…, width) as rows, a copy: some models add in place."""
    return values.reshape(-1, width).to("cpu", copy=True)
