"""The command `inspect`: a model's sites, and whether an autoencoder fits one of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuron_explainer.commands import corpus_options as text
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.config import SaeSettings, SubjectSettings
from neuron_explainer.errors import ConfigError

_UNBOUNDED = 2**31 - 1


def inspect(
    subject: option.InspectedSubject,
    sites: option.SiteOption = None,
    sae: option.SaeOption = None,
    corpus: option.CheckCorpus = None,
    split_on: text.SplitOn = "file",
    text_field: text.TextField = "text",
    device: option.DeviceOption = "cpu",
    dtype: option.TypeOption = "float32",
    module: option.ModuleOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Say what a model is, which sites it has, and whether an autoencoder fits one of them.

    Example: neuron-explainer inspect gpt2 --sae sae.pt --site blocks.6.hook_resid_post
    """
    from neuron_explainer import config as configuration
    from neuron_explainer.collect import inspection
    from neuron_explainer.subject_loading import load_subject

    if sae is None and (corpus or sites):
        raise ConfigError("--site and --corpus are for an autoencoder: give --sae PATH")
    if sae is not None and len(sites or ()) > 1:
        raise ConfigError("--sae takes one --site, the one that it was trained on")
    given = {"model": subject, "device": device, "dtype": dtype, "by_hand": module or ()}
    model: Any = load_subject(configuration.build(SubjectSettings, given, "inspect"))
    report: dict[str, Any] = {"subject": subject, **inspection.about(model)}
    if sae is not None:
        read = (Path(corpus), split_on, text_field) if corpus else None
        report["autoencoder"] = _autoencoder(model, SaeSettings(sae, *(sites or ())), read)
    output.show(report if as_json else _lines(report), as_json)


def _autoencoder(
    model: Any, sae: SaeSettings, text: tuple[Path, Any, str] | None
) -> dict[str, Any]:
    from dataclasses import asdict, replace

    from neuron_explainer.collect import inspection
    from neuron_explainer.collect.corpus import CorpusSource
    from neuron_explainer.subjects.sparse import SparseSubject
    from neuron_explainer.subjects.sparse_formats import site_of

    hook = site_of(sae.path, sae.site)
    site = replace(sae, site=hook).latents
    autoencoder = SparseSubject.load(model, {site: sae.path}).autoencoder(site)
    report = {"file": sae.path, "hook": hook, **inspection.about_autoencoder(autoencoder)}
    if text is not None:
        checked = inspection.check(model, hook, autoencoder, CorpusSource(*text))
        report |= {"check": asdict(checked), "warnings": list(checked.warnings)}
    return report


def _lines(report: Mapping[str, Any]) -> list[str]:
    context = report["context"]
    limit = "no stated limit" if context == _UNBOUNDED else f"{context:,} tokens"
    widest = max(len(group["hook"]) for group in report["sites"])
    lines = [
        f"{report['subject']}: {report['architecture']}, {report['layers']} layers of width "
        f"{report['width']:,} with {report['heads']} heads, {report['dtype']}",
        f"vocabulary {report['vocabulary']:,}, context {limit}",
        "sites",
        *(f"  {group['hook']:<{widest}}  {_group(group)}" for group in report["sites"]),
    ]
    if report["note"]:
        lines.append(f"note: {report['note']}")
    if "autoencoder" in report:
        lines += _autoencoder_lines(report["autoencoder"])
    return lines


def _group(group: Mapping[str, Any]) -> str:
    layers = group["layers"]
    whole = len(layers) == layers[-1] - layers[0] + 1 > 1
    where = f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))
    each = group["sites"] // len(layers)
    experts = f" of each of {each} experts" if each > 1 else ""
    return f"{group['width']:>7,} neurons{experts} in blocks {where}"


def _autoencoder_lines(report: Mapping[str, Any]) -> list[str]:
    kept = f", k {report['k']}" if report["k"] is not None else ""
    lines = [
        f"autoencoder {report['file']} at {report['hook']}",
        f"  {report['architecture']}{kept}: {report['latents']:,} latents of width "
        f"{report['width']:,}, normalisation {report['normalisation']}"
        + (", centred" if report["centred"] else ""),
    ]
    if report["reconstructs"]:
        lines.append(f"  it reconstructs {report['reconstructs']}")
    lines += [f"  note: {note}" for note in report["notes"]]
    if check := report.get("check"):
        error, known = (
            output.figure(check[name]) for name in ("normalised_mse", "mean_normalised_mse")
        )
        lines.append(
            f"  over {check['tokens']:,} tokens: normalised MSE {error} (mean activation "
            f"{known}), L0 {check['l0']:.1f}, {check['silent']:.0%} of latents silent"
        )
    lines += [
        f"warning: {said}: it may be of another site or model, or need another normalisation"
        for said in report.get("warnings", ())
    ]
    return lines
