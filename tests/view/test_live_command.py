"""The options of `view` that name models: what is wrong with them is said before it serves."""

from pathlib import Path

import pytest
from commands import Command, in_process

from neuron_explainer.workspace import Workspace


@pytest.fixture
def command(
    small_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command line, in the small workspace."""
    monkeypatch.chdir(small_workspace.root)
    return in_process(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sae", "x.pt"), "--sae goes with --subject, and --site with --sae"),
        (("--subject", "gpt2", "--site", "blocks.0.hook_resid_post"), "--site with --sae"),
        (("--subject", "gpt2"), "no records of 'gpt2' are in data: --name takes one of tiny"),
        (("--subject", "m", "--name", "tiny", "--dtype", "int8"), "dtype"),
    ],
)
def test_options_of_no_use_are_one_line(
    command: Command, options: tuple[str, ...], said: str
) -> None:
    done = command("view", "--no-open", *options)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_an_autoencoder_without_a_site_is_refused(command: Command, tiny: Path) -> None:
    sae = tiny / "sae" / "blocks.2.hook_resid_post.pt"
    done = command("view", "--subject", "m", "--name", "tiny", "--sae", sae)
    assert done.code == 2
    assert "--site" in done.err


def test_batch_files_are_no_option(command: Command) -> None:
    assert command("view", "--write-batch", "there").code == 2
    assert "--write-batch" not in command("view", "--help").out
    assert "--llm-device" in command("view", "--help").out
