"""Workspaces and the servers of them, for all of the viewer's tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from made_workspace import MadeWorkspace

from neuron_explainer.view.resources import Resources
from neuron_explainer.view.security import Access
from neuron_explainer.view.server import app
from neuron_explainer.view.serving import listen, server_of
from neuron_explainer.view.static import write_site
from neuron_explainer.workspace import Workspace


@contextmanager
def serving(made: FastAPI) -> Iterator[str]:
    """The address, with a slash at its end, at which an app is served as `view` does."""
    listening = listen(Access(), 0)
    server = server_of(made)
    thread = threading.Thread(target=server.run, args=([listening.socket],), daemon=True)
    thread.start()
    yield listening.url
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def served(small_workspace: Workspace) -> Iterator[str]:
    """The small workspace, as `view` serves it."""
    with serving(app(Resources(small_workspace))) as base:
        yield base


@pytest.fixture(scope="session")
def static_site(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small workspace as `publish --site` writes it; few neurons, for time."""
    folder = tmp_path_factory.mktemp("site") / "site"
    write_site(Resources(small_workspace, neurons=range(40)), folder)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeWorkspace:
    """A made workspace of 1,200 neurons in three shards, written. Read it; copy it to write."""
    found = MadeWorkspace(tmp_path_factory.mktemp("made") / "workspace", 1200)
    found.write()
    return found


@pytest.fixture(scope="session")
def big_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A made workspace of 20,000 neurons without simulations, as `view` serves it."""
    root = tmp_path_factory.mktemp("big") / "workspace"
    here = MadeWorkspace(root, 20_000, runs=("made-first",), simulated=False).write()
    with serving(app(Resources(here))) as base:
        yield base
