"""Pushing, with the real huggingface_hub against a stand-in of the hub on loopback, without Xet."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
from commands import files, in_process
from hub_stand_in import Repository, StandIn, serving
from huggingface_hub import HfApi

from neuron_explainer.errors import ConfigError, RunMismatch, ServiceError, UserError
from neuron_explainer.publish import hub as pushing
from neuron_explainer.publish.folder import PublishedFolder
from neuron_explainer.publish.hub import check_repository, push
from neuron_explainer.workspace import Workspace

pytestmark = [
    pytest.mark.enable_socket,
    # huggingface_hub's own LFS upload, which httpx2 would have otherwise
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

RUN = "tiny-token-lookup"
TOKEN = "hf_secret-of-the-test"
NAME = "somebody/explanations"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, which the library takes for the hub."""
    with serving() as stand_in:
        monkeypatch.setattr(pushing, "HfApi", partial(HfApi, endpoint=stand_in.url))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stand_in


def test_the_hub_gets_every_file_privately(published: Path, hub: StandIn) -> None:
    assert push(PublishedFolder(published), NAME) == f"{hub.url}/datasets/{NAME}"
    there = hub.repositories[NAME]
    assert there.private
    assert there.files == files(published)
    assert hub.tokens == {f"Bearer {TOKEN}"}


def test_pushing_again_sends_nothing(published: Path, hub: StandIn) -> None:
    push(PublishedFolder(published), NAME)
    uploads, commits = hub.uploads(), len(hub.repositories[NAME].commits)
    push(PublishedFolder(published), NAME)
    assert hub.uploads() == uploads
    assert len(hub.repositories[NAME].commits) - commits <= 1
    assert hub.repositories[NAME].files == files(published)


def test_an_interrupted_push_goes_on_from_there(published: Path, hub: StandIn) -> None:
    hub.uploads_left = 2
    with pytest.raises(ServiceError, match=f"cannot push {NAME}: .*the same command goes on"):
        push(PublishedFolder(published), NAME)
    assert not hub.repositories[NAME].commits
    assert len(hub.stored) == 2
    hub.uploads_left = 1_000_000
    before = hub.uploads()
    push(PublishedFolder(published), NAME)
    assert hub.uploads() - before == len(list(published.rglob("*.parquet"))) - 2
    assert hub.repositories[NAME].files == files(published)


def test_files_that_are_no_more_part_of_it_go(published: Path, hub: StandIn) -> None:
    push(PublishedFolder(published), NAME)
    hub.repositories[NAME].files["data/records/00001.parquet"] = b"old"
    push(PublishedFolder(published), NAME)
    assert hub.repositories[NAME].files == files(published)


@pytest.mark.parametrize("public", [True, False])
def test_a_dataset_that_is_not_as_private_as_meant_is_left_alone(
    published: Path, hub: StandIn, public: bool
) -> None:
    hub.repositories[NAME] = Repository(private=public)
    with pytest.raises(RunMismatch, match=r"on the hub is (private|public), not"):
        push(PublishedFolder(published), NAME, public)
    assert not hub.repositories[NAME].files


def test_a_public_dataset_is_made_when_asked_for(published: Path, hub: StandIn) -> None:
    push(PublishedFolder(published), NAME, public=True)
    assert not hub.repositories[NAME].private


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"train.csv": b"a,b"}, "holds train.csv, which is not from publish"),
        (None, "holds run 'another'"),
    ],
)
def test_a_dataset_with_other_content_is_left_alone(
    published: Path, hub: StandIn, held: dict[str, bytes] | None, said: str
) -> None:
    about = (published / "published.json").read_bytes()
    other = {"published.json": about.replace(f'"run": "{RUN}"'.encode(), b'"run": "another"')}
    before = dict(held or other)
    hub.repositories[NAME] = Repository(True, dict(before))
    with pytest.raises(RunMismatch, match=said):
        push(PublishedFolder(published), NAME)
    assert hub.repositories[NAME].files == before


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "hf auth login"), (403, "may not write there"), (418, "it answered 418")],
)
def test_a_refusal_is_one_line_without_the_token(
    published: Path, hub: StandIn, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.refuse = status
    with pytest.raises(ServiceError, match=said) as refused:
        push(PublishedFolder(published), NAME)
    assert "\n" not in str(refused.value)
    assert TOKEN not in str(refused.value) + caplog.text


def test_a_hub_that_is_not_there_is_named(published: Path, hub: StandIn) -> None:
    gone = HfApi(endpoint="http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="ConnectError on the way to the hub"):
        push(PublishedFolder(published), NAME, False, gone)


def test_the_command_publishes_and_pushes(
    small_workspace: Workspace,
    published: Path,
    hub: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = in_process(monkeypatch, capsys)
    arguments = ("publish", RUN, "--workspace", small_workspace.root, "--to", tmp_path / "to")
    asked = ("--license", "cc0-1.0", "--hub", NAME)
    planned = run(*arguments, *asked, "--dry-run", "--json").json()
    assert planned["files"] == PublishedFolder(published).sizes()
    assert (hub.asked, list(tmp_path.iterdir())) == ([], [])
    done = run(*arguments, *asked)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"pushed to {hub.url}/datasets/{NAME}, private"
    assert TOKEN not in done.out + done.err
    assert hub.repositories[NAME].files == files(published)
    refused = run(*arguments, "--public")
    assert (refused.code, refused.out) == (2, "")


@pytest.mark.parametrize("name", ["", "nobody", "a/b/c", "../x", "a/b c", "-a/b", "a/" + "b" * 97])
def test_a_name_that_the_hub_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="write USER/NAME"):
        check_repository(name)
    assert issubclass(ServiceError, UserError)
