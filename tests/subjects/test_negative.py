"""A neuron's negative side as a record set of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_subject import SITE, FakeSubject, collect_from, table_lookup, write_documents

from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.errors import SubjectError
from neuron_explainer.record_set import RecordSet, collected_sites
from neuron_explainer.records import NeuronId
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.subjects.negative import NegativeSubject


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A small one of random tokens."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 50, 10) for _ in range(60)]
    return write_documents(tmp_path / "corpus.jsonl", documents)


def test_the_negative_side_is_a_record_set_of_negated_activations(
    tmp_path: Path, corpus: Path
) -> None:
    values = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    values[7] = 0
    positive, negated = (
        FakeSubject({SITE: table_lookup(table)}) for table in (values, 0.0 - values)
    )
    _, both = collect_from(tmp_path / "data", corpus, positive)
    done, _ = collect_from(tmp_path / "data", corpus, positive, sign="negative")
    _, expected = collect_from(tmp_path / "other", corpus, negated)
    site = f"{SITE}.negative"
    assert list(done.widths) == [site]
    assert list(collected_sites(tmp_path / "data", "fake")) == [SITE, site]
    found = RecordSet(tmp_path / "data", "fake", site)
    for index in range(4):
        one, other = found.neuron(index), expected.neuron(index)
        assert one.neuron == NeuronId.parse(f"fake/{site}/{index}")
        assert [record.sequence for record in one.records] == [
            record.sequence for record in other.records
        ]
        for record, same in zip(one.records, other.records, strict=True):
            np.testing.assert_array_equal(record.activations, same.activations)
            assert not np.signbit(record.activations[record.activations == 0]).any()
        assert one.statistics is not None
        assert both.neuron(index).statistics is not None
    assert found.folder.manifest()["config"]["sign"] == "negative"
    assert "sign" not in both.folder.manifest()["config"]
    assert found.folder.rebuild.endswith("collect --subject fake --layer 0 --sign negative")


def test_what_the_negative_side_writes_is_negated(tiny_subject: HuggingFaceSubject) -> None:
    negative = NegativeSubject(tiny_subject)
    site = "blocks.1.mlp.hook_post"
    rows = negative.writes(f"{site}.negative", slice(3))
    other = tiny_subject.writes(site, slice(3))
    assert rows is not None
    assert other is not None
    assert torch.equal(rows, -other)
    assert torch.equal(negative.unembed(rows), -tiny_subject.unembed(other))
    assert negative.writes("blocks.1.mlp.hook_pre.negative", slice(3)) is None


def test_latents_have_no_negative_side(tmp_path: Path, corpus: Path) -> None:
    site = f"{SITE}/sae"
    subject = FakeSubject({site: table_lookup(np.ones((50, 4), np.float32))})
    settings = CollectSettings(corpus=str(corpus), sites=(site,), sign="negative")
    with pytest.raises(SubjectError, match="has no negative side: latents are never below 0"):
        collect(tmp_path / "data", SubjectSettings(model="fake"), settings, subject=subject)
