"""Documents in random order: all of them, once, in an order of the seed, in bounded memory."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from neuron_explainer.collect.shuffle import Shuffle
from neuron_explainer.errors import WorkspaceError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(max_size=20), max_size=40), st.integers(0, 2**32), st.integers(1, 100))
def test_every_document_comes_once_however_little_is_held(
    tmp_path: Path, texts: list[str], seed: int, held: int
) -> None:
    mixed = list(Shuffle(seed, tmp_path, held=held)(texts))
    assert Counter(mixed) == Counter(texts)
    assert mixed == list(Shuffle(seed, tmp_path, held=held)(texts))
    assert not list(tmp_path.iterdir())


def test_seeds_give_different_orders(tmp_path: Path) -> None:
    texts = [str(number) for number in range(1000)]
    orders = {tuple(Shuffle(seed, tmp_path, held=500)(texts)) for seed in range(3)}
    assert len(orders) == 3
    assert tuple(texts) not in orders


@pytest.mark.parametrize("held", [30, 10_000])
def test_every_document_is_as_likely_to_be_among_the_first(tmp_path: Path, held: int) -> None:
    texts = [str(number) for number in range(40)]
    draws = 150
    chosen: Counter[str] = Counter()
    for seed in range(draws):
        chosen.update(Shuffle(seed, tmp_path, limit=10, held=held)(texts))
    counts = [chosen[text] for text in texts]
    assert sum(counts) == 10 * draws
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("limit", [1, 50, 999, 5000])
def test_a_limit_gives_the_beginning_of_the_whole_order(tmp_path: Path, limit: int) -> None:
    texts = [f"{number} {'x' * (number % 7)}" for number in range(1000)]
    random = np.random.default_rng(0)
    for held in (10**6, int(random.integers(200, 2000))):
        part = list(Shuffle(5, tmp_path, limit=limit, held=held)(texts))
        assert part == list(islice(Shuffle(5, tmp_path, held=held)(texts), limit))


def _watched(folder: Path, number: int, sizes: list[int]) -> Iterator[str]:
    for place in range(number):
        if place % 1000 == 0:
            sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
        yield f"{place:020d}"


def test_a_small_sample_of_much_writes_little(tmp_path: Path) -> None:
    sizes: list[int] = []
    number = 20_000
    sample = list(Shuffle(1, tmp_path, limit=10, held=1000)(_watched(tmp_path, number, sizes)))
    assert len(set(sample)) == 10
    assert 0 < max(sizes) < 28 * number / 4


def test_a_consumer_that_stops_leaves_no_files(tmp_path: Path) -> None:
    documents: Any = Shuffle(1, tmp_path, held=100)(str(number) for number in range(1000))
    next(documents)
    assert list(tmp_path.iterdir())
    documents.close()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        WorkspaceError, match=r"cannot write to .*: no such file or directory; free"
    ):
        list(Shuffle(1, tmp_path / "gone", held=10)(["much text", "and more", "and more"]))
