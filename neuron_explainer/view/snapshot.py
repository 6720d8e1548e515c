"""Folders as their manifests said they were: parsed once, however many shards are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from neuron_explainer.record_set import RecordSet
from neuron_explainer.store import Folder, Shard


class Snapshot(Folder):
    """A folder with its manifest as it was when it was looked at, which nobody may change.

    Raises as `Folder.manifest` when it is made.
    """

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder.path, folder.rebuild)
        self.seen = self.written()  # before it is read: better too old than too new
        self._seen = folder.manifest()
        self._shards: dict[str, list[tuple[Shard, str]]] = {}

    def manifest(self) -> dict[str, Any]:
        """What the manifest held."""
        return self._seen

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that it was made with."""
        found: Mapping[str, Any] = self._seen["config"]
        return found

    def shards(self, name: str) -> list[tuple[Shard, str]]:
        """The finished shards of table `name`, in order of neurons."""
        if name not in self._shards:
            self._shards[name] = super().shards(name)
        return self._shards[name]

    def read_neurons(
        self, name: str, neurons: Sequence[int], columns: list[str] | None = None
    ) -> pa.Table | None:
        """As in every folder; files without a row, as most of failures, are not opened."""
        listed = self._seen["shards"]
        if not any(listed[file].get("rows") for _, file in self.shards(name)):
            return None
        return super().read_neurons(name, neurons, columns)

    def written(self) -> tuple[int, int, int] | None:
        """What is another after the manifest was written anew; None where it is gone."""
        try:
            found = (self.path / "manifest.json").stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    @property
    def current(self) -> bool:
        """Whether the manifest is still the one that was looked at."""
        return self.written() == self.seen


@dataclass(frozen=True, eq=False)
class SeenRecords(RecordSet):
    """A record set as its manifest was at the first look."""

    @cached_property
    def folder(self) -> Snapshot:
        """The folder with this site's shards. Raises as `Folder.manifest`."""
        return Snapshot(super().folder)
