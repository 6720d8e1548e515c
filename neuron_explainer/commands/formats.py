"""The commands that read and write published formats: `import` and `export`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from neuron_explainer import workspace
from neuron_explainer.commands import neuronpedia_options as neuronpedia_option
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.errors import ConfigError

if TYPE_CHECKING:
    from neuron_explainer.interchange.import_job import ImportResult
    from neuron_explainer.records import Failure

import_app = typer.Typer(help="Read published formats.", no_args_is_help=True)
export_app = typer.Typer(help="Write published formats.", no_args_is_help=True)


def _show_import(done: "ImportResult", as_json: bool) -> None:
    report = {"name": done.name, "imported": done.imported, "failures": len(done.failures)}
    line = f"{done.name}: {done.imported:,} neurons imported ({', '.join(done.sites)})"
    output.show({**report, "sites": done.sites} if as_json else [line], as_json)
    output.list_failures(done.failures)


@import_app.command("openai")
def import_openai(
    source: option.PublishedSource = None,
    name: option.ImportName = "",
    url: option.PublicUrl = None,
    what: option.PublishedKind = "records",
    layer: option.PublishedLayers = None,
    neurons: option.NeuronsOption = None,
    site: option.SiteTemplate = None,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Read OpenAI's record files (.json) or explanation files (.jsonl), from a folder or the web.

    Example: neuron-explainer import openai --url gpt2-xl --layer 5 --neurons 0-99 --name gpt2-xl
    """
    from neuron_explainer.interchange import openai_import
    from neuron_explainer.interchange.openai_download import sites_of
    from neuron_explainer.interchange.source import LARGEST_LAYER, check_sites
    from neuron_explainer.neuron_list import parse_neurons

    here = workspace.find(folder)
    layers = None if layer is None else parse_neurons(layer, LARGEST_LAYER + 1)
    chosen = None if neurons is None else parse_neurons(neurons, sys.maxsize)
    if not name or (source is None) == (url is None):
        raise ConfigError("give --name NAME, and either a folder or --url")
    missing: tuple[Failure, ...] = ()
    address = url or str(source)
    if url is not None:
        address, source, missing = _download(here, url, what, layers, chosen, name)
    assert source is not None
    sites = sites_of(address) if site is None else check_sites(site)
    done = openai_import.import_source(here, source, name, chosen, sites, layers)
    _show_import(replace(done, failures=(*done.failures, *missing)), as_json)


def _download(
    here: workspace.Workspace,
    url: str,
    what: str,
    layers: list[int] | None,
    neurons: list[int] | None,
    name: str,
) -> "tuple[str, Path, tuple[Failure, ...]]":
    """Fetch what is not in the workspace's cache yet."""
    from neuron_explainer.interchange import openai_download
    from neuron_explainer.interchange.web import Web

    if layers is None or neurons is None:
        raise ConfigError("say what to fetch: --layer 5 --neurons 0-99")
    address = openai_download.root_of(url, what)
    web = Web(address)
    try:
        with output.progress()("fetch", len(layers) * len(neurons), "files") as advance:
            done = openai_download.download(
                web, here.root / ".cache" / "openai", what, layers, neurons, name, advance
            )
    finally:
        web.close()
    return address, done.folder, done.missing


@import_app.command("neuronpedia")
def import_neuronpedia(
    source: option.NeuronpediaSource,
    name: option.ImportName,
    neurons: option.NeuronsOption = None,
    site: option.NamedSite = None,
    bos_first: option.BosFirst = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Read a source in Neuronpedia's export layout: features, activations, explanations.

    Example: neuron-explainer import neuronpedia v1/gpt2-small/6-res-jb --name gpt2-res-jb
    """
    from neuron_explainer.interchange import neuronpedia_import
    from neuron_explainer.neuron_list import parse_neurons

    chosen = None if neurons is None else set(parse_neurons(neurons, sys.maxsize))
    done = neuronpedia_import.import_source(
        workspace.find(folder), source, name, chosen, site, bos_first
    )
    _show_import(done, as_json)


@import_app.command("delphi")
def import_delphi(
    source: option.DelphiSource,
    name: option.ImportName,
    tokenizer: option.TokenizerFolder = None,
    neurons: option.NeuronsOption = None,
    site: option.NamedSite = None,
    bos_first: option.BosFirst = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Read Delphi's latent caches (.safetensors) and explanations.

    Example: neuron-explainer import delphi results/run --name pythia --tokenizer models/pythia
    """
    from neuron_explainer.interchange import delphi_import
    from neuron_explainer.neuron_list import parse_neurons
    from neuron_explainer.subjects.tokenizer import load_tokenizer

    if tokenizer is None:
        raise ConfigError(
            "a cache holds token numbers: give the folder of the model's tokenizer by --tokenizer"
        )
    chosen = None if neurons is None else set(parse_neurons(neurons, sys.maxsize))
    done = delphi_import.import_source(
        workspace.find(folder), source, name, load_tokenizer(tokenizer), chosen, site, bos_first
    )
    _show_import(done, as_json)


@export_app.command("openai")
def export_openai(
    name: option.RunArgument,
    to: option.ExportFolder,
    simulator: option.ExportSimulator = None,
    all_neurons: option.AllNeurons = False,
    records: option.RecordsAlone = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Write a run as OpenAI's record and explanation files, or the records of a subject.

    Example: neuron-explainer export openai tiny-token-lookup --to published
    """
    from neuron_explainer.interchange import openai_export
    from neuron_explainer.runs import Run

    here = workspace.find(folder)
    if records:
        done = openai_export.export_records(here.data, name, to)
    else:
        run = Run(here, name)
        run.require()
        default = "imported" if "imported" in run.simulators() else "token-lookup"
        done = openai_export.export_run(here.root, name, simulator or default, to, all_neurons)
    output.show(
        {"written": done.written} if as_json else [f"{done.written:,} files in {to}"], as_json
    )


@export_app.command("neuronpedia")
def export_neuronpedia(
    name: option.RunArgument,
    to: option.ExportFolder,
    model_id: neuronpedia_option.ModelId,
    source: neuronpedia_option.SourceId,
    site: neuronpedia_option.OneSite = None,
    simulator: neuronpedia_option.NotedSimulator = None,
    all_neurons: option.AllNeurons = False,
    creator: neuronpedia_option.Creator = "neuron-explainer",
    created_at: neuronpedia_option.CreatedAt = neuronpedia_option.NO_CLOCK,
    release: neuronpedia_option.Release = None,
    explanation_type: neuronpedia_option.ExplanationType = None,
    explanation_model: neuronpedia_option.ExplanationModel = None,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Write a site of a run in Neuronpedia's export layout.

    Example: neuron-explainer export neuronpedia tiny-token-lookup --site blocks.0.mlp.hook_post
    --model-id tiny --source 0-mlp-neurons-acme --to published
    """
    from neuron_explainer.interchange import neuronpedia_export

    settings = neuronpedia_export.ExportSettings(
        model_id,
        source,
        site,
        simulator,
        all_neurons,
        creator,
        created_at,
        release,
        explanation_type,
        explanation_model,
    )
    done = neuronpedia_export.export_run(workspace.find(folder).root, name, settings, to)
    report = {"to": str(done.to), **done.rows, "failures": len(done.failures)}
    rows = ", ".join(f"{count:,} {part}" for part, count in done.rows.items())
    output.show(report if as_json else [f"{rows} in {done.to}"], as_json)
    output.list_failures(done.failures)
