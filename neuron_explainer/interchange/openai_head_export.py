"""Record sets of attention heads as the files that `import openai` reads: whole, or not at all."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from neuron_explainer.errors import DataError
from neuron_explainer.interchange.openai import NeuronId
from neuron_explainer.interchange.openai_heads import ActivationRecord, NeuronRecord
from neuron_explainer.interchange.openai_published import between
from neuron_explainer.interchange.sequences import token_text
from neuron_explainer.record_set import Corpus, RecordSet, list_column
from neuron_explainer.store import Shard

_Lists = Mapping[tuple[str, int | None], Sequence[ActivationRecord]]  # by kind and band
_NUMBERS = ("mean", "variance", "skewness", "kurtosis")


def head_records(record_set: RecordSet, shard: Shard) -> Iterator[NeuronRecord]:
    """The heads in `shard`, in order.

    Raises DataError where one pair of each text is all that is there: the files hold every pair,
    and what was not kept is not 0.
    """
    folder = record_set.folder
    whole = between(folder, "pairs", shard)
    if whole is None:
        raise DataError(
            f"{folder.path} holds one pair of each text, and OpenAI's files hold all of them: "
            "collect it anew with --pairs, under another --name"
        )
    layer = int(record_set.site.split(".")[1])
    lists = _lists(whole, record_set.corpus)
    published = between(folder, "published", shard, ["neuron", "bands"])
    bands = {row["neuron"]: row["bands"] for row in published.to_pylist()} if published else {}
    statistics = between(folder, "neurons", shard)
    for row in statistics.to_pylist() if statistics is not None else ():
        head = row["neuron"]
        yield _record(NeuronId(layer, head), row, bands.get(head), lists[head])


def _record(
    identity: NeuronId, statistics: Mapping[str, Any], bands: int | None, lists: _Lists
) -> NeuronRecord:
    boundaries = statistics["quantile_boundaries"]
    quantile = None
    if bands is not None:
        quantile = tuple(tuple(lists.get(("quantile", band), ())) for band in range(bands))
    return NeuronRecord(
        identity,
        tuple(lists.get(("random", None), ())),
        quantile,
        None if boundaries is None else tuple(boundaries),
        most_positive_activation_records=tuple(lists.get(("top", None), ())),
        **{name: statistics[name] for name in _NUMBERS},
    )


def _lists(whole: pa.Table, corpus: Corpus) -> Mapping[int, _Lists]:
    """Of each head its records by kind and band, in stored order, which is that of rank."""
    offsets, values = list_column(whole["activations"])
    columns = ("neuron", "kind", "band", "sequence")
    found: dict[int, dict[tuple[str, int | None], list[ActivationRecord]]]
    found = defaultdict(lambda: defaultdict(list))
    for at, row in enumerate(whole.select(columns).to_pylist()):
        tokens = tuple(map(token_text, corpus.stimulus(row["sequence"]).tokens))
        record = ActivationRecord(tokens, tuple(values[offsets[at] : offsets[at + 1]].tolist()))
        found[row["neuron"]][row["kind"], row["band"]].append(record)
    return found
