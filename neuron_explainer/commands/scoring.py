"""The commands that say how good explanations are: `score` and `show`."""

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.config import ScoreSettings
from neuron_explainer.errors import DataError


def score(
    name: option.RunArgument,
    simulator: option.SimulatorOption = None,
    split: option.SplitOption = "valid",
    checks: option.ChecksOption = False,
    seed: option.SeedOption = 0,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Score the simulations of a run, and show the table.

    Example: neuron-explainer score tiny-token-lookup
    """
    from neuron_explainer import config as configuration
    from neuron_explainer.runs import Run
    from neuron_explainer.score.checks import check_metrics
    from neuron_explainer.score.stage import begins, holds
    from neuron_explainer.score.stage import score as run_stage

    run = Run(workspace.find(folder), name)
    run.require()
    settings = configuration.build(ScoreSettings, {"split": split, "seed": seed}, "score")
    known = [each for each in run.simulators() if holds(run.simulations(each), settings.split)]
    empty = [each for each in known if not begins(run.simulations(each))]
    names = simulator or [each for each in known if each not in empty]
    if not names:
        raise DataError(
            f"run '{name}' has no simulations of the {settings.split} split: "
            f"neuron-explainer simulate {name}"
            + ("" if settings.split == "valid" else f" --split {settings.split}")
        )
    if not simulator:
        output.say_notices([f"{each} has not simulated a shard yet: left out" for each in empty])
    for each in names:
        run_stage(run, each, settings, output.progress())
    checked = output.wait(check_metrics(run, settings, output.progress())) if checks else None
    output.show_summary(run, settings, as_json, checked)


def show(
    neuron: option.NeuronArgument,
    top: option.ShowTop = 5,
    random: option.ShowRandom = 0,
    quantile: option.ShowQuantile = False,
    plain: option.PlainOption = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Show one neuron: statistics, explanations with scores, and records as heat maps.

    Example: neuron-explainer show tiny/blocks.0.mlp.hook_post/12
    """
    from neuron_explainer import show as view
    from neuron_explainer.records import NeuronId

    found = view.find(workspace.find(folder), NeuronId.parse(neuron))
    if as_json:
        output.show(view.as_json(found), True)
        return
    console = output.console()
    choice = view.Choice(top, random, quantile)
    console.print(view.render(found, choice, plain or not console.color_system))
