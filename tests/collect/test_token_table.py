"""Token and pair tables against dictionaries: every count, and nothing of held-out records."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_subject import (
    SITE,
    SPECIAL,
    FakeSubject,
    collect_from,
    table_lookup,
    write_documents,
)
from numpy.typing import NDArray

from neuron_explainer.collect.token_table import POOLED, TableLayout, best_rows
from neuron_explainer.record_set import RecordSet

_VOCABULARY = 50
_NEURONS = 3
Documents = list[list[int]]
Key = tuple[int | None, int | None]  # previous token, token


def _documents(seed: int, number: int = 150) -> Documents:
    """Few frequent tokens and many rare ones, some documents with a special token inside."""
    rng = np.random.default_rng(seed)
    tokens = 2 + np.minimum(rng.geometric(0.12, (number, 13)), _VOCABULARY - 3)
    tokens[rng.random(tokens.shape) < 0.02] = SPECIAL
    return [list(map(int, row[: rng.integers(5, 14)])) for row in tokens]


def _with_context(seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Activations that depend on a token and on the one before."""
    rng = np.random.default_rng(seed)
    own, before = (
        torch.from_numpy(rng.normal(size=(_VOCABULARY, _NEURONS)).astype(np.float32))
        for _ in range(2)
    )

    def activations(tokens: torch.Tensor) -> torch.Tensor:
        values = own[tokens].clone()
        values[:, 1:] += before[tokens[:, :-1]]
        return values

    return activations


@dataclass(frozen=True)
class Truth:
    """Everything, kept: token ids, scored positions and activations of each sequence."""

    records: RecordSet
    subject: FakeSubject

    def cells(self, sequence: int, neuron: int) -> list[tuple[int, int, float]]:
        """Previous token, token and activation at each scored position."""
        ids = self.records.corpus.token_ids(sequence)
        scored = self.records.corpus.stimulus(sequence).scored
        found: list[torch.Tensor] = []
        self.subject.observe(torch.from_numpy(ids.astype(np.int64))[None], {SITE: found.append})
        values = found[0][0, :, neuron].tolist()
        return [
            (int(ids[at - 1]) if at else -1, int(ids[at]), values[at])
            for at in range(len(ids))
            if scored[at]
        ]

    def held_out(self, neuron: int) -> set[int]:
        records = self.records.neuron(neuron).records
        return {record.sequence for record in records if record.split not in {None, "train"}}

    def frequent(self, pairs: bool, minimum: int) -> set[Key]:
        """Keys that occur often enough in the whole corpus to have a row."""
        special = {None, SPECIAL}
        counts: dict[Key, int] = defaultdict(int)
        for sequence in range(len(self.records.corpus)):
            for at, token in enumerate(ids := self.records.corpus.token_ids(sequence).tolist()):
                if at and token not in special:
                    counts[(ids[at - 1] if pairs else None, token)] += 1
        return {key for key, count in counts.items() if count >= minimum}

    def table(self, neuron: int, pairs: bool, rows: set[Key]) -> dict[Key, tuple[float, int]]:
        """Mean and count of each row less the neuron's held-out sequences; (None, None): others."""
        held_out = self.held_out(neuron)
        values: dict[Key, list[float]] = defaultdict(list)
        for sequence in range(len(self.records.corpus)):
            if sequence not in held_out:
                for previous, token, value in self.cells(sequence, neuron):
                    key = (previous if pairs else None, token)
                    values[key if key in rows else (None, None)].append(value)
        return {key: (float(np.mean(found)), len(found)) for key, found in values.items()}


def _stored(records: RecordSet, neuron: int, pairs: bool) -> dict[Key, tuple[float, int]]:
    table = records.folder.read_neuron("tokens", neuron).to_pylist()
    return {
        (row["previous"], row["token"]): (row["activation"], row["count"])
        for row in table
        if (row["previous"] is not None) == pairs
    }


def _same(stored: dict[Key, tuple[float, int]], expected: dict[Key, tuple[float, int]]) -> None:
    assert {key: count for key, (_, count) in stored.items() if count} == {
        key: count for key, (_, count) in expected.items()
    }
    for key, (mean, _) in expected.items():
        assert stored[key][0] == pytest.approx(mean, rel=1e-4, abs=1e-5)


def _collect(tmp_path: Path, seed: int = 0, **settings: object) -> Truth:
    subject = FakeSubject({SITE: _with_context(seed)}, _VOCABULARY)
    corpus = write_documents(tmp_path / "corpus.jsonl", _documents(seed))
    options = {"whole_table": True, "context_table": True, "kept_tokens": 10_000}
    _, records = collect_from(tmp_path / "data", corpus, subject, **options | settings)
    return Truth(records, subject)


@pytest.mark.parametrize("bos", ["prepend", "none"])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_tables_are_those_of_a_dictionary(tmp_path: Path, bos: str, seed: int) -> None:
    truth = _collect(tmp_path, seed, bos=bos)
    minimum = 5
    for neuron in range(_NEURONS):
        held_out = truth.held_out(neuron)
        assert 15 < len(held_out) <= 30
        stored = _stored(truth.records, neuron, pairs=False)
        # without BOS a token at a sequence's start is counted for the minimum, though not scored
        rows = truth.frequent(False, minimum) | (set(stored) if bos == "none" else set())
        _same(stored, truth.table(neuron, False, rows - {(None, None)}))
        expected = truth.table(neuron, True, truth.frequent(True, minimum))
        del expected[(None, None)]  # pairs without a row are in their token's
        _same(_stored(truth.records, neuron, pairs=True), expected)


def test_the_counts_of_all_rows_are_all_scored_tokens_but_the_held_out_ones(
    tmp_path: Path,
) -> None:
    truth = _collect(tmp_path, kept_tokens=7, whole_table=False, context_table=False)
    for neuron in range(_NEURONS):
        statistics = truth.records.neuron(neuron).statistics
        assert statistics is not None
        own = sum(len(truth.cells(sequence, neuron)) for sequence in truth.held_out(neuron))
        stored = _stored(truth.records, neuron, pairs=False)
        assert sum(count for _, count in stored.values()) == statistics.tokens - own
        assert 4 < len(stored) <= 8  # at most seven rows, and the pool


def test_too_little_memory_drops_the_rarest_rows_and_says_so(tmp_path: Path) -> None:
    width = (1 << 17) // 20  # half a megabyte of single precision is 20 rows
    table = np.zeros((_VOCABULARY, width), np.float32)
    table[:, 0] = np.arange(_VOCABULARY)
    subject = FakeSubject({SITE: table_lookup(table)}, _VOCABULARY)
    corpus = write_documents(tmp_path / "corpus.jsonl", _documents(0))
    collected, records = collect_from(
        tmp_path / "data",
        corpus,
        subject,
        memory_mb=1,
        whole_table=True,
        top=4,
        random=3,
        per_band=0,
    )
    stored = _stored(records, 0, pairs=False)
    counts = records.corpus.folder.read("vocabulary.parquet")["count"].to_numpy().copy()
    counts[SPECIAL] = 0
    frequent = sorted(np.flatnonzero(counts >= 5), key=lambda token: (-counts[token], token))
    assert set(stored) == {(None, None)} | {(None, int(token)) for token in frequent[:20]}
    (notice,) = collected.notices
    assert "20 most frequent rows" in notice
    assert f"{len(frequent) - 20:,} more" in notice
    assert "--memory 1 MB" in notice


def test_enough_memory_gives_no_notice(tmp_path: Path) -> None:
    subject = FakeSubject({SITE: _with_context(0)}, _VOCABULARY)
    corpus = write_documents(tmp_path / "corpus.jsonl", _documents(0))
    collected, _ = collect_from(tmp_path / "data", corpus, subject)
    assert collected.notices == ()


def _secret(tokens: torch.Tensor) -> torch.Tensor:
    """Fires at token 9 always, and at token 7 only right after token 8."""
    values = torch.zeros(*tokens.shape, 2)
    values[tokens == 9] = 5.0
    after = torch.zeros_like(tokens, dtype=torch.bool)
    after[:, 1:] = (tokens[:, 1:] == 7) & (tokens[:, :-1] == 8)
    place = torch.arange(tokens.shape[1]).expand(tokens.shape)
    values[after] = (1.1 + 0.1 * place[after])[:, None]
    return values


def _secret_documents() -> Documents:
    rng = np.random.default_rng(0)
    plain = np.setdiff1d(np.arange(2, _VOCABULARY), [7, 8, 9])
    documents = [list(map(int, rng.choice(plain, 8))) for _ in range(200)]
    for number in range(200):  # token 7 is frequent, and silent but after token 8
        documents[number][5] = 7
    for number in range(0, 40, 2):  # the twenty top records
        documents[number][0] = 9
        documents[number][1:5] = [8, 7, 8, 7]
    return documents


def test_nothing_of_a_held_out_record_is_left_in_the_table(tmp_path: Path) -> None:
    subject = FakeSubject({SITE: _secret}, _VOCABULARY)
    corpus = write_documents(tmp_path / "corpus.jsonl", _secret_documents())
    _, records = collect_from(
        tmp_path / "data", corpus, subject, whole_table=True, context_table=True
    )
    neuron = records.neuron(0)
    train = {record.sequence for record in neuron.split("train")}
    assert len(train) == 5
    truth = Truth(records, subject)
    firing = {
        sequence
        for sequence in range(len(records.corpus))
        if any(token == 7 and value > 0 for _, token, value in truth.cells(sequence, 0))
    }
    assert firing > train
    expected = truth.table(0, True, {(8, 7)})
    stored = _stored(records, 0, pairs=True)
    # a train record that is a held-out random record as well is held out
    assert stored[8, 7][1] == expected[8, 7][1] == 2 * len(firing - truth.held_out(0))
    assert stored[8, 7][0] == pytest.approx(expected[8, 7][0], rel=1e-5)


def _only_held_out(tokens: torch.Tensor) -> torch.Tensor:
    """Fires at token 9, more the further on, and at token 7 only right after token 8."""
    values = torch.zeros(*tokens.shape, 1)
    place = torch.arange(tokens.shape[1], dtype=torch.float32).expand(tokens.shape)
    values[tokens == 9] = 5.0 + place[tokens == 9][:, None]
    after = torch.zeros_like(tokens, dtype=torch.bool)
    after[:, 1:] = (tokens[:, 1:] == 7) & (tokens[:, :-1] == 8)
    values[after] = 0.1 * place[after][:, None] + 0.7
    return values


def test_a_token_that_fires_only_in_held_out_records_has_no_activation_at_all(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    plain = np.setdiff1d(np.arange(2, _VOCABULARY), [7, 8, 9])
    documents = [list(map(int, rng.choice(plain, 12))) for _ in range(300)]
    for number in range(300):
        documents[number][10] = 7  # silent
    # in order of maximum: records 0, 4, 8, 12 and 16 are for training
    for rank in range(20):
        document = documents[10 * rank]
        document[11] = 9
        if rank % 4:
            document[1 : 1 + 8] = [8, 7] * 4
    subject = FakeSubject({SITE: _only_held_out}, _VOCABULARY)
    corpus = write_documents(tmp_path / "corpus.jsonl", documents)
    _, records = collect_from(
        tmp_path / "data",
        corpus,
        subject,
        excerpt_tokens=16,
        whole_table=True,
        context_table=True,
        token_minimum=1,
    )
    neuron = records.neuron(0)
    assert [record.sequence for record in neuron.of_kind("top")] == list(range(0, 200, 10))
    tokens = _stored(records, 0, pairs=False)
    assert tokens[None, 7][1] > 100
    assert tokens[None, 7][0] == 0.0
    assert (8, 7) not in _stored(records, 0, pairs=True)
    assert tokens[None, 9] == (17.0, 5)


def test_a_neuron_that_fires_in_its_held_out_records_alone_has_an_empty_table(
    tmp_path: Path,
) -> None:
    # fewer than four top records of which the first trains: none of the others may show
    table = np.zeros((_VOCABULARY, 1), np.float32)
    table[7:10, 0] = 3.3, 2.2, 1.1
    documents = [[2, 3, 4, 5] for _ in range(100)]
    for number, token in ((20, 7), (30, 8), (40, 9)):
        documents[number] = [token, token, token, 3]
    subject = FakeSubject({SITE: table_lookup(table)}, _VOCABULARY)
    corpus = write_documents(tmp_path / "corpus.jsonl", documents)
    _, records = collect_from(tmp_path / "data", corpus, subject, token_minimum=1, whole_table=True)
    splits = {record.sequence: record.split for record in records.neuron(0).of_kind("top")}
    assert [splits[number] for number in (20, 30, 40)] == ["train", "calibration", "valid"]
    stored = _stored(records, 0, pairs=False)
    assert stored[None, 7] == (float(np.float32(3.3)), 3)
    assert (None, 8) not in stored
    assert (None, 9) not in stored


def test_rows_are_found_and_all_others_are_pooled() -> None:
    layout = TableLayout(np.array([2, 5, 9]), False, 0, 0, 10)
    assert layout.rows_of(np.array([[2, 3], [9, 5]])).tolist() == [[1, POOLED], [3, 2]]
    pairs = TableLayout(np.array([25, 52]), True, 0, 0, 10)
    assert pairs.rows_of(np.array([[2, 5, 2], [5, 5, 2]])).tolist() == [[0, 1, 2], [0, 0, 2]]
    previous, tokens = pairs.names
    assert previous is not None
    assert (previous.tolist(), tokens.tolist()) == ([2, 5], [5, 2])
    nothing = TableLayout(np.array([], np.int64), False, 0, 0, 10)
    assert nothing.rows_of(np.array([[1, 2]])).tolist() == [[POOLED, POOLED]]


def test_the_best_rows_are_half_by_gain_and_half_by_mean() -> None:
    counts = np.array([[9, 1, 1, 1, 0, 1]])
    means = np.array([[9.0, 1.0, 5.0, 2.0, 9.0, 0.0]])
    gains = np.array([[9.0, 3.0, 0.0, 0.0, 9.0, 1.0]])
    kept: NDArray[np.bool_] = best_rows(counts, means, gains, 2)
    assert kept.tolist() == [[False, True, True, False, False, False]]
    assert best_rows(counts, means, gains, 100).sum() == 4  # never the pool nor what has no count
