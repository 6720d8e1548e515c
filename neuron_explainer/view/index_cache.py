"""The index of words kept beside a workspace, so that it is made once and not at every start.

It lies in `.cache/view/`, which may be deleted at any time; where it cannot be written it is made
again when it is needed.
"""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer import __version__
from neuron_explainer.errors import NeuronExplainerError
from neuron_explainer.store import Folder, locked
from neuron_explainer.view.contract import Unavailable
from neuron_explainer.view.entries import SiteEntry, require_contained
from neuron_explainer.view.search import SCHEMA, SearchIndex, build_index
from neuron_explainer.view.words import buckets_for

_FILE = "words.parquet"


def index_for(site: SiteEntry, neurons: NDArray[np.int32]) -> SearchIndex:
    """The index of a site: what was kept, where it is of the same files. Raises Unavailable."""
    folder = Folder(site.root / ".cache" / "view" / site.key)
    made_of = {"inputs": _inputs(site, neurons), "package_version": __version__}
    kept = _kept(folder, site.root, made_of)
    if kept is not None:
        return SearchIndex(kept, buckets_for(len(neurons)))
    made = build_index(site, neurons)
    with suppress(NeuronExplainerError, Unavailable, OSError):
        _keep(folder, site.root, made_of, made)
    return made


def _inputs(site: SiteEntry, neurons: NDArray[np.int32]) -> str:
    """A hash over everything that the index is made of."""
    digest = hashlib.sha256(neurons.tobytes())
    for folder in (site.folder, *(run.folder for run in site.runs)):
        digest.update(folder.digest().encode())
    return digest.hexdigest()


def _kept(folder: Folder, root: Path, made_of: dict[str, str]) -> pa.Table | None:
    with suppress(NeuronExplainerError, Unavailable, OSError):
        require_contained(root, folder.path)
        if folder.exists and folder.manifest()["config"] == made_of:
            table = folder.read(_FILE)
            return table.cast(SCHEMA) if table.column_names == SCHEMA.names else None
    return None


def _keep(folder: Folder, root: Path, made_of: dict[str, str], made: SearchIndex) -> None:
    require_contained(root, folder.path)
    with locked(folder.path):
        try:
            folder.open(made_of)
        except NeuronExplainerError:
            shutil.rmtree(folder.path)
            folder.open(made_of)
        folder.write({_FILE: made.table})
