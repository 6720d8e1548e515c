"""The command that makes a run a dataset: `publish`."""

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output


def publish(
    name: option.RunArgument,
    to: option.PublishFolder = None,
    dataset_name: option.DatasetName = None,
    license_: option.LicenseOption = None,
    corpus_license: option.CorpusLicense = None,
    language: option.LanguageOption = None,
    without: option.WithoutOption = None,
    partial: option.PartialOption = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Write a run as a dataset: Parquet tables and a card that says what they are.

    Example: neuron-explainer publish tiny-token-lookup --license cc-by-4.0
    """
    from neuron_explainer.publish.settings import PublishSettings
    from neuron_explainer.publish.stage import publish as run_stage
    from neuron_explainer.runs import Run

    run = Run(workspace.find(folder), name)
    left_out = tuple(each for text in without or () for each in text.split(","))
    settings = PublishSettings(
        dataset_name, license_, corpus_license, tuple(language or ()), left_out, partial
    )
    done = run_stage(run, to, settings, output.progress())
    sizes = done.folder.sizes()
    output.say_notices([f"not whole: {lack.what}" for lack in done.lacks])
    report = {
        "folder": str(done.folder.path),
        "changed": done.changed,
        "rows": dict(done.rows),
        "files": sizes,
    }
    lines = [f"{config}: {rows:,} rows" for config, rows in done.rows.items()]
    verb = "wrote" if done.changed else "nothing to do:"
    size = f"{len(sizes):,} files, {sum(sizes.values()) / 1e6:,.1f} MB"
    lines.append(f"{verb} {size} in {done.folder.path}")
    output.show(report if as_json else lines, as_json)
