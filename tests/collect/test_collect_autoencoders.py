"""The same autoencoder in every format gives the same record sets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command, in_process
from example_corpus import first_documents

from neuron_explainer import workspace
from neuron_explainer.collect.stage import collect
from neuron_explainer.config import CollectSettings, SaeSettings, SubjectSettings
from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.autoencoder import Autoencoder
from neuron_explainer.subjects.sparse_formats import load, save

SITE = "blocks.2.hook_resid_post"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in process."""
    return in_process(monkeypatch, capsys)


@pytest.fixture(scope="module")
def sae(tiny: Path) -> Autoencoder:
    return replace(load(str(tiny / "sae" / f"{SITE}.pt")), site=SITE)


@pytest.fixture(scope="module")
def corpus(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "few.jsonl"
    path.write_bytes(first_documents(tiny, 8))
    return path


def _collected(place: Path, tiny: Path, corpus: Path, sae: SaeSettings) -> dict[str, bytes]:
    subject = SubjectSettings(model=str(tiny / "model"), name="tiny", sae=(sae,))
    collect(place, subject, CollectSettings(corpus=str(corpus)))
    found = place / "tiny" / SITE / "topk"
    return {path.name: path.read_bytes() for path in sorted(found.glob("*.parquet"))}


def test_converting_the_examples_autoencoder_changes_no_record(
    tiny: Path, corpus: Path, sae: Autoencoder, tmp_path: Path
) -> None:
    published = SaeSettings(str(tiny / "sae" / f"{SITE}.pt"), SITE, "topk")
    expected = _collected(tmp_path / "data", tiny, corpus, published)
    assert len(expected) > 1
    save(sae, tmp_path / "topk", "saelens")  # its cfg.json names the site
    assert _collected(tmp_path / "0", tiny, corpus, SaeSettings(str(tmp_path / "topk"))) == expected


def test_formats_without_its_normalisation_cannot_hold_it(sae: Autoencoder, tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=r"sparsify's format has no normalisation.*layer_norm"):
        save(sae, tmp_path / "topk", "sparsify")
    assert not (tmp_path / "topk").exists()


def test_without_normalisation_sparsify_and_saelens_agree(
    tiny: Path, corpus: Path, sae: Autoencoder, tmp_path: Path
) -> None:
    plain = replace(sae, normalisation="none")
    found = []
    for name in ("saelens", "sparsify"):
        save(plain, tmp_path / name / "topk", name)
        chosen = SaeSettings(str(tmp_path / name / "topk"), SITE)
        found.append(_collected(tmp_path / f"data-{name}", tiny, corpus, chosen))
    assert len(found[0]) > 1
    assert found[0] == found[1]


def test_a_configuration_of_its_own_makes_another_record_set(
    tiny: Path, corpus: Path, sae: Autoencoder, tmp_path: Path
) -> None:
    save(sae, tmp_path / "topk", "saelens")
    _collected(tmp_path / "data", tiny, corpus, SaeSettings(str(tmp_path / "topk")))
    manifest = tmp_path / "data" / "tiny" / SITE / "topk" / "manifest.json"
    before = json.loads(manifest.read_bytes())["config"]["sae"]
    save(replace(sae, normalisation="none"), tmp_path / "topk", "saelens")
    _collected(tmp_path / "other", tiny, corpus, SaeSettings(str(tmp_path / "topk")))
    manifest = tmp_path / "other" / "tiny" / SITE / "topk" / "manifest.json"
    assert json.loads(manifest.read_bytes())["config"]["sae"] != before


def test_the_command_takes_a_folder_that_names_its_site(
    command: Command, tiny: Path, corpus: Path, sae: Autoencoder, tmp_path: Path
) -> None:
    workspace.init(tmp_path / "here")
    save(replace(sae, notes=()), tmp_path / "mine.v1", "saelens")
    arguments: list[Any] = [
        *("collect", "--subject", tiny / "model", "--name", "tiny", "--corpus", corpus),
        *("--sae", tmp_path / "mine.v1", "--workspace", tmp_path / "here"),
    ]
    done = command(*arguments, "--site", "blocks.1.hook_resid_post")
    assert done.code == 2
    assert f"was trained on {SITE}, not on blocks.1.hook_resid_post" in done.err
    assert command(*arguments, "--json").json()["sites"] == {f"{SITE}/mine.v1": 1024}
