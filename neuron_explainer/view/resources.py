"""The resources of the contract as bytes, for the server and for the files of a static site.

The catalog is read again whenever the list of what there is is asked for, and whenever a manifest
that a resource is read from was written anew.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from neuron_explainer import __version__
from neuron_explainer.view.catalog import Catalog, read_catalog
from neuron_explainer.view.columns import (
    column_keys,
    column_resource,
    columns_resource,
    neurons_of,
)
from neuron_explainer.view.contract import (
    BLOCK,
    BLOCKS_PER_FOLDER,
    FORMAT,
    NEURONS_PER_FOLDER,
    Unavailable,
    encode,
    reading,
)
from neuron_explainer.view.entries import SiteEntry
from neuron_explainer.view.index_cache import index_for
from neuron_explainer.view.neuron import neuron_resource
from neuron_explainer.view.rows import rows_resource
from neuron_explainer.view.search import SearchIndex
from neuron_explainer.view.summary import summary_resource
from neuron_explainer.view.words import buckets_for
from neuron_explainer.workspace import Workspace

_REMEMBERED = 1 << 24  # bytes of the larger resources


@dataclass(eq=False)
class _Site:
    """A site as it was when its entry was read, with what is computed of it once."""

    entry: SiteEntry
    chosen: Sequence[int] | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _neurons: NDArray[np.int32] | None = None
    _index: SearchIndex | None = None

    @property
    def neurons(self) -> NDArray[np.int32]:
        with self.lock:
            if self._neurons is None:
                with reading(self.entry.folder.rebuild):
                    self._neurons = neurons_of(self.entry, self.chosen)
            return self._neurons

    @property
    def index(self) -> SearchIndex:
        neurons = self.neurons
        with self.lock:
            if self._index is None:
                self._index = index_for(self.entry, neurons)
            return self._index


class Resources:
    """What a workspace holds, or what belongs to the run `only`, resource by resource.

    Of the neurons all that were collected are there, or those among `neurons`.

    Every method gives the bytes of a resource and raises Unavailable where it cannot be had. Many
    threads may ask at a time.
    """

    def __init__(
        self,
        workspace: Workspace,
        only: str | None = None,
        neurons: Sequence[int] | None = None,
    ) -> None:
        self._source, self._only, self._chosen = workspace, only, neurons
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._sites: dict[str, _Site] = {}
        self._large: OrderedDict[tuple[str, ...], bytes] = OrderedDict()

    def catalog(self, anew: bool = False) -> Catalog:
        """What there is; `anew`: now."""
        with self._lock:
            if self._catalog is None or anew:
                self._catalog = read_catalog(self._source, self._only)
                before, self._sites = self._sites, {}
                for key, entry in self._catalog.sites.items():
                    old = before.get(key)
                    same = old is not None and old.entry.same_as(entry)
                    self._sites[key] = (
                        old if old is not None and same else _Site(entry, self._chosen)
                    )
                if any(site is not before.get(key) for key, site in self._sites.items()):
                    self._large.clear()
            return self._catalog

    def workspace(self, mode: str, live: dict[str, bool]) -> bytes:
        """workspace.json."""
        about = {"format": FORMAT, "mode": mode, "package_version": __version__, "live": live}
        listed = self.catalog(anew=True).resource()
        if self._chosen is not None:
            for key, site in listed["sites"].items():
                site["neurons"] = len(self._site(key).neurons)
        return encode(about | listed)

    def entry(self, site: str) -> SiteEntry:
        """The site of this key, as its files are now. Raises Unavailable where there is none."""
        return self._site(site).entry

    def summary(self, site: str) -> bytes:
        """SITE/summary.json."""
        found = self._site(site)
        return self._once((site, "summary"), lambda: encode(summary_resource(found.entry)))

    def columns(self, site: str) -> bytes:
        """SITE/columns.json."""
        found = self._site(site)
        return encode(columns_resource(found.entry, found.neurons))

    def column(self, site: str, column: str) -> bytes:
        """SITE/columns/COLUMN.json."""
        found = self._site(site)
        key = (site, "columns", column)
        return self._once(key, lambda: encode(column_resource(found.entry, found.neurons, column)))

    def rows(self, site: str, folder: int, block: int) -> bytes:
        """SITE/rows/FOLDER/BLOCK.json."""
        found = self._site(site)
        neurons = found.neurons[block * BLOCK : (block + 1) * BLOCK].tolist() if block >= 0 else []
        if not neurons or folder != block // BLOCKS_PER_FOLDER:
            raise Unavailable(404, "there are no such rows", None)
        return encode(rows_resource(found.entry, neurons))

    def search(self, site: str, bucket: int) -> bytes:
        """SITE/search/BUCKET.json."""
        return encode(self._site(site).index.bucket(bucket))

    def neuron(self, site: str, folder: int, neuron: int) -> bytes:
        """SITE/neurons/FOLDER/NEURON.json."""
        found = self._site(site)
        return encode(neuron_resource(found.entry, found.neurons, folder, neuron))

    def paths(self, site: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Every resource of a site with what makes it; the index first, the neurons last."""
        found = self._site(site)
        yield f"{site}/summary.json", partial(self.summary, site)
        yield f"{site}/columns.json", partial(self.columns, site)
        for key in column_keys(found.entry):
            yield f"{site}/columns/{key}.json", partial(self.column, site, key)
        for block in range(-(-len(found.neurons) // BLOCK)):
            folder = block // BLOCKS_PER_FOLDER
            yield f"{site}/rows/{folder}/{block}.json", partial(self.rows, site, folder, block)
        for bucket in range(buckets_for(len(found.neurons))):
            yield f"{site}/search/{bucket}.json", partial(self.search, site, bucket)
        for neuron in found.neurons.tolist():
            folder = neuron // NEURONS_PER_FOLDER
            path = f"{site}/neurons/{folder}/{neuron}.json"
            yield path, partial(self.neuron, site, folder, neuron)

    def _site(self, key: str) -> _Site:
        self.catalog()
        found = self._sites.get(key)
        if found is None or not found.entry.current:
            self.catalog(anew=True)
            found = self._sites.get(key)
        if found is None:
            message = "there is no such site in this workspace"
            raise Unavailable(404, message, "neuron-explainer collect")
        _ = found.entry.contained
        return found

    def _once(self, key: tuple[str, ...], make: Callable[[], bytes]) -> bytes:
        """What was made before under this key, else what `make` gives."""
        with self._lock:
            if key in self._large:
                self._large.move_to_end(key)
                return self._large[key]
        made = make()
        with self._lock:
            self._large[key] = made
            while len(self._large) > 1 and sum(map(len, self._large.values())) > _REMEMBERED:
                self._large.popitem(last=False)
        return made
