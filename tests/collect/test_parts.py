"""Parts of a corpus, collected apart and merged, against one process that sees it all."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_corpus import first_documents
from fake_subject import SITE, SPECIAL, FakeSubject, table_lookup, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from neuron_explainer.collect.parts import Part, collect_part, merge
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import ConfigError, DataError, RunLocked, RunMismatch
from neuron_explainer.record_set import RecordSet
from neuron_explainer.store import locked

_VOCABULARY = 50
_OTHER = "blocks.10.mlp.hook_post"
_THIRD = "blocks.2.mlp.hook_post"  # before the other in order of layer, behind it as text
_ALL = (SITE, _THIRD, _OTHER)
_SUMS = ("mean", "variance", "skewness", "kurtosis")  # of floats, added in another order
_FAKE = SubjectSettings(model="fake")


def _subject(seed: int = 0) -> FakeSubject:
    """Whole numbers, so that token sums are exact: dead, tied, sparse, negative and dense."""
    rng = np.random.default_rng(seed)
    table = np.zeros((_VOCABULARY, 6), np.float32)
    table[:, 1] = rng.integers(0, 2, _VOCABULARY)
    table[7, 2] = 5.0
    table[:, 3] = -rng.integers(1, 4, _VOCABULARY)
    table[:, 4] = np.where(rng.random(_VOCABULARY) < 0.5, -0.0, 0.0)
    table[:, 5] = rng.permutation(_VOCABULARY) - 20
    functions = {
        SITE: table_lookup(table),
        _THIRD: table_lookup(table + 1),
        _OTHER: table_lookup(table[:, ::-1].copy()),
    }
    return FakeSubject(functions, _VOCABULARY)


def _corpus(path: Path, documents: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    words = [rng.integers(SPECIAL, _VOCABULARY, rng.integers(2, 30)) for _ in range(documents)]
    return write_documents(path, [[2, 3, 4], [5, 6, 7], [2, 2, 2], [7, 8, 9], *words])


def _settings(corpus: Path, **changed: Any) -> CollectSettings:
    chosen: dict[str, Any] = {
        "sites": (SITE, _THIRD, _OTHER),
        "excerpt_tokens": 8,
        "minimum_tokens": 2,
    }
    chosen |= {"batch": 5, "top": 8, "random": 6, "per_band": 2, "context_table": True}
    return CollectSettings(corpus=str(corpus), **chosen | changed)


def _parts(data: Path, corpus: Path, number: int, **changed: Any) -> None:
    for part in range(1, number + 1):
        collect_part(
            data, _FAKE, _settings(corpus, **changed), Part(part, number), subject=_subject()
        )


def _equal(one: RecordSet, other: RecordSet, tolerance: float = 1e-5) -> None:
    """Every table of the two, bit for bit but for the moments; and their configuration."""
    first, second = one.folder.manifest(), other.folder.manifest()
    assert first["config"] == second["config"]
    assert first["shards"].keys() == second["shards"].keys()
    for file in first["shards"]:
        expected, found = one.folder.read(file).to_pydict(), other.folder.read(file).to_pydict()
        for name, column in expected.items():
            if file.startswith("neurons") and name in _SUMS:
                assert [value is None for value in column] == [v is None for v in found[name]]
                values = (np.array(made, np.float64) for made in (found[name], column))
                np.testing.assert_allclose(next(values), next(values), rtol=tolerance, atol=1e-6)
            else:
                assert found[name] == column, (file, name)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 9), st.integers(0, 200), st.integers(3, 40), st.integers(0, 99))
def test_merged_parts_are_what_one_process_makes(
    tmp_path_factory: pytest.TempPathFactory, number: int, documents: int, batch: int, seed: int
) -> None:
    root = tmp_path_factory.mktemp("parts")
    corpus = _corpus(root / "corpus.jsonl", documents, seed)
    options: dict[str, Any] = {"batch": batch, "seed": seed}
    collect(root / "one", _FAKE, _settings(corpus, **options), subject=_subject())
    _parts(root / "parts", corpus, number, **options)
    merged = merge(root / "parts", "fake")
    assert merged.widths == {SITE: 6, _THIRD: 6, _OTHER: 6}
    for site in (SITE, _THIRD, _OTHER):
        _equal(RecordSet(root / "one", "fake", site), RecordSet(root / "parts", "fake", site))


def test_parts_of_a_real_model_have_the_same_records_to_the_last_bit(
    tiny: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(first_documents(tiny, 25))
    subject = SubjectSettings(model=str(tiny / "model"), name="tiny")
    heads = "blocks.0.attn.hook_pattern"
    sites = ("blocks.1.mlp.hook_post", heads)
    chosen = CollectSettings(corpus=str(corpus), sites=sites, batch=8, kept_tokens=0)
    collect(tmp_path / "one", subject, chosen)
    for part in (2, 3, 1):
        collect_part(tmp_path / "parts", subject, chosen, Part(part, 3))
    merge(tmp_path / "parts", "tiny")
    for site in sites:
        one, parts = (RecordSet(tmp_path / data, "tiny", site).folder for data in ("one", "parts"))
        for name in ("records", "logit_effects") if site != heads else ("records",):
            assert parts.read_all(name).equals(one.read_all(name))
        expected, found = one.read_all("neurons"), parts.read_all("neurons")
        exact = [name for name in expected.column_names if name not in _SUMS]
        assert found.select(exact).equals(expected.select(exact))
        for name in _SUMS:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_little_memory_makes_the_same_quantiles_in_parts(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "corpus.jsonl", 200)
    table = np.random.default_rng(0).normal(size=(50, 1600)).astype(np.float32)
    wide = {SITE: table_lookup(table)}
    chosen = _settings(corpus, sites=(SITE,), memory_mb=1, top=4, random=3, context_table=False)
    collect(tmp_path / "one", _FAKE, chosen, subject=FakeSubject(wide))
    for part in (1, 2):
        collect_part(tmp_path / "parts", _FAKE, chosen, Part(part, 2), subject=FakeSubject(wide))
    merge(tmp_path / "parts", "fake")
    names = ["neuron", "maximum", "quantile_boundaries", "histogram"]
    one, parts = (RecordSet(tmp_path / data, "fake", SITE).folder for data in ("one", "parts"))
    assert parts.read_all("neurons", names).equals(one.read_all("neurons", names))
    assert parts.read_all("records").equals(one.read_all("records"))


def test_a_complete_part_and_a_merged_site_are_not_made_again(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "corpus.jsonl", 30)
    _parts(tmp_path / "data", corpus, 2)
    again = _subject()
    done = collect_part(tmp_path / "data", _FAKE, _settings(corpus), Part(1, 2), subject=again)
    assert done.skipped == _ALL
    assert again.batches == []
    assert merge(tmp_path / "data", "fake").skipped == ()
    assert set(merge(tmp_path / "data", "fake").skipped) == set(_ALL)
    # what one process would do finds the merged sites complete
    one = collect(tmp_path / "data", _FAKE, _settings(corpus), subject=again)
    assert one.skipped == _ALL


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "corpus.jsonl", 30)
    data, parts = tmp_path / "data", tmp_path / "data" / "fake.parts"
    with pytest.raises(DataError, match="holds no parts"):
        merge(data, "fake")
    for part in (1, 3):
        collect_part(data, _FAKE, _settings(corpus), Part(part, 3), subject=_subject())
    with pytest.raises(DataError, match=r"2-of-3 is missing.*--shard 2/3"):
        merge(data, "fake")
    other = _settings(corpus, batch=6)
    collect_part(data, _FAKE, other, Part(2, 3), subject=_subject())
    with pytest.raises(RunMismatch, match=r"2-of-3 was made with another batch than .*1-of-3"):
        merge(data, "fake")
    with pytest.raises(RunMismatch, match="made with batch = 6, not 5"):
        collect_part(data, _FAKE, _settings(corpus), Part(2, 3), subject=_subject())
    shutil.copytree(parts / "2-of-3", parts / "1-of-2")
    with pytest.raises(RunMismatch, match="parts of 2 and of 3"):
        merge(data, "fake")
    assert not (data / "fake" / SITE).exists()


def test_a_damaged_part_and_another_corpus_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _parts(data, _corpus(tmp_path / "corpus.jsonl", 30), 2)
    state = data / "fake.parts" / "2-of-2" / "state.npz"
    whole = state.read_bytes()
    state.write_bytes(whole[:-7])
    with pytest.raises(DataError, match=r"2-of-2.*damaged"):
        merge(data, "fake")
    state.write_bytes(whole)
    shutil.rmtree(data / "fake")
    other = _corpus(tmp_path / "other.jsonl", 31)
    collect(data, _FAKE, _settings(other), subject=_subject())
    with pytest.raises(RunMismatch, match="is not the corpus of"):
        merge(data, "fake")


def test_parts_are_collected_beside_each_other(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "corpus.jsonl", 30)
    data = tmp_path / "data"
    collect_part(data, _FAKE, _settings(corpus), Part(1, 2), subject=_subject())
    with locked(data / "fake"), locked(data / "fake.parts" / "1-of-2"):
        collect_part(data, _FAKE, _settings(corpus), Part(2, 2), subject=_subject())
    with (
        locked(data / "fake.parts" / "2-of-2"),
        pytest.raises(RunLocked, match="another process"),
    ):
        collect_part(data, _FAKE, _settings(corpus), Part(2, 2), subject=_subject())


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "1/0", "-1/3", "a/b", "1/3/5", ""])
def test_what_names_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write 2/8"):
        Part.parse(text)
