"""The command that shows a workspace in a browser: `view`."""

import webbrowser
from contextlib import suppress
from typing import TYPE_CHECKING

from neuron_explainer import workspace
from neuron_explainer.commands import options as option
from neuron_explainer.commands import output
from neuron_explainer.commands import view_options as view_option

if TYPE_CHECKING:
    from neuron_explainer.view.server import Live


def view(
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
    from neuron_explainer.view.resources import Resources
    from neuron_explainer.view.server import app
    from neuron_explainer.view.serving import access_for, listen, serve

    source = Resources(here)
    live: Live | None = None
    listening = listen(access_for(host, token), port)
    made = app(source, live, listening.access)
    output.show_address(listening.url, as_json)
    if not no_open and output.console().is_terminal:
        webbrowser.open(listening.url)
    with suppress(KeyboardInterrupt):  # raised again once the last requests are answered
        serve(made, listening)
    output.say_stopped()
