"""The command that shows a workspace in a browser: `view`."""

import webbrowser
from contextlib import suppress
from dataclasses import replace

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.commands import view_options as view_option
from neuron_explainer.commands.model_options import with_model_at_once
from neuron_explainer.config import ModelSettings, SaeSettings, SubjectSettings, build
from neuron_explainer.errors import ConfigError


@with_model_at_once
def view(
    subject: view_option.SubjectOption = None,
    name: option.FolderName = None,
    sae: option.SaeOption = None,
    site: view_option.SaeSite = None,
    device: option.DeviceOption = "cpu",
    dtype: option.TypeOption = "float32",
    module: option.ModuleOption = None,
    *,
    model: ModelSettings,
    port: view_option.PortOption = None,
    host: view_option.HostOption = None,
    token: view_option.TokenOption = None,
    no_open: view_option.NoOpen = False,
    folder: option.WorkspaceOption = None,
    as_json: option.JsonOption = False,
) -> None:
    """Show the workspace in a browser: neurons, explanations, simulations, scores, comparisons.

    It answers this machine alone unless --host says otherwise, and stops with Ctrl-C.

    Example: neuron-explainer view
    """
    here = workspace.find(folder)
    from neuron_explainer.view.live import Live, LiveSettings
    from neuron_explainer.view.live_routes import Offered
    from neuron_explainer.view.resources import Resources
    from neuron_explainer.view.server import app
    from neuron_explainer.view.serving import access_for, listen, serve

    source = Resources(here)
    given = {"model": subject or "", "name": name, "device": device, "dtype": dtype}
    described = build(SubjectSettings, {**given, "by_hand": module or ()}, "view")
    if (sae and not subject) or (site and not sae):
        raise ConfigError("--sae goes with --subject, and --site with --sae")
    described = replace(described, sae=(SaeSettings(sae, site),) if sae else ())
    live = Offered(source, Live(here, LiveSettings(described, model)))
    listening = listen(access_for(host, token), port)
    made = app(source, live, listening.access)
    output.show_address(listening.url, as_json)
    if not no_open and output.console().is_terminal:
        webbrowser.open(listening.url)
    with suppress(KeyboardInterrupt):  # raised again once the last requests are answered
        serve(made, listening)
    output.say_stopped()
