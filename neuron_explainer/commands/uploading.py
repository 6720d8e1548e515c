"""The command that sends results to a service: `upload`."""

import os
from typing import TYPE_CHECKING

import typer

from neuron_explainer import workspace
from neuron_explainer.commands import neuronpedia_options as neuronpedia_option
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.errors import ConfigError

if TYPE_CHECKING:
    from neuron_explainer.interchange.neuronpedia_upload import Upload

upload_app = typer.Typer(help="Send results to a service.", no_args_is_help=True)


@upload_app.command("neuronpedia")
def upload_neuronpedia(
    name: option.RunArgument,
    model_id: neuronpedia_option.ModelId,
    source: neuronpedia_option.SourceId,
    site: neuronpedia_option.OneSite = None,
    explanation_type: neuronpedia_option.ExplanationType = None,
    explanation_model: neuronpedia_option.ExplanationModel = None,
    description: neuronpedia_option.Description = None,
    url: neuronpedia_option.Url = neuronpedia_option.OFFICIAL,
    dry_run: option.DryRun = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Send a site of a run to Neuronpedia, with the key in NEURONPEDIA_API_KEY.

    Example: neuron-explainer upload neuronpedia tiny-token-lookup --site blocks.0.mlp.hook_post
    --model-id tiny --source 0-mlp-neurons-acme --dry-run
    """
    from neuron_explainer.interchange import neuronpedia_upload
    from neuron_explainer.interchange.neuronpedia_export import ExportSettings, SiteOfRun
    from neuron_explainer.interchange.web import Web, check_url

    settings = ExportSettings(
        model_id,
        source,
        site,
        explanation_type=explanation_type,
        explanation_model=explanation_model,
    )
    chosen = SiteOfRun.open(workspace.find(folder).root, name, settings)
    if dry_run:
        done = neuronpedia_upload.plan(chosen, check_url(url))
    else:
        web = Web(url, (neuronpedia_upload.HEADER, _key()))
        try:
            about = description or f"{chosen.site}, explained with neuron-explainer"
            done = neuronpedia_upload.upload(chosen, web, about)
        finally:
            web.close()
    _show(done, url, dry_run, as_json)


def _show(done: "Upload", url: str, dry_run: bool, as_json: bool) -> None:
    counts = {
        "source": done.source,
        "batches": done.batches,
        "features": done.features,
        "activations": done.activations,
        "explanations": done.explanations,
        "already_there": done.already,
        "cut_texts": done.cut_texts,
        "cut_records": done.cut_records,
        "failures": len(done.failures),
    }
    verb = "would send" if dry_run else "sent"
    line = (
        f"{verb} to {url}, {done.source}: {done.features:,} features in {done.batches:,} batches, "
        f"{done.activations:,} activations, {done.explanations:,} explanations"
    )
    others = {
        "features were there already": done.already,
        "texts were cut to 512 characters": done.cut_texts,
        "records were cut to 1,024 tokens": done.cut_records,
    }
    lines = [line, *(f"{count:,} {what}" for what, count in others.items() if count)]
    output.show(counts if as_json else lines, as_json)
    output.say_notices(done.notices)
    output.list_failures(done.failures)


def _key() -> str:
    key = os.environ.get("NEURONPEDIA_API_KEY", "").strip()
    if not key:
        raise ConfigError(
            "NEURONPEDIA_API_KEY is not set: set it to a key of your account, or use --dry-run"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("NEURONPEDIA_API_KEY holds characters that no key has: copy it again")
    return key
