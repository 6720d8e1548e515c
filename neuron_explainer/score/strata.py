"""Which excerpts of the corpus each record stands for: its neuron's strata and their sizes."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from neuron_explainer.record_set import RecordSet, rows_of
from neuron_explainer.records import FloatArray
from neuron_explainer.score.population import Floats, Integers, stratum_sizes
from neuron_explainer.store import Shard

QUANTILES = (0.5, 0.9, 0.99, 0.999)  # of an excerpt's maximum; collect's bands lie between them
UNKNOWN_RATES = "sampling rates are not known"


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """The strata of some neurons, by position in `neurons`; the last one holds the top records."""

    neurons: NDArray[np.int32]  # sorted
    boundaries: Floats  # (neurons, quantiles) of an excerpt's maximum; NaN where not known
    sizes: Floats  # (neurons, bands + 1)
    top: Integers  # sorted keys of all top records, in the split or not

    @classmethod
    def read(cls, record_set: RecordSet, shard: Shard) -> Self:
        """Those of the neurons in `shard`."""
        neurons = np.arange(shard.start, shard.stop, dtype=np.int32)
        boundaries = np.full((len(neurons), len(QUANTILES)), np.nan)
        # an import may have no statistics, and its corpus only what was published
        if record_set.corpus.whole and record_set.folder.shards("neurons"):
            table = rows_of(record_set.folder, "neurons", shard, ["neuron", "quantile_boundaries"])
            for neuron, found in zip(
                table["neuron"].to_pylist(), table["quantile_boundaries"].to_pylist(), strict=True
            ):
                if found is not None:
                    boundaries[neuron - shard.start] = found
        records = rows_of(record_set.folder, "records", shard, ["neuron", "kind", "sequence"])
        best = records.filter(pc.equal(records["kind"], "top"))
        owner = best["neuron"].to_numpy() - shard.start
        top = np.sort(_keys(owner, best["sequence"].to_numpy()))
        kept = np.bincount(owner, minlength=len(neurons))
        return cls(neurons, boundaries, stratum_sizes(len(record_set.corpus), QUANTILES, kept), top)

    @property
    def reasons(self) -> tuple[str | None, ...]:
        """Why a neuron's sampling rates are not known (neurons,): it was imported."""
        unknown = np.isnan(self.boundaries[:, 0])
        return tuple(UNKNOWN_RATES if missing else None for missing in unknown.tolist())

    def of(
        self,
        owner: Integers,
        sequence: NDArray[np.integer[Any]],
        maximum: FloatArray,
        band: Integers,
    ) -> Integers:
        """The stratum of each record (records,), -1 for one that is there before.

        `owner` is a position in `neurons`, `maximum` the record's largest activation and `band` its
        quantile band, -1 for a top or random record.
        """
        keys = _keys(owner, sequence)
        inside = (maximum[:, None] > self.boundaries[owner]).sum(axis=1)
        found = np.where(band >= 0, band, inside)
        found[np.isin(keys, self.top)] = len(QUANTILES) + 1
        again = np.ones(len(keys), np.bool_)
        again[np.unique(keys, return_index=True)[1]] = False
        return np.where(again, -1, found)


def _keys(owner: Integers, sequence: NDArray[np.integer[Any]]) -> Integers:
    keys: Integers = (owner.astype(np.int64) << 32) | sequence.astype(np.int64)
    return keys
