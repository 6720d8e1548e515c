"""The command line: `main` runs a command and ends with an exit code."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from neuron_explainer import __version__, workspace
from neuron_explainer.commands import (
    collecting,
    comparing,
    explaining,
    formats,
    inspecting,
    publishing,
    scoring,
    selecting,
    training,
    uploading,
    viewing,
)
from neuron_explainer.errors import UserError

app = typer.Typer(
    name="neuron-explainer",
    help="Explain every neuron of a language model, and score how good each explanation is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Make a workspace: the folders data, explanations, scoring and prompts.

    Example: neuron-explainer init my-study
    """
    made = workspace.init(folder)
    print(f"made a workspace in {made.root}; next: cd {made.root} && neuron-explainer run")


for command in (
    *(inspecting.inspect, training.train_sae),
    *(collecting.run, collecting.collect, collecting.merge),
    *(explaining.explain, explaining.simulate, selecting.select),
    *(scoring.score, comparing.compare, scoring.show, publishing.publish),
    viewing.view,
):
    app.command()(command)
app.add_typer(formats.import_app, name="import")
app.add_typer(formats.export_app, name="export")
app.add_typer(uploading.upload_app, name="upload")


@app.callback(invoke_without_command=True)
def _options_of_all(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"neuron-explainer {__version__}")
        raise typer.Exit


def _usage(error: typer.TyperException) -> str:
    """A mistake in the arguments as one line; the help where a group was called without any."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # typer names it nowhere else in public
        return message
    line = " ".join(message.split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "neuron-explainer"
    hint = "" if "Did you mean" in line or "Possible options" in line else f"; see {path} --help"
    return f"error: {line[:1].lower()}{line[1:]}{hint}"


_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def main() -> None:
    """Run the command line: exit code 0 done, 1 finished with failures, 2 cannot run."""
    # Threads that spin while they wait make collecting five times slower where anything else runs
    # on the machine. OpenMP reads this when torch is loaded, later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(prog_name="neuron-explainer", standalone_mode=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.TyperException as error:
        print(_usage(error), file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    if code == _INTERRUPTED:
        print(
            "\nstopped; what was finished is kept: the same command goes on from there",
            file=sys.stderr,
        )
    sys.exit(code if isinstance(code, int) else 0)
