"""OpenAI's published records and explanations, taken into a workspace without loss.

`import_records` makes record sets, `import_explanations` a run with its simulations and the record
sets that they are scored on.
"""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from neuron_explainer.errors import ConfigError, DataError, NeuronFailure
from neuron_explainer.head_pairs import is_pattern
from neuron_explainer.interchange.import_job import ImportResult, Job, Place, check_name
from neuron_explainer.interchange.openai import NeuronRecord, NeuronSimulationResults, load_as
from neuron_explainer.interchange.openai_head_rows import HeadRecordRows
from neuron_explainer.interchange.openai_heads import NeuronRecord as HeadRecord
from neuron_explainer.interchange.openai_records import AnyRecord, NeuronRecordRows, check_record
from neuron_explainer.interchange.openai_results import IMPORTED, ResultRows, check_results
from neuron_explainer.interchange.source import (
    MLP_NEURONS,
    Source,
    check_identity,
    open_source,
    suffixes,
)
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace

_HEAD = 1 << 16  # bytes
_OTHER_KINDS = {
    b'"average_activations"': "average activations of tokens",
    b'"output_positive"': "tokens connected by weights",
    b'"input_positive"': "tokens connected by weights",
}
_COMMAND = "neuron-explainer import openai"


def import_source(
    workspace: Workspace,
    source: Path,
    name: str,
    neurons: Collection[int] | None = None,
    sites: str = MLP_NEURONS,
    layers: Collection[int] | None = None,
) -> ImportResult:
    """Records or explanations, by the names of the files: `.json` or `.jsonl`.

    Raises DataError when there are none, or both.
    """
    kinds = suffixes(source) & {".json", ".jsonl"}
    if kinds == {".json"}:
        return import_records(source, workspace.data, name, neurons, sites, layers)
    if kinds == {".jsonl"}:
        return import_explanations(source, workspace.root, name, neurons, sites, layers)
    found = "both records and explanations" if kinds else "neither records nor explanations"
    raise DataError(f"{source} holds {found}: give a folder of LAYER/NEURON.json or .jsonl files")


def import_records(
    source: Path,
    data: Path,
    name: str,
    neurons: Collection[int] | None = None,
    sites: str = MLP_NEURONS,
    layers: Collection[int] | None = None,
) -> ImportResult:
    """`{layer}/{neuron}.json` files, or one, as record sets `data/<name>/blocks.*.mlp.hook_post/`.

    Where `sites` are of attention heads, files are read as theirs, with an activation a pair.
    `neurons` are the ones to import of `layers`, by default all; `sites` names the site of
    `{layer}` where the files are not about MLP neurons. In a folder a file at fault
    becomes a Failure; a single one is a DataError. Raises DataError, ConfigError, RunMismatch.
    """
    home = data / check_name(name)
    heads = is_pattern(sites)
    kind: type[AnyRecord] = HeadRecord if heads else NeuronRecord
    load, identify = partial(_record, kind), partial(_identity_of_record, kind)
    files = open_source(source, ".json", load, identify, neurons, sites, layers)
    rows = HeadRecordRows if heads else NeuronRecordRows
    job: Job[AnyRecord] = Job(
        name,
        files,
        _config("records", files),
        _corpus(home),
        {site: {"data": place} for site, place in _record_sets(home, files).items()},
        rows,
        "data",
    )
    return job.run([home])


def import_explanations(
    source: Path,
    root: Path,
    name: str,
    neurons: Collection[int] | None = None,
    sites: str = MLP_NEURONS,
    layers: Collection[int] | None = None,
) -> ImportResult:
    """`{layer}/{neuron}.jsonl` files, or one, as run `name` of the workspace at `root`.

    Makes `explanations/<name>/`, `scoring/<name>/imported/` and the record sets `data/<name>/…`,
    whose records are the simulated sequences with their true activations: the first five as top
    records, the others as random ones, all in split valid. `neurons` and what is raised are as in
    `import_records`; ConfigError also for attention heads, which have no such files.
    """
    if is_pattern(sites):
        raise ConfigError(f"{sites}: explanation files are of neurons, not of attention heads")
    workspace = Workspace(root)
    home = workspace.data / check_name(name)
    files = open_source(source, ".jsonl", _results, _identity_of_results, neurons, sites, layers)
    run = Folder(workspace.explanations / name, _COMMAND)
    scoring = Folder(workspace.scoring / name / IMPORTED, _COMMAND)
    about = {"subject": name, "run": name}
    job = Job(
        name,
        files,
        _config("explanations", files),
        _corpus(home),
        {
            site: {
                "data": place,
                "explanations": Place(run, about | {"explainer": IMPORTED}, f"{site}/"),
                "scoring": Place(scoring, about | {"simulator": IMPORTED}, f"{site}/"),
            }
            for site, place in _record_sets(home, files).items()
        },
        ResultRows,
        "explanations",
    )
    return job.run([home, run.path, scoring.path])


def _config(kind: str, files: Source[Any]) -> dict[str, Any]:
    return {"format": "openai", "kind": kind, "files": files.count, "sha256": files.digest()}


def _corpus(home: Path) -> Place:
    return Place(Folder(home / "corpus", _COMMAND), {"excludes_first": False, "whole": False})


def _record_sets(home: Path, files: Source[Any]) -> dict[str, Place]:
    return {
        site: Place(
            Folder(home / site, _COMMAND),
            # random records are uniform over excerpts, as the data set's description has it
            {"site": site, "random": "uniform"},
            "",
            {"width": files.width(site)},
        )
        for site in files.files
    }


def _record(kind: type[AnyRecord], data: bytes, name: str, layer: int, neuron: int) -> AnyRecord:
    _refuse_other_kinds(data, name)
    record = load_as(kind, data, name)
    check_identity(name, _identity(record), (layer, neuron))
    check_record(record, name)
    return record


def _refuse_other_kinds(data: bytes, name: str) -> None:
    """Raises NeuronFailure for two other kinds of files, which lie under the same names."""
    for key, what in _OTHER_KINDS.items():
        if key in data[:_HEAD]:
            raise NeuronFailure("skipped", f"{name} holds {what}: it is not imported")


def _results(data: bytes, name: str, layer: int, neuron: int) -> NeuronSimulationResults:
    results = load_as(NeuronSimulationResults, data, name)
    check_identity(name, _identity(results), (layer, neuron))
    check_results(results, name)
    return results


def _identity(content: AnyRecord | NeuronSimulationResults) -> tuple[int, int]:
    return content.neuron_id.layer_index, content.neuron_id.neuron_index


def _identity_of_record(kind: type[AnyRecord], data: bytes, name: str) -> tuple[int, int]:
    return _identity(load_as(kind, data, name))


def _identity_of_results(data: bytes, name: str) -> tuple[int, int]:
    return _identity(load_as(NeuronSimulationResults, data, name))
