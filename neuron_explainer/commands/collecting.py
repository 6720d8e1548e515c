"""The commands that run a model over a corpus: `run`, the whole of the tool, and `collect`."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from neuron_explainer import workspace
from neuron_explainer.commands import corpus_options as text
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.commands import pass_options as pass_option
from neuron_explainer.config import CollectSettings, SaeSettings, SubjectSettings
from neuron_explainer.errors import ConfigError

if TYPE_CHECKING:
    from neuron_explainer.collect.stage import Collected


def run(
    config: option.ConfigOption = None,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Collect, explain, simulate and score, as run.toml says.

    Without a run.toml it runs the embedded example, with no key and no network.

    Example: neuron-explainer run
    """
    from neuron_explainer import config as configuration
    from neuron_explainer import pipeline

    place = workspace.Workspace(folder or Path())
    file = config or (place.run_file if place.run_file.is_file() else None)
    settings = configuration.load(file) if file else pipeline.example_settings()
    if not workspace.is_workspace(place.root) and (folder or not any(place.root.iterdir())):
        workspace.init(place.root)
    here = workspace.find(folder)
    finished = pipeline.run_all(here, settings, output.progress())
    output.say_notices(finished.notices)
    output.show_summary(finished.run, settings.score, as_json)
    output.end(finished.failures)


def collect(
    context: typer.Context,
    subject: option.ModelOption,
    corpus: text.CorpusOption,
    layers: option.LayerOption = None,
    sites: option.SiteOption = None,
    neurons: option.NeuronsOption = None,
    sae: option.SaeOption = None,
    name: option.FolderName = None,
    split_on: text.SplitOn = "file",
    text_field: text.TextField = "text",
    corpus_config: text.CorpusConfig = None,
    corpus_split: text.CorpusSplit = None,
    documents: text.DocumentsOption = None,
    corpus_tokens: text.CorpusTokens = None,
    shuffle: text.ShuffleOption = False,
    excerpt_tokens: text.ExcerptTokens = 64,
    minimum_tokens: text.MinimumTokens = 16,
    bos: option.BosOption = "prepend",
    top: option.TopOption = 20,
    random: option.RandomOption = 20,
    per_band: option.PerBand = 4,
    sign: option.SignOption = "positive",
    activations: option.StoredAs = "float16",
    whole_table: option.WholeTable = False,
    context_table: option.ContextTable = False,
    pairs: option.AllPairs = False,
    memory_mb: pass_option.MemoryOption = 1024,
    batch: pass_option.BatchOption = 32,
    batch_tokens: pass_option.BatchTokens = 0,
    checkpoint: pass_option.CheckpointOption = 100_000,
    shard: pass_option.ShardOption = None,
    seed: option.SeedOption = 0,
    device: option.DeviceOption = "cpu",
    dtype: option.TypeOption = "float32",
    module: option.ModuleOption = None,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Run a model over a corpus and keep what explains and scores its neurons.

    Example: neuron-explainer collect --subject gpt2 --layer 6 --corpus texts.jsonl
    """
    done = _collect(workspace.find(folder).data, context.params)
    _report(done, as_json, "" if shard is None else f", part {shard}")


def _collect(data: Path, given: Mapping[str, Any]) -> "Collected":
    """Collect as the options say that were `given` to collect, by name."""
    from neuron_explainer import config as configuration
    from neuron_explainer.collect import parts
    from neuron_explainer.collect.stage import collect as run_stage

    named = tuple(given["sites"] or ())
    if given["sae"] and len(named) > 1:
        raise ConfigError("--sae takes one --site, the one that it was trained on")
    saes = (SaeSettings(given["sae"], *named),) if given["sae"] else ()
    names = [setting.name for setting in fields(CollectSettings)]
    values = {key: value for key, value in given.items() if key in names}
    values["sites"] = () if given["sae"] else named
    settings = configuration.build(CollectSettings, values, "collect")
    model = {
        "model": given["subject"],
        "by_hand": given["module"] or (),
        **{key: given[key] for key in ("name", "device", "dtype")},
    }
    subject = replace(configuration.build(SubjectSettings, model, "collect"), sae=saes)
    if given["shard"] is None:
        return run_stage(data, subject, settings, output.progress())
    part = parts.Part.parse(given["shard"])
    return parts.collect_part(data, subject, settings, part, output.progress())


def merge(
    subject: pass_option.PartsOf,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Make one whole of the parts that collect --shard made.

    Example: neuron-explainer merge gpt2
    """
    from neuron_explainer.collect import parts

    _report(parts.merge(workspace.find(folder).data, subject, output.progress()), as_json)


def _report(done: "Collected", as_json: bool, note: str = "") -> None:
    output.say_notices(done.notices)
    lines = [
        f"{done.subject}/{site}: {width:,} neurons, {len(done.corpus):,} excerpts{note}"
        + (" (was complete already)" if site in done.skipped else "")
        for site, width in done.widths.items()
    ]
    report = {"subject": done.subject, "excerpts": len(done.corpus), "sites": dict(done.widths)}
    output.show(report if as_json else lines, as_json)
