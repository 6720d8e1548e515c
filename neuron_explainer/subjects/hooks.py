"""Reading and replacing what passes a place in a model, through PyTorch's forward hooks."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.places import Place

# (batch, time, neurons) → what goes in its place, or None to leave it
Visit = Callable[[Tensor], Tensor | None]
Shape = Callable[[], tuple[int, int]]  # (batch, time) of the tokens that are running


class Stop(Exception):
    """Ends the forward pass once every site was read: never seen by callers."""


def attach(module: Any, place: Place, visit: Visit, shape: Shape) -> Any:
    """A handle whose `remove` ends it. `module` is the one at `place`."""
    if place.expert is not None:
        return module.register_forward_hook(_expert(place, place.expert, visit, shape))
    if place.side == "output":

        def leaves(_: Any, __: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            changed = _visited(first, place, visit, shape)
            if changed is None:
                return None
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return module.register_forward_hook(leaves)

    def enters(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            changed = _visited(arguments[0], place, visit, shape)
            return None if changed is None else ((changed, *arguments[1:]), named)
        name = next(iter(named))
        changed = _visited(named[name], place, visit, shape)
        return None if changed is None else (arguments, {**named, name: changed})

    return module.register_forward_pre_hook(enters, with_kwargs=True)


def _visited(whole: Tensor, place: Place, visit: Visit, shape: Shape) -> Tensor | None:
    """`whole` with the site's columns replaced. Some models put all sequences into one row."""
    laid_out = whole.reshape(*shape(), -1)  # (batch, time, columns)
    columns = slice(place.start, place.start + place.width if place.width else None)
    changed = visit(laid_out[..., columns])
    if changed is None:
        return None
    laid_out = laid_out.clone()
    laid_out[..., columns] = changed
    return laid_out.reshape(whole.shape)


def _expert(place: Place, expert: int, visit: Visit, shape: Shape) -> Any:
    """Fused experts never hold one expert's activations, so they are computed here.

    Tokens that are not sent to the expert have activation 0, whatever `visit` makes of them. What
    is put in its place is seen in the experts' output, not by another visit to the same expert.
    """

    def hook(experts: Any, arguments: tuple[Tensor, Tensor, Tensor], output: Tensor) -> Any:
        hidden, chosen, weights = arguments  # (tokens, width), (tokens, k), (tokens, k)
        token, slot = torch.where(chosen == expert)
        both = linear(hidden[token], experts.gate_up_proj[expert])  # gate, up
        post = experts._apply_gate(both)
        gate, up = both.chunk(2, -1)
        values = gate if place.side == "output" else post
        whole = values.new_zeros(hidden.shape[0], place.width).index_copy_(0, token, values)
        changed = visit(whole.reshape(*shape(), -1))
        if changed is None:
            return None
        replaced = changed.reshape(whole.shape)[token].to(values)
        if place.side == "output":
            replaced = experts._apply_gate(torch.cat([replaced, up], -1))
        written = linear(replaced - post, experts.down_proj[expert]) * weights[token, slot, None]
        return output.index_add(0, token, written.to(output))

    return hook


def visited(
    model: Any, places: Mapping[str, Place], visits: Sequence[tuple[str, Visit]], shape: Shape
) -> Callable[[], None]:
    """Attach `visits` by site; what is returned takes them off again."""
    handles = [
        attach(model.get_submodule(places[site].module), places[site], visit, shape)
        for site, visit in visits
    ]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def read(
    model: Any,
    forward: Callable[[Tensor], object],
    places: Mapping[str, Place],
    observers: Mapping[str, Callable[[Tensor], None]],
    tokens: Tensor,
) -> None:
    """Run `tokens` (batch, time) through `forward` until each observer has seen its site.

    Raises SubjectError when the forward pass ends before.
    """
    pending = set(observers)

    def reading(site: str) -> Visit:
        def visit(activations: Tensor) -> None:
            observers[site](activations)
            pending.discard(site)
            if not pending:
                raise Stop

        return visit

    shape = (tokens.shape[0], tokens.shape[1])
    remove = visited(model, places, [(site, reading(site)) for site in observers], lambda: shape)
    try:
        with suppress(Stop):
            forward(tokens)
    finally:
        remove()
    if pending:
        site = min(pending)
        raise SubjectError(
            f"the model ran without {places[site].module}, where {site} is read: "
            "name another module by --module"
        )
