"""The whole stage against keeping everything: on fake activations, and on the trained example."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_subject import (
    SITE,
    SPECIAL,
    FakeSubject,
    collect_from,
    table_lookup,
    words,
    write_documents,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from neuron_explainer.collect.bands import QUANTILES
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import CorpusError, RunMismatch, SubjectError, WorkspaceError
from neuron_explainer.histogram import HISTOGRAM_EDGES
from neuron_explainer.record_set import Corpus, RecordSet
from neuron_explainer.records import NeuronRecord
from neuron_explainer.splits import assign_splits
from neuron_explainer.store import Folder

_VOCABULARY = 50
# few activations, so that ties are frequent; minus zero must tie with zero
_LEVELS = np.array([-1.5, -0.0, 0.0, 0.0, 0.25, 2.0, 7.0], np.float32)


@dataclass(frozen=True)
class Everything:
    """The activations of all neurons at all positions of all sequences, one array a sequence."""

    corpus: Corpus
    activations: Sequence[NDArray[np.float32]]  # (time, neurons)

    @cached_property
    def scored(self) -> list[NDArray[np.bool_]]:
        return [self.corpus.stimulus(sequence).scored for sequence in range(len(self.corpus))]

    @cached_property
    def rows(self) -> NDArray[np.float64]:
        """All scored positions, (tokens, neurons)."""
        parts = [values[mask] for values, mask in zip(self.activations, self.scored, strict=True)]
        return np.concatenate(parts).astype(np.float64)

    @cached_property
    def maxima(self) -> NDArray[np.float32]:
        """Over scored positions, (sequences, neurons)."""
        parts = zip(self.activations, self.scored, strict=True)
        return np.array([values[mask].max(0) for values, mask in parts])


def _everything(records: RecordSet, subject: FakeSubject) -> Everything:
    activations = []
    for sequence in range(len(records.corpus)):
        tokens = torch.from_numpy(records.corpus.token_ids(sequence).astype(np.int64))[None]
        subject.observe(tokens, {records.site: lambda x: activations.append(x[0].numpy().copy())})
    return Everything(records.corpus, activations)


def _check_neuron(
    neuron: NeuronRecord, everything: Everything, tolerance: float, sizes: tuple[int, int, int]
) -> None:
    index, (n_top, n_random, per_band) = neuron.neuron.index, sizes
    maxima = everything.maxima[:, index]
    top, random = neuron.of_kind("top"), neuron.of_kind("random")
    number = len(maxima)
    assert (len(top), len(random)) == (min(n_top, number), min(n_random, number))
    held = [record.sequence for record in top]
    if tolerance:  # activations of two batches of different shapes may differ in the last bits
        lowest = np.sort(maxima)[::-1][len(top) - 1]
        np.testing.assert_allclose(maxima[held], np.sort(maxima)[::-1][: len(top)], atol=tolerance)
        assert (maxima[held] >= lowest - tolerance).all()
    else:
        assert held == sorted(range(number), key=lambda at: (-maxima[at], at))[: len(top)]
    assert len({record.sequence for record in random}) == len(random)
    for record in neuron.records:
        exact = everything.activations[record.sequence][:, index]
        assert len(record.activations) == len(record.tokens) == len(exact)
        np.testing.assert_allclose(record.activations, exact, rtol=2**-10, atol=1e-6 + tolerance)
        np.testing.assert_array_equal(record.scored, everything.scored[record.sequence])
    _check_splits(neuron)
    _check_bands(neuron, maxima, per_band, tolerance)
    _check_statistics(neuron, everything, tolerance)


def _check_splits(neuron: NeuronRecord) -> None:
    top, random = neuron.of_kind("top"), neuron.of_kind("random")
    for split, (of_top, of_random) in assign_splits(len(top), len(random)).items():
        expected = [top[place].sequence for place in of_top]
        expected += [random[place].sequence for place in of_random]
        assert [record.sequence for record in neuron.split(split)] == expected


def _check_bands(
    neuron: NeuronRecord, maxima: NDArray[np.float32], per_band: int, tolerance: float
) -> None:
    edges = [-np.inf, *np.quantile(maxima, QUANTILES).astype(np.float32), np.inf]
    for band in range(len(edges) - 1):
        inside = (maxima >= edges[band]) & (maxima <= edges[band + 1])
        held = [record.sequence for record in neuron.of_kind("quantile") if record.band == band]
        assert len(held) == len(set(held))
        if tolerance == 0:
            assert len(held) == min(per_band, inside.sum())
            assert inside[held].all()
        else:
            assert (maxima[held] >= edges[band] - tolerance).all()
            assert (maxima[held] <= edges[band + 1] + tolerance).all()


def _check_statistics(neuron: NeuronRecord, everything: Everything, tolerance: float) -> None:
    values = everything.rows[:, neuron.neuron.index]
    found = neuron.statistics
    assert found is not None
    assert found.tokens == len(values)
    assert found.maximum == pytest.approx(values.max(), rel=1e-6, abs=tolerance)
    assert found.mean == pytest.approx(values.mean(), rel=1e-4, abs=1e-6)
    assert found.variance == pytest.approx(values.var(), rel=1e-4, abs=1e-12)
    if values.var() > 1e-12:
        assert found.skewness == pytest.approx(stats.skew(values), rel=1e-3, abs=1e-3)
        assert found.kurtosis == pytest.approx(stats.kurtosis(values, fisher=False), rel=1e-3)
    else:
        assert found.skewness is found.kurtosis is None
    if tolerance == 0:
        assert found.density == pytest.approx(np.mean(values > 0), rel=1e-12)
        bins = np.clip(np.searchsorted(HISTOGRAM_EDGES, values) + 1, 1, len(HISTOGRAM_EDGES))
        expected = np.bincount(np.where(values > 0, bins, 0), minlength=len(HISTOGRAM_EDGES) + 1)
        np.testing.assert_array_equal(found.histogram, expected)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(4, 90),
    st.sampled_from(["prepend", "none"]),
    st.sampled_from([1, 5, 32, 200]),
)
def test_the_stage_keeps_what_keeping_everything_would(
    tmp_path_factory: pytest.TempPathFactory, seed: int, documents: int, bos: str, batch: int
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.choice(_LEVELS, (_VOCABULARY, 4))
    table[:, 1] = 0.0  # a dead neuron
    table[:, 2] -= 10.0  # one that is always negative
    table[:, 3] += rng.normal(size=_VOCABULARY)
    table[SPECIAL] = 99.0  # what must never count
    lengths = rng.integers(2, 20, documents)
    corpus = [[int(rng.integers(2, _VOCABULARY)), *rng.integers(SPECIAL, 50, n)] for n in lengths]
    path = tmp_path_factory.mktemp("stage")
    subject = FakeSubject({SITE: table_lookup(table)}, _VOCABULARY)
    sizes = {"top": 8, "random": 6, "per_band": 3}
    _, records = collect_from(
        path / "data",
        write_documents(path / "corpus.jsonl", corpus),
        subject,
        bos=bos,
        batch=batch,
        seed=seed,
        **sizes,
    )
    everything = _everything(records, subject)
    for index in range(4):
        _check_neuron(records.neuron(index), everything, 0.0, (8, 6, 3))


def _tables(records: RecordSet) -> dict[str, Any]:
    names = ("records", "neurons", "tokens")
    return {name: records.folder.read_all(name).to_pydict() for name in names}


def test_what_is_kept_does_not_depend_on_the_size_of_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # whole numbers, so that sums do not depend on the order either
    table = rng.integers(-3, 9, (_VOCABULARY, 5)).astype(np.float32)
    documents = [rng.integers(SPECIAL, _VOCABULARY, rng.integers(2, 30)) for _ in range(400)]
    corpus = write_documents(tmp_path / "corpus.jsonl", documents)
    found = []
    for batch in (1, 32, 77, 1000):
        subject = FakeSubject({SITE: table_lookup(table)}, _VOCABULARY)
        data = tmp_path / f"data-{batch}"
        _, records = collect_from(data, corpus, subject, batch=batch, whole_table=True)
        assert max(size for size, _ in subject.batches) <= batch
        found.append(_tables(records))
    for other in found[1:]:
        assert other["records"] == found[0]["records"]
        assert other["tokens"] == found[0]["tokens"]
        for name, column in found[0]["neurons"].items():
            if name in {"mean", "variance", "skewness", "kurtosis"}:
                np.testing.assert_allclose(other["neurons"][name], column, rtol=1e-4, atol=1e-6)
            else:
                assert other["neurons"][name] == column


def test_another_seed_keeps_the_same_top_and_other_random_records(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(_VOCABULARY, 3)).astype(np.float32)
    documents = [rng.integers(2, _VOCABULARY, 8) for _ in range(200)]
    corpus = write_documents(tmp_path / "corpus.jsonl", documents)
    kept = {}
    for seed in (0, 1):
        subject = FakeSubject({SITE: table_lookup(table)}, _VOCABULARY)
        _, records = collect_from(tmp_path / str(seed), corpus, subject, seed=seed)
        kept[seed] = {
            kind: [[r.sequence for r in records.neuron(n).of_kind(kind)] for n in range(3)]
            for kind in ("top", "random", "quantile")
        }
    assert kept[0]["top"] == kept[1]["top"]
    assert kept[0]["random"] != kept[1]["random"]
    assert kept[0]["quantile"] != kept[1]["quantile"]
    assert kept[0]["random"][0] != kept[0]["random"][1]


def _fake(neurons: int = 2, vocabulary: int = _VOCABULARY, **options: Any) -> FakeSubject:
    table = np.random.default_rng(0).normal(size=(vocabulary, neurons)).astype(np.float32)
    return FakeSubject({SITE: table_lookup(table)}, vocabulary, **options)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, _VOCABULARY, 10) for _ in range(60)]
    return write_documents(tmp_path / "corpus.jsonl", documents)


def test_excerpts_without_a_token_that_counts_are_left_out(tmp_path: Path) -> None:
    documents = [[SPECIAL] * 8] * 3 + [[SPECIAL, number + 2, SPECIAL] for number in range(6)]
    corpus = write_documents(tmp_path / "corpus.jsonl", documents)
    subject = _fake()
    _, records = collect_from(tmp_path / "data", corpus, subject)
    assert len(records.corpus) == 6
    _check_neuron(records.neuron(0), _everything(records, subject), 0.0, (20, 20, 4))


def test_a_site_that_is_complete_is_not_run_again(tmp_path: Path, corpus: Path) -> None:
    data = tmp_path / "data"
    first, records = collect_from(data, corpus, _fake())
    assert first.skipped == ()
    before = _tables(records)
    again = _fake()
    second, records = collect_from(data, corpus, again)
    assert second.skipped == (SITE,)
    assert again.batches == []
    assert _tables(records) == before


def test_another_site_joins_without_running_the_first_one_again(
    tmp_path: Path, corpus: Path
) -> None:
    lookup = table_lookup(np.ones((_VOCABULARY, 2), np.float32))
    other = "blocks.1.mlp.hook_post"
    subject = FakeSubject({SITE: lookup, other: lookup}, _VOCABULARY)
    collect_from(tmp_path / "data", corpus, subject, sites=(SITE,))
    collected, _ = collect_from(tmp_path / "data", corpus, subject, sites=(SITE, other))
    assert collected.skipped == (SITE,)
    assert collected.widths == {SITE: 2, other: 2}
    assert RecordSet(tmp_path / "data", "fake", other).folder.complete


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"top": 8}, {"bos": "none"}, {"context_table": True}]
)
def test_other_settings_are_refused_in_the_same_folder(
    tmp_path: Path, corpus: Path, changed: dict[str, Any]
) -> None:
    collect_from(tmp_path / "data", corpus, _fake())
    with pytest.raises(RunMismatch, match=next(iter(changed))):
        collect_from(tmp_path / "data", corpus, _fake(), **changed)


def test_another_corpus_is_refused_in_the_same_folder(tmp_path: Path, corpus: Path) -> None:
    collect_from(tmp_path / "data", corpus, _fake())
    other = tmp_path / "other.jsonl"
    other.write_bytes(corpus.read_bytes() + b'{"text": "t2 t3 t4"}\n')
    with pytest.raises(RunMismatch, match="corpus"):
        collect_from(tmp_path / "data", other, _fake())
    moved = corpus.rename(tmp_path / "moved.jsonl")  # the same corpus, wherever it lies
    collected, _ = collect_from(tmp_path / "data", moved, _fake())
    assert collected.skipped == (SITE,)


def test_another_tokenizer_is_refused_in_the_same_folder(tmp_path: Path, corpus: Path) -> None:
    collect_from(tmp_path / "data", corpus, _fake())
    with pytest.raises(RunMismatch, match="vocabulary"):
        collect_from(tmp_path / "data", corpus, _fake(vocabulary=60))


def test_batch_and_memory_may_change_between_sites(tmp_path: Path, corpus: Path) -> None:
    collect_from(tmp_path / "data", corpus, _fake(), batch=2, memory_mb=16)
    collected, _ = collect_from(tmp_path / "data", corpus, _fake(), batch=64, memory_mb=99)
    assert collected.skipped == (SITE,)


def test_a_run_cut_off_between_sites_comes_to_the_same_with_little_memory(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = table_lookup(np.ones((_VOCABULARY, 1600), np.float32))
    other = "blocks.1.mlp.hook_post"
    subject = FakeSubject({SITE: lookup, other: lookup}, _VOCABULARY)
    options: dict[str, Any] = {"memory_mb": 1, "top": 4, "random": 3, "per_band": 0}

    def collected(place: str) -> dict[str, Any]:
        made, _ = collect_from(tmp_path / place, corpus, subject, **options)
        assert "most frequent rows" in made.notices[0]
        return _tables(RecordSet(tmp_path / place, "fake", other))

    whole = collected("whole")
    real, written = Folder.write, []

    def failing(folder: Folder, tables: Any) -> None:
        if other in str(folder.path):
            written.append(tables)
            raise WorkspaceError("the disk is full")
        real(folder, tables)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write", failing)
        with pytest.raises(WorkspaceError):
            collected("cut off")
    assert written
    assert RecordSet(tmp_path / "cut off", "fake", SITE).folder.complete
    assert collected("cut off") == whole


def test_too_few_excerpts_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "corpus.jsonl", [[2, 3, 4]] * 3)
    with pytest.raises(CorpusError, match=r"gives 3 excerpts.*at least 4"):
        collect_from(tmp_path / "data", corpus, _fake())
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_model_with_a_short_context_says_what_fits(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(SubjectError, match=r"takes 8 tokens.*7 or less"):
        collect_from(tmp_path / "data", corpus, _fake(context=8))
    collect_from(tmp_path / "data", corpus, _fake(context=8), excerpt_tokens=7)


@pytest.mark.parametrize(("value", "kind"), [(7e4, "float16"), (np.nan, "float32")])
def test_an_activation_that_cannot_be_stored_stops_the_stage(
    tmp_path: Path, corpus: Path, value: float, kind: str
) -> None:
    table = np.zeros((_VOCABULARY, 2), np.float32)
    table[9, 1] = value
    subject = FakeSubject({SITE: table_lookup(table)}, _VOCABULARY)
    with pytest.raises(SubjectError, match="not finite"), np.errstate(all="ignore"):
        collect_from(tmp_path / "data", corpus, subject, activations=kind)
    assert not RecordSet(tmp_path / "data", "fake", SITE).folder.complete


def test_single_precision_is_kept_where_it_is_asked_for(tmp_path: Path, corpus: Path) -> None:
    subject = _fake()
    _, records = collect_from(tmp_path / "data", corpus, subject, activations="float32")
    everything = _everything(records, subject)
    for record in records.neuron(1).records:
        np.testing.assert_array_equal(
            record.activations, everything.activations[record.sequence][:, 1]
        )


def test_every_number_of_kept_records_has_its_place(tmp_path: Path, corpus: Path) -> None:
    for place, sizes in enumerate([(4, 3, 0), (4, 3, 9), (60, 60, 1), (100, 100, 30)]):
        subject = _fake()
        top, random, per_band = sizes
        _, records = collect_from(
            tmp_path / str(place), corpus, subject, top=top, random=random, per_band=per_band
        )
        _check_neuron(records.neuron(0), _everything(records, subject), 0.0, sizes)


def _plain_activations(
    folder: Path, layer: int, tokens: Sequence[NDArray[np.int32]]
) -> list[NDArray[np.float32]]:
    """The MLP neurons of a layer by nothing but transformers: every sequence alone, own hook."""
    from transformers import GPT2LMHeadModel

    model: Any = GPT2LMHeadModel.from_pretrained(str(folder), dtype=torch.float32)
    model.eval()
    seen: list[torch.Tensor] = []
    handle = model.transformer.h[layer].mlp.act.register_forward_hook(
        lambda _, __, output: seen.append(output[0])
    )
    with torch.no_grad():
        for ids in tokens:
            model(torch.from_numpy(ids.astype(np.int64))[None])
    handle.remove()
    return [values.numpy() for values in seen]


def test_records_of_the_trained_example_are_those_of_plain_transformers(
    tiny: Path, tmp_path: Path
) -> None:
    from example_corpus import first_documents
    from transformers import AutoTokenizer

    path = tmp_path / "corpus.jsonl"
    path.write_bytes(first_documents(tiny, 60))
    subject = SubjectSettings(model=str(tiny / "model"), name="tiny")
    collected = collect(
        tmp_path / "data", subject, CollectSettings(corpus=str(path), layers="1", whole_table=True)
    )
    records = RecordSet(tmp_path / "data", "tiny", "blocks.1.mlp.hook_post")
    tokenizer = AutoTokenizer.from_pretrained(str(tiny / "model"))
    expected = _plain_excerpts(tokenizer, path)
    assert [collected.corpus.token_ids(at).tolist() for at in range(len(expected))] == expected
    sequences = [np.array(ids, np.int32) for ids in expected]
    activations = _plain_activations(tiny / "model", 1, sequences)
    everything = Everything(records.corpus, activations)
    for index in range(0, records.width, 8):
        _check_neuron(records.neuron(index), everything, 1e-4, (20, 20, 4))
    for index in range(0, records.width, 64):
        _check_tokens(records.neuron(index), everything, tokenizer)


def _plain_excerpts(tokenizer: Any, path: Path) -> list[list[int]]:
    import json

    excerpts = []
    for line in path.read_text("utf-8").splitlines():
        ids = tokenizer(json.loads(line)["text"])["input_ids"]
        pieces = [ids[at : at + 64] for at in range(0, len(ids), 64)]
        excerpts += [[tokenizer.bos_token_id, *piece] for piece in pieces if len(piece) >= 16]
    return excerpts


def _check_tokens(neuron: NeuronRecord, everything: Everything, tokenizer: Any) -> None:
    held_out = {r.sequence for r in neuron.records if r.split not in {None, "train"}}
    values: dict[int, list[float]] = {}
    for sequence, activations in enumerate(everything.activations):
        if sequence not in held_out:
            ids = everything.corpus.token_ids(sequence)
            for token, value in zip(ids[1:], activations[1:, neuron.neuron.index], strict=True):
                values.setdefault(int(token), []).append(float(value))
    names = everything.corpus.vocabulary[0]
    rows = list(neuron.token_rows or ())
    stored = {row.token: row for row in rows if row.token is not None}
    assert len(stored) > 50
    frequent = {names[token]: found for token, found in values.items()}
    for token, row in stored.items():
        assert row.count == len(frequent[token])
        assert row.activation == pytest.approx(np.mean(frequent[token]), rel=1e-3, abs=1e-5)
    (pool,) = (row for row in rows if row.token is None)
    others = [value for name, found in frequent.items() if name not in stored for value in found]
    assert pool.count == len(others)
    assert pool.activation == pytest.approx(np.mean(others), rel=1e-3, abs=1e-5)


def test_tokens_read_as_the_text_they_came_from(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    text = "Ann’s “café” — 東京 😀\n\tcosts €3.50, el perro rojo, and twelve more words to be long."
    path.write_text("\n\n".join([text] * 5), encoding="utf-8")
    collected = collect(
        tmp_path / "data",
        SubjectSettings(model=str(tiny / "model")),
        CollectSettings(corpus=str(path), layers="0", split_on="blank-line"),
    )
    stimulus = collected.corpus.stimulus(0)
    assert b"".join(stimulus.tokens[1:]).decode() == text + "\n"


def test_settings_name_the_subject_and_keep_its_weights(tmp_path: Path, corpus: Path) -> None:
    settings = CollectSettings(corpus=str(corpus), sites=(SITE,), excerpt_tokens=8)
    settings = replace(settings, minimum_tokens=2)
    collected = collect(
        tmp_path, SubjectSettings(model="someone/fake", name="mine"), settings, subject=_fake()
    )
    assert collected.subject == "mine"
    manifest = RecordSet(tmp_path, "mine", SITE).folder.manifest()
    assert manifest["config"]["subject"] == {"dtype": "float32", "weights": "someone/fake"}
    assert str(tmp_path) not in str(manifest)


def test_words_come_back_as_tokens() -> None:
    assert words([7, SPECIAL, 8]) == "t7 <|endoftext|> t8"
    assert _fake().tokenizer.encode([words([7, SPECIAL, 8])])[0].tolist() == [7, SPECIAL, 8]
