"""The command `train-sae`: a sparse autoencoder for one of a model's sites."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from neuron_explainer.commands import corpus_options as text
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.commands import training_options as own
from neuron_explainer.config import SubjectSettings, TrainSettings

if TYPE_CHECKING:
    from neuron_explainer.train.stage import Trained


def train_sae(
    context: typer.Context,
    subject: option.ModelOption,
    site: own.TrainSite,
    corpus: text.CorpusOption,
    to: own.TrainFolder,
    file_format: own.FormatOption = "saelens",
    latents: own.Latents = None,
    expansion: own.Expansion = 8,
    k: own.ActiveLatents = None,
    l1: own.SparsityWeight = None,
    normalisation: own.NormalisationOption = "none",
    tokens: own.TrainTokens = 2_000_000,
    batch: own.TrainBatch = 1024,
    lr: own.LearningRate = None,
    warm_up: own.WarmUp = 0.05,
    decay: own.Decay = 0.2,
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
    forward: own.ForwardOption = 32,
    memory_mb: own.BufferMemory = 256,
    checkpoint: own.TrainCheckpoint = 1_000_000,
    seed: option.SeedOption = 0,
    device: option.DeviceOption = "cpu",
    dtype: option.TypeOption = "float32",
    module: option.ModuleOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Train a sparse autoencoder on a site's activations; the others then take it with --sae.

    Example: neuron-explainer train-sae --subject gpt2 --site blocks.6.hook_resid_post
    --corpus texts.jsonl --to saes/mine
    """
    from neuron_explainer import config as configuration
    from neuron_explainer.train.stage import train

    names = [setting.name for setting in fields(TrainSettings)]
    values = {key: value for key, value in context.params.items() if key in names}
    settings = configuration.build(TrainSettings, values, "train-sae")
    model = configuration.build(
        SubjectSettings,
        {"model": subject, "device": device, "dtype": dtype, "by_hand": module or ()},
        "train-sae",
    )
    shown = output.progress()
    done = train(to, model, settings, shown, shown.with_figures)
    output.say_notices(done.notices)
    report = {"sae": str(done.path), **done.report}
    output.show(report if as_json else _lines(done), as_json)


def _lines(done: "Trained") -> list[str]:
    report = done.report
    trained, held = report["training"], report["held_out"]
    before = " (was trained already)" if done.skipped else ""
    named = "" if done.named else f" --site {done.site}"
    return [
        f"{done.path}: {trained['latents']:,} latents, {trained['dead']:.1%} of them dead, trained "
        f"on {trained['tokens']:,} tokens{before}",
        f"on {held['tokens']:,} held-out tokens: {_errors(held)} (mean activation "
        f"{output.figure(held['mean_normalised_mse'])}), L0 {held['l0']:.1f}, "
        f"{held['silent']:.1%} of latents silent",
        f"PCA with {held['pca']['components']} components: {_errors(held['pca'])}",
        f"next: neuron-explainer collect --sae {done.path}{named} --subject … --corpus …",
    ]


def _errors(of: Mapping[str, Any]) -> str:
    error, unexplained = (of[name] for name in ("normalised_mse", "unexplained_variance"))
    return f"normalised MSE {output.figure(error)}, FVU {output.figure(unexplained)}"
