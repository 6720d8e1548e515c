"""What a GPU computes in few large steps is what the CPU adds up sequence by sequence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuron_explainer.collect.batches import Batch, Placed
from neuron_explainer.collect.fused import Fused
from neuron_explainer.collect.kept import Sizes
from neuron_explainer.collect.moments import MomentAccumulator
from neuron_explainer.collect.site import SiteCollector
from neuron_explainer.collect.token_table import TableLayout, TokenTableAccumulator

_LAYOUT = TableLayout(np.array([2, 3, 7]), False, 0, 0, 12)


def _batch(seed: int, excerpts: int, time: int, whole: bool) -> Placed:
    rng = np.random.default_rng(seed)
    lengths = np.full(excerpts, time) if whole else rng.integers(2, time + 1, excerpts)
    scored = np.arange(time)[None, :] < lengths[:, None]
    scored[:, 0] = False
    tokens = rng.integers(0, 12, (excerpts, time))
    return Batch(np.arange(excerpts), tokens, scored).on(torch.device("cpu"))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9999), st.integers(1, 9), st.integers(2, 8), st.booleans())
def test_moments_and_tables_by_batch_are_those_by_sequence(
    seed: int, excerpts: int, time: int, whole: bool
) -> None:
    batch = _batch(seed, excerpts, time, whole)
    torch.manual_seed(seed)
    values = torch.randn(excerpts, time, 5).bfloat16()
    one, other = MomentAccumulator(5), MomentAccumulator(5)
    first, second = TokenTableAccumulator(_LAYOUT, 5), TokenTableAccumulator(_LAYOUT, 5)
    one.weigh(values, batch)()
    first.weigh(values, batch)()
    rows = _LAYOUT.rows_of(batch.batch.tokens)
    for place, scored in enumerate(batch.batch.scored):
        tokens = values[place].float()[torch.from_numpy(scored)]
        other.update(tokens)
        second.update(rows[place, scored], tokens)
    for mine, theirs in ((one.state(), other.state()), (first.state(), second.state())):
        for name, held in mine.items():
            if held.dtype.is_floating_point:
                assert torch.allclose(held, theirs[name], rtol=1e-4, atol=1e-4), name
            else:
                assert torch.equal(held, theirs[name]), name
    assert torch.equal(one.state()["positive"], other.state()["positive"])


def test_a_chain_that_cannot_be_compiled_stays_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> object:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(torch, "compile", fails)
    fused = Fused(lambda values, factor: values.doubled * factor, after=3)
    for _ in range(3):
        assert fused(_OnGpu(), 5) == 20  # type: ignore[arg-type]
    assert fused.broken == "RuntimeError: no C compiler"


class _OnGpu:
    """What `Fused` asks of a tensor on a GPU."""

    device = torch.device("cuda", 0)
    doubled = 4

    def numel(self) -> int:
        """Elements."""
        return 2


def test_a_collector_moves_with_all_that_it_holds() -> None:
    sizes = Sizes(4, 3, 2, 6, 20, 20)
    moved, stayed = (SiteCollector(5, sizes, {"token": _LAYOUT}, 0) for _ in range(2))
    moved.move(torch.device("meta"))  # still empty: nothing to take along
    moved.move(torch.device("cpu"))
    for first in (0, 10):
        batch = _batch(first, 10, 6, False).batch
        values = torch.randn(10, 6, 5)
        for collector in (moved, stayed):
            collector.update(Batch(batch.positions + first, batch.tokens, batch.scored), values)
    for name, held in moved.state().items():
        assert torch.equal(held, stayed.state()[name]), name
