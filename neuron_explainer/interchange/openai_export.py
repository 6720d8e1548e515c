"""Runs and record sets as the files that OpenAI's tools read."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuron_explainer.errors import ConfigError, DataError
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.interchange import openai
from neuron_explainer.interchange.openai_head_export import head_records
from neuron_explainer.interchange.openai_heads import NeuronRecord as HeadRecord
from neuron_explainer.interchange.openai_published import between, published_results
from neuron_explainer.interchange.sequences import token_text
from neuron_explainer.record_set import RecordSet, list_column
from neuron_explainer.records import FloatArray, Kind, NeuronRecord, Record, Split
from neuron_explainer.runs import Run
from neuron_explainer.store import Folder, Shard, replace_file
from neuron_explainer.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written."""

    to: Path
    records: int  # files
    explanations: int  # files

    @property
    def written(self) -> int:
        """All files."""
        return self.records + self.explanations


def export_records(data: Path, name: str, to: Path) -> ExportResult:
    """All record sets `data/<name>/blocks.*` as `{to}/collated-activations/{layer}/{neuron}.json`.

    What `import_records` made comes out as it went in. Raises DataError when there are none.
    """
    sites = [
        manifest.parent.relative_to(data / name).as_posix()
        for manifest in sorted((data / name).glob("blocks.*/**/manifest.json"))
    ]
    if not sites:
        raise DataError(f"{data / name} holds no record sets: collect or import some")
    folders = _folders(to, sites)
    written = sum(_write_records(RecordSet(data, name, site), folders[site]) for site in sites)
    return ExportResult(to, written, 0)


def export_run(
    root: Path, run: str, simulator: str, to: Path, all_neurons: bool = False
) -> ExportResult:
    """Run `run` of the workspace at `root` with the simulations of one simulator.

    Writes `{to}/explanations/{layer}/{neuron}.jsonl` and the records of the run's neurons, or of
    all neurons of its sites.
    What `import_explanations` made comes out as it went in, without records: it had none beside.
    Raises DataError when there is no such run or the simulator did not simulate it, ConfigError for
    a run over attention heads.
    """
    source = Run(Workspace(root), run)
    source.require()
    if any(map(is_pattern, source.sites())):
        raise ConfigError(
            f"run '{run}' explains attention heads, and explanation files are of neurons: write "
            f"its records alone with export openai {source.subject} --records"
        )
    scoring = source.simulations(simulator)
    scoring.manifest()  # raises when there is none
    folders = _folders(to, source.sites())
    records = explanations = 0
    for site, folder in folders.items():
        record_set = RecordSet(source.workspace.data, source.subject, site)
        if scoring.shards(f"{site}/published"):
            results = published_results(source, scoring, site, record_set.corpus)
        else:
            results = _simulated(source, scoring, record_set)
            shards = [shard for shard, _ in source.folder.shards(f"{site}/explanations")]
            records += _write_records(record_set, folder, None if all_neurons else shards)
        for result in results:
            _write(
                folder / "explanations", result.neuron_id, ".jsonl", openai.dumps(result) + b"\n"
            )
            explanations += 1
    return ExportResult(to, records, explanations)


def _layer(site: str) -> int:
    return int(site.split(".")[1])


def _folders(to: Path, sites: Sequence[str]) -> dict[str, Path]:
    """Where each site goes: all to `to`, unless two would write the same files."""
    layers = Counter(map(_layer, sites))
    if max(layers.values(), default=0) > 1:
        return {site: to / site.replace("/", "__") for site in sites}
    return dict.fromkeys(sites, to)


def _write(folder: Path, neuron: openai.NeuronId, suffix: str, content: bytes) -> None:
    path = folder / str(neuron.layer_index) / f"{neuron.neuron_index}{suffix}"
    replace_file(path, content, synced=False)


def _write_records(record_set: RecordSet, folder: Path, only: Sequence[Shard] | None = None) -> int:
    """Write the neurons in `only`, by default all. Returns how many there were."""
    written = 0
    for shard in _overlaps([held for held, _ in record_set.folder.shards("records")], only):
        for record in _records_of(record_set, shard):
            content = openai.dumps(record)
            _write(folder / "collated-activations", record.neuron_id, ".json", content)
            written += 1
    return written


def _overlaps(held: Sequence[Shard], only: Sequence[Shard] | None) -> list[Shard]:
    """The parts of the shards `held` that are in `only`, in order."""
    if only is None:
        return list(held)
    parts = (
        Shard(max(one.start, other.start), min(one.stop, other.stop))
        for one in held
        for other in only
    )
    return [part for part in parts if part.start < part.stop]


def _records_of(record_set: RecordSet, shard: Shard) -> Iterator[openai.NeuronRecord | HeadRecord]:
    if is_pattern(record_set.site):
        yield from head_records(record_set, shard)
        return
    layer = _layer(record_set.site)
    boundaries = _column(record_set.folder, "neurons", "quantile_boundaries", shard)
    bands = _column(record_set.folder, "published", "bands", shard)
    for neuron in record_set.shard(shard, ("records", "neurons")):
        index = neuron.neuron.index
        if neuron.statistics is None and not neuron.records:
            continue  # an import need not hold every neuron
        edges = boundaries.get(index)
        yield _neuron_record(
            neuron,
            openai.NeuronId(layer, index),
            edges,
            bands[index] if index in bands else _bands(edges),
        )


def _column(folder: Folder, table: str, column: str, shard: Shard) -> dict[int, Any]:
    rows = between(folder, table, shard, ["neuron", column])
    return {row["neuron"]: row[column] for row in rows.to_pylist()} if rows is not None else {}


def _bands(boundaries: Sequence[float] | None) -> int | None:
    return None if boundaries is None else len(boundaries) + 1


def _neuron_record(
    neuron: NeuronRecord,
    identity: openai.NeuronId,
    boundaries: Sequence[float] | None,
    bands: int | None,
) -> openai.NeuronRecord:
    quantile = neuron.of_kind("quantile")
    statistics = neuron.statistics
    return openai.NeuronRecord(
        identity,
        tuple(map(_activation_record, neuron.of_kind("random"))),
        None
        if bands is None
        else tuple(
            tuple(_activation_record(record) for record in quantile if record.band == band)
            for band in range(bands)
        ),
        None if boundaries is None else tuple(boundaries),
        statistics.mean if statistics else None,
        statistics.variance if statistics else None,
        statistics.skewness if statistics else None,
        statistics.kurtosis if statistics else None,
        tuple(map(_activation_record, neuron.of_kind("top"))),
    )


def _texts(tokens: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(map(token_text, tokens))


def _activation_record(record: Record) -> openai.ActivationRecord:
    return openai.ActivationRecord(_texts(record.tokens), tuple(record.activations.tolist()))


def _simulated(
    run: Run, scoring: Folder, record_set: RecordSet
) -> Iterator[openai.NeuronSimulationResults]:
    """What one of our simulators made of one of our explanations, on the split valid."""
    site = record_set.site
    for shard, file in run.folder.shards(f"{site}/explanations"):
        explanations = run.explanations(site, file)
        simulations = _simulations(scoring, site, shard)
        for neuron in record_set.shard(shard, ("records", "neurons")):
            index = neuron.neuron.index
            if index in explanations:
                pairs = _pairs(neuron, simulations.get(index, []))
                scored = openai.ScoredExplanation(explanations[index].text, _scored(pairs))
                yield openai.NeuronSimulationResults(
                    openai.NeuronId(_layer(site), index), (scored,)
                )


_Key = tuple[Kind, Split | None, int]  # with the position in the corpus
_Pair = tuple[Record, FloatArray]


def _simulations(
    scoring: Folder, site: str, shard: Shard
) -> dict[int, list[tuple[_Key, FloatArray]]]:
    """Simulations of the split valid by neuron, top records first."""
    table = between(scoring, f"{site}/simulations", shard)
    found: dict[int, list[tuple[_Key, FloatArray]]] = {}
    if table is None:
        return found
    offsets, values = list_column(table["activations"])
    keys = table.select(["neuron", "kind", "split", "sequence"]).to_pylist()
    for row, key in enumerate(keys):
        if key["split"] == "valid":
            predicted = values[offsets[row] : offsets[row + 1]]
            made = ((key["kind"], key["split"], key["sequence"]), predicted)
            found.setdefault(key["neuron"], []).append(made)
    for rows in found.values():
        rows.sort(key=lambda item: item[0][0] != "top")
    return found


def _pairs(neuron: NeuronRecord, simulations: list[tuple[_Key, FloatArray]]) -> list[_Pair]:
    records: dict[_Key, Record] = {
        (record.kind, record.split, record.sequence): record for record in neuron.records
    }
    pairs = []
    for key, predicted in simulations:
        record = records.get(key)
        if record is None or len(record.activations) != len(predicted):
            raise DataError(
                f"a simulation of {neuron.neuron} has no record: the records were collected anew "
                "since; delete the simulations and run neuron-explainer simulate again"
            )
        pairs.append((record, predicted))
    return pairs


def _scored(pairs: Sequence[_Pair]) -> openai.ScoredSimulation:
    sequences = tuple(
        openai.ScoredSequenceSimulation(
            _simulation(record, predicted),
            tuple(record.activations.tolist()),
            _correlation([(record, predicted)]),
        )
        for record, predicted in pairs
    )
    return openai.ScoredSimulation(sequences, _correlation(pairs))


def _simulation(record: Record, predicted: FloatArray) -> openai.SequenceSimulation:
    return openai.SequenceSimulation(
        _texts(record.tokens), tuple(predicted.tolist()), "simulated_normalized_activations"
    )


def _correlation(pairs: Sequence[_Pair]) -> float | None:
    """Pearson's r over the tokens that count in all sequences together; None where undefined.

    Explained variance needs calibrated predictions, which these are not: it stays null.
    """
    if not pairs:
        return None
    truth = np.concatenate([record.activations for record, _ in pairs]).astype(np.float64)
    predicted = np.concatenate([values for _, values in pairs]).astype(np.float64)
    counts = np.concatenate([record.scored for record, _ in pairs]) & np.isfinite(predicted)
    truth, predicted = truth[counts], predicted[counts]
    if not len(truth) or np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return None
    with np.errstate(all="ignore"):
        value = float(np.corrcoef(truth, predicted)[0, 1])
    return value if np.isfinite(value) else None
