"""Latents as lists of what is not zero come to what all of them, zeros included, come to."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_subject import SITE, FakeSubject, table_lookup, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuron_explainer.collect.batches import Batch
from neuron_explainer.collect.kept import Sizes
from neuron_explainer.collect.parts import Part, collect_part, merge
from neuron_explainer.collect.reservoirs import Reservoir
from neuron_explainer.collect.site import SiteCollector
from neuron_explainer.collect.sparse import in_segments
from neuron_explainer.collect.stage import collect
from neuron_explainer.collect.token_table import TableLayout
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.record_set import RecordSet
from neuron_explainer.store import shards_of
from neuron_explainer.subjects.base import LatentObserver, Latents, Observer

_SHARES = st.sampled_from([0.0, 0.02, 0.2, 1.0])
_VALUES = np.array([1e-6, 0.25, 0.25, 1.0, 1.5, 3.0, 700.0], np.float32)  # few: ties are frequent
_ROUNDED = ("moments.sums", "moments.shift")  # the rest is the same bit for bit


def listed(values: torch.Tensor, zeros: int = 0) -> Latents:
    """Dense `values` (batch, time, latents) as a list, with some of the zeros in it, too."""
    rows = values.flatten(0, 1)
    chosen = rows != 0
    chosen.view(-1)[torch.nonzero(rows.view(-1) == 0)[:zeros, 0]] = True
    place, latent = torch.nonzero(chosen, as_tuple=True)
    batch, time, latents = values.shape
    return Latents(place, latent, rows[place, latent], (batch, time, latents))


def _sparse(
    rng: np.random.Generator, shape: tuple[int, int, int], share: float
) -> NDArray[np.float32]:
    fires = rng.random(shape) < share
    fires[:, :, 0] = False  # a dead one
    return np.where(fires, rng.choice(_VALUES, shape), 0.0).astype(np.float32)


def _batch(rng: np.random.Generator, positions: NDArray[np.int64], time: int) -> Batch:
    lengths = rng.integers(2, time + 1, len(positions))
    scored = np.arange(time)[None, :] < lengths[:, None]
    scored[:, 0] = False
    return Batch(positions, rng.integers(0, 12, (len(positions), time)), scored)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(2, 7), st.integers(1, 6), _SHARES)
def test_listed_latents_come_to_the_same_state_as_all_of_them(
    seed: int, excerpts: int, time: int, latents: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    sizes = Sizes(4, 3, 2, time, excerpts, excerpts)
    layouts = {"token": TableLayout(np.array([2, 3, 7]), False, 0, 0, 12)}
    dense, sparse = (SiteCollector(latents, sizes, layouts, seed) for _ in range(2))
    order = rng.permutation(excerpts)
    for first in range(0, excerpts, 9):
        batch = _batch(rng, order[first : first + 9], time)
        values = torch.from_numpy(_sparse(rng, (*batch.tokens.shape, latents), share))
        dense.update(batch, values)
        sparse.update_latents(batch, listed(values, zeros=5))
    for reservoirs in zip(*(_reservoirs(one) for one in (dense, sparse)), strict=True):
        for reservoir in reservoirs:
            reservoir.sort()
    one, other = dense.state(), sparse.state()
    for name in one.keys() - set(_ROUNDED):
        assert torch.equal(one[name], other[name]), name
    exact, found = dense.moments.result(), sparse.moments.result()
    np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.variance, exact.variance, rtol=1e-4, atol=1e-9)
    np.testing.assert_array_equal(found.histogram, exact.histogram)


def _reservoirs(collector: SiteCollector) -> list[Reservoir]:
    kept = collector.kept
    return [kept.top, kept.random, *kept.bands.reservoirs]


class FakeLatents(FakeSubject):
    """The fake subject, its sites read as lists of what is not zero."""

    lists = 0

    def latents(self) -> Mapping[str, int]:
        return self.sites()

    def observe_latents(
        self,
        tokens: torch.Tensor,
        observers: Mapping[str, Observer],
        latents: Mapping[str, LatentObserver],
    ) -> None:
        self.observe(tokens, observers)
        for site, observer in latents.items():
            self.lists += 1
            observer(listed(self._functions[site](tokens)))


_FAKE = SubjectSettings(model="fake")
_TABLE = _sparse(np.random.default_rng(5), (50, 1, 40), 0.05)[:, 0]


def _settings(corpus: Path) -> CollectSettings:
    return CollectSettings(
        corpus=str(corpus), sites=(SITE,), batch=4, checkpoint=9, excerpt_tokens=8, minimum_tokens=2
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 50, rng.integers(2, 30)) for _ in range(80)]
    return write_documents(tmp_path / "corpus.jsonl", documents)


def _tables(data: Path) -> dict[str, list[dict[str, object]]]:
    folder = RecordSet(data, "fake", SITE).folder
    return {
        name: folder.read(shard.file(name)).to_pylist()
        for name in ("records", "tokens", "neurons")
        for shard in shards_of(40)
    }


def _same(one: Path, other: Path) -> None:
    first, second = _tables(one), _tables(other)
    assert first["records"] == second["records"]
    assert first["tokens"] == second["tokens"]
    for mine, theirs in zip(first["neurons"], second["neurons"], strict=True):
        rounded = {name: mine.pop(name) for name in ("mean", "variance", "skewness", "kurtosis")}
        for name, figure in rounded.items():
            assert theirs.pop(name) == (None if figure is None else pytest.approx(figure, rel=1e-3))
        assert mine == theirs


def test_a_subject_that_lists_its_latents_has_the_same_records(
    tmp_path: Path, corpus: Path
) -> None:
    functions = {SITE: table_lookup(_TABLE)}
    subject = FakeLatents(functions)
    collect(tmp_path / "sparse", _FAKE, _settings(corpus), subject=subject)
    collect(tmp_path / "dense", _FAKE, _settings(corpus), subject=FakeSubject(functions))
    assert subject.lists
    _same(tmp_path / "dense", tmp_path / "sparse")


def _stopping(subject: FakeLatents) -> Callable[..., None]:
    """What `observe_latents` is, until it is stopped at the twelfth batch."""
    real = subject.observe_latents

    def observe(*arguments: Any) -> None:
        if subject.lists == 11:
            raise KeyboardInterrupt
        real(*arguments)

    return observe


def test_parts_of_listed_latents_merge_and_go_on_after_an_interruption(
    tmp_path: Path, corpus: Path
) -> None:
    functions = {SITE: table_lookup(_TABLE)}
    for number in (1, 2):
        part, dense = Part(number, 2), FakeSubject(functions)
        collect_part(tmp_path / "dense", _FAKE, _settings(corpus), part, subject=dense)
        subject, data = FakeLatents(functions), tmp_path / "parts"
        subject.observe_latents = _stopping(subject)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            collect_part(data, _FAKE, _settings(corpus), part, subject=subject)
        again = FakeLatents(functions)
        collect_part(data, _FAKE, _settings(corpus), part, subject=again)
        assert 0 < again.lists < subject.lists + 11
    for name in ("dense", "parts"):
        merge(tmp_path / name, "fake")
    _same(tmp_path / "dense", tmp_path / "parts")


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9, width=32)), max_size=30))
def test_sums_in_a_fixed_order_are_those_of_adding_one_by_one(
    pairs: list[tuple[int, float]],
) -> None:
    cells = torch.tensor([cell for cell, _ in pairs], dtype=torch.int64)
    values = torch.tensor([value for _, value in pairs], dtype=torch.float64)
    expected = torch.zeros(6, dtype=torch.float64).index_add_(0, cells, values)
    found = torch.zeros(6, dtype=torch.float64)
    if len(pairs):
        found.index_add_(0, *in_segments(cells, values))
    assert torch.allclose(found, expected)
