"""The command that makes a run a dataset, or pages for a file server: `publish`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.commands import view_options as view_option
from neuron_explainer.errors import ConfigError

if TYPE_CHECKING:
    from neuron_explainer.publish.settings import PublishSettings
    from neuron_explainer.runs import Run


def publish(
    name: view_option.PublishedRun = None,
    to: option.PublishFolder = None,
    hub: option.HubOption = None,
    public: option.PublicOption = False,
    dataset_name: option.DatasetName = None,
    license_: option.LicenseOption = None,
    corpus_license: option.CorpusLicense = None,
    language: option.LanguageOption = None,
    without: option.WithoutOption = None,
    partial: option.PartialOption = False,
    site: view_option.PublishSite = None,
    neurons: option.NeuronsOption = None,
    dry_run: option.DryRun = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Write a run as a dataset: Parquet tables and a card that says what they are.

    With --hub it goes to the Hugging Face hub too, as a private dataset. With --site the pages of
    the viewer are written instead, for any file server: of the run, or of the whole workspace.

    Example: neuron-explainer publish tiny-token-lookup --license cc-by-4.0
    """
    from neuron_explainer.publish.settings import PublishSettings
    from neuron_explainer.runs import Run

    of_dataset: dict[str, object] = {
        **{"--to": to, "--hub": hub, "--public": public, "--name": dataset_name},
        **{"--license": license_, "--corpus-license": corpus_license, "--language": language},
        **{"--without": without, "--partial": partial},
    }
    if site is not None:
        _refuse(of_dataset, "is of a dataset and has no meaning with --site")
        _publish_site(name, site, neurons, dry_run, folder, as_json)
        return
    _refuse({"--neurons": neurons}, "is for --site DIR: a dataset has all neurons of its run")
    if name is None:
        raise ConfigError("publish which run? Give its name, or --site DIR for the viewer's pages")
    if public and hub is None:
        raise ConfigError("--public says who may see a dataset on the hub: give --hub USER/NAME")
    left_out = tuple(each for text in without or () for each in text.split(","))
    settings = PublishSettings(
        dataset_name, license_, corpus_license, tuple(language or ()), left_out, partial
    )
    _publish_dataset(Run(workspace.find(folder), name), to, settings, hub, public, dry_run, as_json)


def _publish_dataset(
    run: "Run",
    to: Path | None,
    settings: "PublishSettings",
    hub: str | None,
    public: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from neuron_explainer.publish import stage

    if hub is not None:
        from neuron_explainer.publish.hub import check_repository, push

        check_repository(hub)
    if dry_run:
        _list(stage.rehearse(run, settings, output.progress()), as_json)
        return
    done = stage.publish(run, to, settings, output.progress())
    report: dict[str, object] = {
        "folder": str(done.folder.path),
        "changed": done.changed,
        "rows": dict(done.rows),
        "files": done.folder.sizes(),
    }
    output.say_notices([f"not whole: {lack.what}" for lack in done.lacks])
    lines = [f"{config}: {rows:,} rows" for config, rows in done.rows.items()]
    verb = "wrote" if done.changed else "nothing to do:"
    lines.append(f"{verb} {_total(done.folder.sizes())} in {done.folder.path}")
    if hub is not None:
        report["url"] = push(done.folder, hub, public)
        lines.append(f"pushed to {report['url']}, {'public' if public else 'private'}")
    output.show(report if as_json else lines, as_json)


def _refuse(options: Mapping[str, object], why: str) -> None:
    for flag, value in options.items():
        if value:
            raise ConfigError(f"{flag} {why}")


def _publish_site(
    name: str | None,
    site: Path,
    neurons: str | None,
    dry_run: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    from neuron_explainer.neuron_list import parse_neurons
    from neuron_explainer.runs import Run
    from neuron_explainer.view.resources import Resources
    from neuron_explainer.view.static import count_files, write_site

    here = workspace.find(folder)
    if name is not None:
        Run(here, name).require()
    source = Resources(here, name)
    if neurons is not None:
        widths = [site.width for site in source.catalog().sites.values()]
        source = Resources(here, name, parse_neurons(neurons, max(widths, default=0)))
    if dry_run:
        files = count_files(source)
        output.show({"files": files} if as_json else [f"would write {files:,} files"], as_json)
        return
    done = write_site(source, site, output.progress())
    report = {"folder": str(done.folder), "files": done.files, "bytes": done.bytes}
    lines = [
        f"wrote {done.files:,} files, {done.bytes / 1e6:,.1f} MB in {done.folder}",
        f"look: python -m http.server --bind 127.0.0.1 --directory {done.folder}",
    ]
    output.show(report if as_json else lines, as_json)


def _list(sizes: Mapping[str, int], as_json: bool) -> None:
    lines = [f"{size:>13,}  {name}" for name, size in sizes.items()]
    lines.append(f"would write {_total(sizes)}")
    output.show({"files": dict(sizes)} if as_json else lines, as_json)


def _total(sizes: Mapping[str, int]) -> str:
    return f"{len(sizes):,} files, {sum(sizes.values()) / 1e6:,.1f} MB"
