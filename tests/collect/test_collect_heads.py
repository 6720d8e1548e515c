"""Attention heads as units: what is kept of them, and a head that was planted."""

from pathlib import Path

import numpy as np
import planted_head
import pytest
import torch
import transformers
from commands import in_process
from example_corpus import first_documents

from neuron_explainer import workspace
from neuron_explainer.collect import parts
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import SubjectError
from neuron_explainer.interchange.openai_export import export_records
from neuron_explainer.interchange.openai_import import import_records
from neuron_explainer.interchange.source import HEADS
from neuron_explainer.record_set import RecordSet
from neuron_explainer.splits import assign_splits
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.workspace import Workspace

SITE = "blocks.0.attn.hook_pattern"


@pytest.fixture(scope="module")
def subject(tiny: Path) -> HuggingFaceSubject:
    """The model with a planted head."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "model")
    return HuggingFaceSubject(planted_head.build(), tokenizer)


def _settings(folder: Path, tiny: Path, **changes: object) -> CollectSettings:
    corpus = folder / "some.jsonl"
    corpus.write_bytes(first_documents(tiny, 40))
    values = {"corpus": str(corpus), "sites": (SITE,), "excerpt_tokens": 12, "minimum_tokens": 4}
    return CollectSettings(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def collected(
    tiny: Path, subject: HuggingFaceSubject, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """A workspace with the planted model's heads."""
    here = workspace.init(tmp_path_factory.mktemp("heads") / "workspace")
    model = SubjectSettings(model="planted")
    collect(here.data, model, _settings(here.root, tiny), subject=subject)
    return here


def _records(data: Path) -> RecordSet:
    return RecordSet(data, "planted", SITE)


def test_top_pairs_are_the_strongest_of_each_excerpt(
    collected: Workspace, subject: HuggingFaceSubject
) -> None:
    records = _records(collected.data)
    corpus = records.corpus
    best: list[tuple[float, int]] = []
    every: list[float] = []
    for sequence in range(len(corpus)):
        seen: list[torch.Tensor] = []
        tokens = torch.from_numpy(corpus.token_ids(sequence).astype(np.int64))[None]
        subject.observe_pairs(tokens, {SITE: seen.append})
        norms, scored = seen[0][0, 1].numpy(), corpus.stimulus(sequence).scored
        allowed = np.tril(np.outer(scored, scored))
        assert not allowed[0].any()
        assert not allowed[:, 0].any()
        best.append((float(norms[allowed].max()), -sequence))
        every += norms[allowed].tolist()
    neuron = records.neuron(1)
    top = neuron.of_kind("top")
    expected = sorted(best, reverse=True)[:20]
    np.testing.assert_allclose([record.maximum for record in top], [b[0] for b in expected], 1e-5)
    assert len({record.sequence for record in top}) == 20
    assert neuron.statistics is not None
    assert neuron.statistics.tokens == len(every)
    assert neuron.statistics.maximum == pytest.approx(max(every), rel=1e-5)
    assert neuron.statistics.mean == pytest.approx(np.mean(every), rel=1e-4)


def test_records_hold_one_pair_that_counts_and_are_split_as_others(collected: Workspace) -> None:
    for index in range(2):
        neuron = _records(collected.data).neuron(index)
        splits = assign_splits(20, 20)
        for kind in ("top", "random"):
            held = neuron.of_kind(kind)
            assert len(held) == 20
            for split, places in splits.items():
                own = [place for place, record in enumerate(held) if record.split == split]
                assert own == list(places[kind == "random"])
        for record in neuron.records:
            assert record.pair is not None
            query, key = record.pair
            assert key <= query
            assert record.scored[[query, key]].all()
            assert np.flatnonzero(record.activations).tolist() in ([query], [])
            assert record.stimulus.pair == record.pair


def test_a_planted_previous_token_head_is_found(collected: Workspace) -> None:
    neuron = _records(collected.data).neuron(0)
    pairs = [record.pair for record in neuron.of_kind("top")]
    assert all(pair is not None and pair[1] == pair[0] - 1 for pair in pairs)
    others = [record.pair for record in neuron.of_kind("random")]
    assert not all(pair is not None and pair[1] == pair[0] - 1 for pair in others)


def test_what_is_kept_does_not_depend_on_the_batches(
    collected: Workspace, tiny: Path, subject: HuggingFaceSubject, tmp_path: Path
) -> None:
    model = SubjectSettings(model="planted")
    collect(tmp_path, model, _settings(tmp_path, tiny, batch=7), subject=subject)
    for head in range(2):
        one, other = _records(collected.data).neuron(head), _records(tmp_path).neuron(head)
        random = [(r.sequence, r.pair, r.split) for r in one.of_kind("random")]
        assert random == [(r.sequence, r.pair, r.split) for r in other.of_kind("random")]


def test_all_pairs_of_a_text_are_kept_on_request_and_exported(
    collected: Workspace, tiny: Path, subject: HuggingFaceSubject, tmp_path: Path
) -> None:
    model = SubjectSettings(model="planted")
    settings = _settings(tmp_path, tiny, batch=7, pairs=True)
    collect(tmp_path, model, settings, subject=subject)
    records = _records(tmp_path)
    rows = records.folder.read_all("pairs").to_pylist()
    assert len(rows) == len(records.folder.read_all("records"))
    for row in rows[::7]:
        seen: list[torch.Tensor] = []
        tokens = torch.from_numpy(records.corpus.token_ids(row["sequence"]).astype(np.int64))[None]
        subject.observe_pairs(tokens, {SITE: seen.append})
        norms = seen[0][0, row["neuron"]].numpy()
        expected = norms[np.tril_indices(tokens.shape[1])]
        np.testing.assert_allclose(row["activations"], expected, rtol=1e-4, atol=1e-6)
    for head in range(2):
        own, without = records.neuron(head), _records(collected.data).neuron(head)
        assert [r.pair for r in own.records] == [r.pair for r in without.records]
    export_records(tmp_path, "planted", tmp_path / "out")
    done = import_records(
        tmp_path / "out/collated-activations", tmp_path / "back", "x", sites=HEADS
    )
    assert (done.imported, done.failures) == (2, ())
    back = RecordSet(tmp_path / "back", "x", SITE).folder.read_all("pairs").to_pylist()
    assert [row["activations"] for row in back] == [row["activations"] for row in rows]


def test_parts_with_all_pairs_merge_into_the_same_pairs(
    tiny: Path, subject: HuggingFaceSubject, tmp_path: Path
) -> None:
    model, settings = SubjectSettings(model="planted"), _settings(tmp_path, tiny, pairs=True)
    collect(tmp_path / "whole", model, settings, subject=subject)
    for part in ("1/2", "2/2"):
        parts.collect_part(
            tmp_path / "parted", model, settings, parts.Part.parse(part), subject=subject
        )
    parts.merge(tmp_path / "parted", "planted")
    for table in ("records", "pairs"):
        whole, merged = (
            _records(tmp_path / name).folder.read_all(table) for name in ("whole", "parted")
        )
        assert whole.equals(merged)


def test_heads_and_neurons_are_collected_together(
    tiny: Path, subject: HuggingFaceSubject, tmp_path: Path
) -> None:
    sites = (SITE, "blocks.0.mlp.hook_post")
    settings = _settings(tmp_path, tiny, sites=sites)
    done = collect(tmp_path, SubjectSettings(model="planted"), settings, subject=subject)
    assert done.widths == {"blocks.0.mlp.hook_post": 128, SITE: 2}
    again = collect(tmp_path, SubjectSettings(model="planted"), settings, subject=subject)
    assert set(again.skipped) == set(sites)


def test_heads_have_no_negative_side(
    tiny: Path, subject: HuggingFaceSubject, tmp_path: Path
) -> None:
    settings = _settings(tmp_path, tiny, sign="negative")
    with pytest.raises(SubjectError, match="has no negative side: norms are never below 0"):
        collect(tmp_path, SubjectSettings(model="planted"), settings, subject=subject)


def test_a_head_is_shown_with_query_and_key_marked(
    collected: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = in_process(monkeypatch, capsys)
    done = command("show", f"planted/{SITE}/0", "--plain", "--workspace", collected.root)
    assert done.code == 0, done.err
    assert "pairs" in done.out.splitlines()[1]
    assert done.out.count("[query:") == done.out.count("[key:") == 5
    report = command("show", f"planted/{SITE}/0", "--json", "--workspace", collected.root).json()
    records = report["records"]
    assert isinstance(records, list)
    assert all(record["pair"][1] <= record["pair"][0] for record in records)


def test_an_explainer_of_neurons_does_not_explain_heads(
    collected: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = in_process(monkeypatch, capsys)
    here = ("--workspace", collected.root)
    done = command("explain", "--subject", "planted", "--site", SITE, *here)
    assert done.code == 2
    assert "token-lookup explains neurons; the units of" in done.err
