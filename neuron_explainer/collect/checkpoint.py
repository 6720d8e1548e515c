"""The state of a pass over a corpus on disk, so that a killed pass goes on where it was.

One uncompressed .npz: `about`, a JSON object that says of which pass it is and how many batches it
has seen, and every collector's tensors under its site's name. It is replaced as a whole, so
that beside a pass lies one state, and for a moment a second one.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor

from neuron_explainer.collect.state import Mergeable
from neuron_explainer.store import replacing

STATE_VERSION = 2  # to be raised with any change of what a collector keeps
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def save_state(path: Path, about: Mapping[str, Any], collectors: Mapping[str, Mergeable]) -> None:
    """Write the state of all collectors to `path`: all of it, or what was there stays."""
    arrays = {"about": np.frombuffer(orjson.dumps(about, option=orjson.OPT_SORT_KEYS), np.uint8)}
    for site, collector in collectors.items():
        for name, tensor in collector.state().items():
            arrays[f"{site}:{name}"] = tensor.cpu().numpy()
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_state(path: Path, site: str) -> dict[str, Tensor]:
    """The state of that site's collector."""
    prefix = f"{site}:"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        names = [name for name in held.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): torch.from_numpy(held[name]) for name in names}


class Checkpoints:
    """The state of one pass, written every so many excerpts.

    `key` is what the pass depends on: a state of another pass is not taken up.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], every: int) -> None:
        """Write at most once in `every` excerpts; never where it is 0."""
        self._path = path
        self._key = orjson.loads(orjson.dumps(key))
        self._every = every
        self._waiting = 0  # excerpts since the last one

    def resume(self, collectors: Mapping[str, Mergeable]) -> int:
        """Put the collectors where the pass was; how many batches it had seen, 0 without any."""
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                about = orjson.loads(held["about"].tobytes())
            if about["pass"] != self._key:
                return 0
            states = {site: load_state(self._path, site) for site in collectors}
        except _UNREADABLE:  # a pass that begins again is no harm
            return 0
        for site, collector in collectors.items():
            collector.restore(states[site])
        return int(about["batches"])

    def due(self, excerpts: int) -> bool:
        """Whether the state is to be written after so many more."""
        return bool(self._every) and self._waiting + excerpts >= self._every

    def seen(self, collectors: Mapping[str, Mergeable], excerpts: int, batches: int) -> None:
        """Take note of `excerpts` more, `batches` in all, and write the state when it is time."""
        if self.due(excerpts):
            save_state(self._path, {"pass": self._key, "batches": batches}, collectors)
            self._waiting = 0
        else:
            self._waiting += excerpts

    def remove(self) -> None:
        """Delete the state: the pass is over and its results are written."""
        self._path.unlink(missing_ok=True)
