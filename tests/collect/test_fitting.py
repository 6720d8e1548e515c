"""Batches that run out of memory go through in halves, and come to the same records."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import files
from fake_subject import SITE, FakeSubject, collect_from, table_lookup, write_documents

from neuron_explainer.collect import reservoirs
from neuron_explainer.collect.batches import Batch, batches
from neuron_explainer.collect.fitting import Fitting, made_ahead
from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.base import Observer

_OTHER = "blocks.1.mlp.hook_post"


class Short(FakeSubject):
    """Runs out of memory when it is given too much, at the beginning or after the first site."""

    def __init__(self, most: int, after_first_site: bool) -> None:
        table = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        super().__init__({SITE: table_lookup(table), _OTHER: table_lookup(table[::-1].copy())})
        self._most = most
        self._after_first_site = after_first_site

    def observe(self, tokens: torch.Tensor, observers: dict[str, Observer]) -> None:  # type: ignore[override]
        if len(tokens) <= self._most:
            super().observe(tokens, observers)
            return
        if self._after_first_site:
            super().observe(tokens, {SITE: observers[SITE]})
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 50, rng.integers(2, 20)) for _ in range(100)]
    return write_documents(tmp_path / "corpus.jsonl", documents)


def _collected(data: Path, corpus: Path, subject: FakeSubject) -> tuple[dict[str, bytes], str]:
    done, _ = collect_from(data, corpus, subject, batch=16)
    tables = {name: held for name, held in files(data).items() if name.endswith("parquet")}
    return tables, "; ".join(done.notices)


@pytest.mark.parametrize("after_first_site", [False, True])
def test_halved_batches_come_to_the_same_bytes_and_say_so_once(
    tmp_path: Path, corpus: Path, after_first_site: bool
) -> None:
    expected, silence = _collected(tmp_path / "whole", corpus, Short(99, False))
    subject = Short(5, after_first_site)
    found, notices = _collected(tmp_path / "halves", corpus, subject)
    assert found == expected
    assert not silence
    assert notices.count("ran out of memory") == 1
    assert "down to 4 excerpts" in notices


def test_a_reduction_that_runs_out_of_memory_counts_nothing_twice(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = _collected(tmp_path / "whole", corpus, Short(99, False))
    real, calls = reservoirs.exchanged, [0]

    def exchanged(*arguments: torch.Tensor) -> object:
        calls[0] += 1
        if calls[0] in (2, 3, 9):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*arguments)

    monkeypatch.setattr(reservoirs, "exchanged", exchanged)
    found, notices = _collected(tmp_path / "halves", corpus, Short(99, False))
    assert found == expected
    assert "ran out of memory" in notices


def test_an_excerpt_that_does_not_fit_alone_is_an_error(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(SubjectError, match="one excerpt of 9 tokens does not fit"):
        _collected(tmp_path / "none", corpus, Short(0, False))


def _batch(size: int) -> Batch:
    return Batch(np.arange(size), np.zeros((size, 3), np.int64), np.ones((size, 3), bool))


def _taking(most: int, taken: list[list[int]], attempts: list[int]) -> Callable[[Batch], None]:
    def take(batch: Batch) -> None:
        attempts.append(len(batch.positions))
        if len(batch.positions) > most:
            raise torch.OutOfMemoryError
        taken.append(batch.positions.tolist())

    return take


def test_parts_come_in_order_and_later_batches_are_not_tried_whole() -> None:
    taken: list[list[int]] = []
    attempts: list[int] = []
    fitting = Fitting(_taking(3, taken, attempts))
    for _ in range(2):
        fitting(_batch(10))
    once = [[0, 1], [2, 3], [4], [5, 6], [7, 8], [9]]
    assert taken == [*once, *([first, first + 1] for first in range(0, 10, 2))]
    assert attempts == [10, 5, 2, 2, 1, 2, 2, 1, 2, 2, 2, 2, 2]


def test_what_is_made_ahead_is_the_same_and_an_error_arrives() -> None:
    assert list(made_ahead(iter(range(1, 9)))) == list(range(1, 9))

    def broken() -> object:
        yield 1
        raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        list(made_ahead(broken()))  # type: ignore[arg-type]


def test_batches_by_tokens_hold_every_excerpt_once_and_no_more_tokens(
    tmp_path: Path, corpus: Path
) -> None:
    done, _ = collect_from(tmp_path / "data", corpus, Short(999, False), batch_tokens=40)
    found = list(batches(done.corpus, 32, 0, tokens=40))
    assert max(batch.tokens.size for batch in found) <= 40
    assert min(len(batch.positions) for batch in found[:-1]) > 1
    assert sorted(np.concatenate([batch.positions for batch in found])) == [
        *range(len(done.corpus))
    ]
