"""Records of what the command line can name: experts, sites by hand, other types of weights."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from commands import Command, in_process
from example_corpus import first_documents

from neuron_explainer import workspace
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SubjectSettings
from neuron_explainer.record_set import RecordSet, collected_sites
from neuron_explainer.subjects.huggingface import HuggingFaceSubject


@pytest.fixture
def texts(tiny: Path, tmp_path: Path) -> Path:
    """A small corpus."""
    path = tmp_path / "texts.jsonl"
    path.write_bytes(first_documents(tiny, 20))
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


def test_every_expert_of_a_layer_has_records_and_logit_effects(
    tiny: Path, tmp_path: Path, texts: Path
) -> None:
    config, settings, _ = tiny_models.MODELS["mixtral"]
    model = tiny_models.build(config, settings)
    subject = HuggingFaceSubject(model, tiny_models.tokenizer(tiny))
    chosen = CollectSettings(corpus=str(texts), layers="1", excerpt_tokens=16)
    collect(tmp_path / "data", SubjectSettings(model="moe"), chosen, subject=subject)
    known = collected_sites(tmp_path / "data", "moe")
    assert list(known) == [f"blocks.1.mlp.experts.{expert}.hook_post" for expert in range(4)]
    densities = []
    for site in known:
        neuron = RecordSet(tmp_path / "data", "moe", site).neuron(0)
        assert neuron.promoted
        assert neuron.statistics is not None
        assert neuron.statistics.density is not None
        densities.append(neuron.statistics.density)
        silent = [np.mean(record.activations == 0) for record in neuron.records]
        assert max(silent) > 0.2  # tokens that were sent to others
    assert 0 < min(densities) < 0.5


def test_a_site_named_by_hand_holds_the_records_of_its_module(
    tiny: Path, tmp_path: Path, texts: Path, command: Command
) -> None:
    here = workspace.init(tmp_path / "workspace")
    common = ("collect", "--subject", tiny / "model", "--corpus", texts, "--name", "tiny")
    where = ("--workspace", here.root)
    named = "blocks.*.hook_odd=transformer.h.*.mlp.c_proj:input"
    assert command(*common, "--layer", 1, *where).code == 0
    done = command(*common, "--module", named, "--site", "blocks.1.hook_odd", *where)
    assert done.code == 0, done.err
    known, odd = (
        RecordSet(here.data, "tiny", site)
        for site in ("blocks.1.mlp.hook_post", "blocks.1.hook_odd")
    )
    assert odd.width == known.width == 512
    for index in (0, 511):
        one, other = known.neuron(index), odd.neuron(index)
        assert other.promoted is None
        for record, same in zip(one.records, other.records, strict=True):
            np.testing.assert_array_equal(record.activations, same.activations)
    assert odd.folder.manifest()["config"]["subject"]["by_hand"] == [named]
    assert "by_hand" not in known.folder.manifest()["config"]["subject"]


def test_the_type_of_the_weights_is_part_of_a_record_set(
    tiny: Path, tmp_path: Path, texts: Path, command: Command
) -> None:
    here = workspace.init(tmp_path / "workspace")
    common = ("collect", "--subject", tiny / "model", "--corpus", texts, "--layer", 0)
    where = ("--workspace", here.root)
    assert command(*common, "--dtype", "bfloat16", *where).code == 0
    manifest = RecordSet(here.data, "model", "blocks.0.mlp.hook_post").folder.manifest()
    assert manifest["config"]["subject"]["dtype"] == "bfloat16"
    assert command(*common, *where).code == 2
