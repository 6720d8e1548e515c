"""What did not fit into the prompts of a run, counted: few-shot examples, and what was shown."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from neuron_explainer.llm.base import LLM
from neuron_explainer.store import Folder

_WHAT = {"examples": "few-shot examples", "items": "records, places or tokens"}
_LISTED = 3  # on a line; all of them are in the manifest

Counts = Counter[tuple[str, int, int]]  # neurons by what, how many were shown and dropped


async def note_fits(folder: Folder, sites: Iterable[str], table: str, llm: LLM | None) -> list[str]:
    """Count in the manifest what the prompts of all neurons in `table` showed; say what they lack.

    One line for the examples and one for what was asked about, where anything was dropped. Nothing
    without a model.
    """
    if llm is None or not folder.exists:
        return []
    counts = _counts(folder, sites, table)
    rows = [
        {"what": what, "shown": shown, "dropped": dropped, "neurons": neurons}
        for (what, shown, dropped), neurons in sorted(counts.items())
    ]
    if rows != folder.manifest().get("fits", []):
        folder.update({"fits": rows})
    cut = {
        what: Counter({k: n for k, n in counts.items() if k[0] == what and k[2]}) for what in _WHAT
    }
    if not any(cut.values()):
        return []
    context = (await llm.capabilities()).context
    room = "the model's context" if context is None else f"the context of {context}"
    return [
        f"{_WHAT[what]} dropped to fit {room}: {_cuts(found)} neurons"
        for what, found in cut.items()
        if found
    ]


def _counts(folder: Folder, sites: Iterable[str], table: str) -> Counts:
    counts: Counts = Counter()
    for site in sites:
        for _, file in folder.shards(f"{site}/{table}"):
            known = pq.read_schema(folder.path / file).names
            for what in _WHAT:
                columns = ["neuron", what, f"{what}_dropped"]
                if set(columns) <= set(known):
                    counts.update(_of_neurons(folder.read(file, columns), what))
    return counts


def _of_neurons(table: pa.Table, what: str) -> Iterable[tuple[str, int, int]]:
    """Each neuron once, however many rows it has; none that has no prompt."""
    once = table.drop_null().group_by(table.column_names).aggregate([]).to_pylist()
    return ((what, row[what], row[f"{what}_dropped"]) for row in once)


def _cuts(counts: Counts) -> str:
    """Such as "4 → 1 for 510, 4 → 2 for 2"."""
    most = counts.most_common(_LISTED)
    rest = counts.total() - sum(neurons for _, neurons in most)
    parts = [f"{shown + dropped} → {shown} for {n:,}" for (_, shown, dropped), n in most]
    return ", ".join([*parts, *([f"others for {rest:,}"] if rest else [])])
