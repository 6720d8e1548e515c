"""The tokens at which neurons are most active, from their top records."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from neuron_explainer.record_set import Corpus, list_column
from neuron_explainer.view.contract import token_text
from neuron_explainer.view.entries import SiteEntry

MOST = 6  # tokens a neuron
COLUMNS = ["neuron", "kind", "sequence", "activations"]


def strongest_of(site: SiteEntry, neurons: Sequence[int]) -> dict[int, list[str]]:
    """The strongest tokens of some neurons, as `strongest_in`."""
    table = site.folder.read_neurons("records", neurons, COLUMNS)
    return {} if table is None else strongest_in(table, site.records.corpus)


def strongest_in(records: pa.Table, corpus: Corpus) -> dict[int, list[str]]:
    """By neuron, the distinct tokens at the maxima of its top records, strongest first.

    Of an attention head they are the tokens of queries. A neuron that is nowhere above 0 has none.
    """
    top = records.filter(pc.equal(records["kind"], "top"))
    if not len(top):
        return {}
    sequences = top["sequence"].to_numpy()
    position, peak = _peaks(*list_column(top["activations"]), sequences, corpus)
    active = peak > 0
    neuron = top["neuron"].to_numpy()[active].astype(np.int64)
    token = corpus.tokens_at(sequences[active], position[active]).astype(np.int64)
    order = np.lexsort((-peak[active], neuron))
    neuron, token = neuron[order], token[order]
    first = np.sort(np.unique(neuron << 32 | token, return_index=True)[1])
    found: dict[int, list[str]] = {}
    names = corpus.vocabulary[0]
    for who, what in zip(neuron[first].tolist(), token[first].tolist(), strict=True):
        listed = found.setdefault(who, [])
        if len(listed) < MOST:
            listed.append(token_text(names[what]))
    return found


def _peaks(
    offsets: NDArray[np.int64],
    values: NDArray[np.float32],
    sequences: NDArray[np.int32],
    corpus: Corpus,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where each record is largest among the positions that count, and how large (records,)."""
    lengths = np.diff(offsets)
    columns = np.arange(int(lengths.max(initial=0)))
    padded = np.full((len(lengths), len(columns)), -np.inf, np.float32)
    padded[columns < lengths[:, None]] = np.nan_to_num(values, nan=-np.inf)
    if corpus.excludes_first and len(columns):
        padded[:, 0] = -np.inf
    rows = np.arange(len(lengths))
    special = corpus.vocabulary[1]
    while True:  # seldom more than once: special tokens are mostly the first
        place = padded.argmax(axis=1) if len(columns) else np.zeros(len(rows), np.int64)
        peak = padded[rows, place] if len(columns) else np.full(len(rows), -np.inf, np.float32)
        wrong = np.isfinite(peak) & special[corpus.tokens_at(sequences, place)]
        if not wrong.any():
            return place, peak
        padded[rows[wrong], place[wrong]] = -np.inf
