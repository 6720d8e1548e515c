"""Which of two explanations a person preferred, as a table that `compare --csv` reads.

One file a pair of runs, `scoring/judgements/A~B.csv`, two rows a judgement: what was preferred has
1 and the other 0; a tie is a half each, and 0 each says that neither will do. `explanation` is the
SHA-256 of the text that was judged, so that one written anew is known to be unjudged.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuron_explainer.errors import DataError
from neuron_explainer.record_set import RecordSet
from neuron_explainer.records import NeuronId
from neuron_explainer.store import locked, replace_file
from neuron_explainer.view.catalog import Catalog
from neuron_explainer.view.contract import Unavailable, key_of
from neuron_explainer.view.entries import RunEntry
from neuron_explainer.view.live_worker import Line
from neuron_explainer.workspace import Workspace

FOLDER = "judgements"
Preference = Literal["first", "second", "tie", "neither"]
VALUES: Mapping[Preference, tuple[float, float]] = {
    "first": (1.0, 0.0),
    "second": (0.0, 1.0),
    "tie": (0.5, 0.5),
    "neither": (0.0, 0.0),
}
_MEANING = {values: preferred for preferred, values in VALUES.items()}
_COLUMNS = ("method", "site", "neuron", "explanation", "preferred")
_JOINT = "~"  # is in no key
_CONFLICT = 409
_LARGEST = 64 << 20  # bytes of a table


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which of the explanations of a neuron is preferred, and which texts they were."""

    site: str
    neuron: int
    preferred: Preference
    texts: tuple[str, str]  # digests, of the pair's first run and of its second


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs, in the order of their keys."""

    first: RunEntry
    second: RunEntry

    @classmethod
    def of(cls, one: RunEntry, other: RunEntry) -> "Pair":
        """In the order of their keys. Raises Unavailable for one run twice or two subjects."""
        if one.key == other.key:
            raise Unavailable(422, "a run cannot be judged against itself")
        if one.run.subject != other.run.subject:
            raise Unavailable(422, "these runs explain different subjects")
        first, second = sorted((one, other), key=lambda entry: entry.key)
        return cls(first, second)

    def file(self, workspace: Workspace) -> Path:
        """Where its judgements are; made of keys alone, which are harmless names."""
        return workspace.scoring / FOLDER / f"{self.first.key}{_JOINT}{self.second.key}.csv"

    def texts(self, records: RecordSet, neuron: int) -> tuple[str, str] | None:
        """The digests of both explanations as they are now; None where one is missing."""
        unit = NeuronId(records.subject, records.site, neuron)
        found = [entry.run.explanation(unit) for entry in (self.first, self.second)]
        first, second = ((None if each is None else _digest(each.text)) for each in found)
        return None if first is None or second is None else (first, second)

    def read(self, workspace: Workspace) -> dict[tuple[str, int], Judgement]:
        """Its judgements, by site and neuron. Raises DataError for a table that is damaged."""
        path = self.file(workspace)
        if not path.is_file():
            return {}
        return _judgements(path, self.first.run.name, self.second.run.name)


def save(
    workspace: Workspace,
    pair: Pair,
    records: RecordSet,
    neuron: int,
    preferred: Preference | None,
    first: str,
) -> Line:
    """Keep a judgement in place of an earlier one, or take it back; how many there are.

    `preferred` is relative to `first`, a run's key. Raises Unavailable, DataError, WorkspaceError.
    """
    records.check(neuron)
    texts = pair.texts(records, neuron)
    if texts is None:
        raise Unavailable(_CONFLICT, "this neuron lacks an explanation of one of these runs")
    if preferred in ("first", "second") and first != pair.first.key:
        preferred = "second" if preferred == "first" else "first"
    path = pair.file(workspace)
    with locked(path.parent, wait=True):
        known = pair.read(workspace)
        if preferred is None:
            known.pop((records.site, neuron), None)
        else:
            judged = Judgement(records.site, neuron, preferred, texts)
            known[records.site, neuron] = judged
        replace_file(path, _table(pair, known))
    return {"saved": len(known), "file": f"scoring/{FOLDER}/{path.name}"}


def listed(workspace: Workspace, catalog: Catalog) -> list[Line]:
    """Every judgement of runs that are there, and whether its explanations are as they were."""
    found = []
    for pair in pairs_of(workspace, catalog):
        for judged in pair.read(workspace).values():
            key = key_of(pair.first.run.subject, judged.site)
            entry = catalog.sites.get(key)
            if entry is None:
                continue
            now = pair.texts(entry.records, judged.neuron)
            found.append(
                {
                    "site": key,
                    "neuron": judged.neuron,
                    "first": pair.first.key,
                    "second": pair.second.key,
                    "preferred": judged.preferred,
                    "stale": now != judged.texts,
                }
            )
    return found


def pairs_of(workspace: Workspace, catalog: Catalog) -> Iterator[Pair]:
    """The pairs of runs that are there and have a table of judgements."""
    for path in sorted((workspace.scoring / FOLDER).glob(f"*{_JOINT}*.csv")):
        first, _, second = path.stem.partition(_JOINT)
        if first in catalog.runs and second in catalog.runs:
            yield Pair(catalog.runs[first], catalog.runs[second])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _table(pair: Pair, known: Mapping[tuple[str, int], Judgement]) -> bytes:
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(_COLUMNS)
    names = (pair.first.run.name, pair.second.run.name)
    for judged in sorted(known.values(), key=lambda each: (each.site, each.neuron)):
        values = VALUES[judged.preferred]
        for name, text, value in zip(names, judged.texts, values, strict=True):
            writer.writerow([name, judged.site, judged.neuron, text, f"{value:g}"])
    return made.getvalue().encode("utf-8", "surrogateescape")


def _judgements(path: Path, first: str, second: str) -> dict[tuple[str, int], Judgement]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST >> 20} MB")
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if missing := set(_COLUMNS) - set(reader.fieldnames or ()):
            raise ValueError(f"it has no column '{min(missing)}'")
        rows = list(reader)
        halves: dict[tuple[str, int], dict[str, tuple[str, float]]] = {}
        for row in rows:
            unit = (row["site"], int(row["neuron"]))
            half = halves.setdefault(unit, {})
            if row["method"] in half:
                raise ValueError(f"{row['site']}/{row['neuron']} is there twice")
            half[row["method"]] = (row["explanation"], float(row["preferred"]))
        return {unit: _judgement(unit, half, first, second) for unit, half in halves.items()}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path} is damaged ({reason}) and was left as it is; mend it or move it away"
        ) from error


def _judgement(
    unit: tuple[str, int], half: Mapping[str, tuple[str, float]], first: str, second: str
) -> Judgement:
    (one, mine), (other, theirs) = half[first], half[second]
    return Judgement(*unit, _MEANING[mine, theirs], (one, other))
