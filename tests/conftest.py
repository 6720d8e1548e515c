"""What tests share: the embedded example, a small workspace made from it, and the assets."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from example_corpus import first_documents

from neuron_explainer import pipeline, workspace
from neuron_explainer.config import Settings
from neuron_explainer.publish.settings import PublishSettings
from neuron_explainer.publish.stage import publish
from neuron_explainer.runs import Run
from neuron_explainer.subjects.huggingface import HuggingFaceSubject
from neuron_explainer.workspace import Workspace

_DOCUMENTS = 150
_NEURONS = "0-63"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tests are small: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Models and texts that lie beside the checkout, or where NEURON_EXPLAINER_ASSETS says."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "assets"
    folder = Path(os.environ.get("NEURON_EXPLAINER_ASSETS", beside))
    if not folder.is_dir():
        pytest.skip(f"no assets in {folder}: set NEURON_EXPLAINER_ASSETS to their folder")
    return folder


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The embedded example: model, corpus, autoencoder, run.toml."""
    return workspace.shipped() / "data" / "tiny"


@pytest.fixture(scope="session")
def tiny_subject(tiny: Path) -> HuggingFaceSubject:
    """The example's trained model."""
    return HuggingFaceSubject.load(str(tiny / "model"))


@pytest.fixture(scope="session")
def small_settings(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The example's settings, for 64 neurons a site, one layer, the autoencoder and a small corpus.

    All neurons are collected; explained, simulated and scored are the first 64 of each site.
    """
    corpus = tmp_path_factory.mktemp("corpus") / "small.jsonl"
    corpus.write_bytes(first_documents(tiny, _DOCUMENTS))
    example = pipeline.example_settings()
    return replace(
        example,
        collect=replace(example.collect, corpus=str(corpus), layers="0"),
        explain=replace(example.explain, neurons=_NEURONS),
    )


@pytest.fixture(scope="session")
def small_workspace(
    small_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """A workspace in which `small_settings` have run. Read it; copy it to write."""
    made = workspace.init(tmp_path_factory.mktemp("small") / "workspace")
    pipeline.run_all(made, small_settings)
    return made


@pytest.fixture(scope="session")
def published(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that `publish` makes of the small workspace's run. Read it only."""
    folder = tmp_path_factory.mktemp("published") / "dataset"
    run = Run(small_workspace, "tiny-token-lookup")
    publish(run, folder, PublishSettings(license="cc0-1.0"))
    return folder
