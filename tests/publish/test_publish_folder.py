"""publish: a whole run becomes the same folder everywhere, and nothing else is touched."""

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import files, in_process
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer.config import ScoreSettings, SimulateSettings
from neuron_explainer.errors import ConfigError, DataError, RunLocked, RunMismatch, UserError
from neuron_explainer.publish import stage
from neuron_explainer.publish.manifests import portable
from neuron_explainer.publish.settings import PublishSettings
from neuron_explainer.publish.stage import publish
from neuron_explainer.runs import Run
from neuron_explainer.score.stage import score
from neuron_explainer.simulate.stage import simulate
from neuron_explainer.store import Folder, locked
from neuron_explainer.workspace import Workspace

RUN = "tiny-token-lookup"
CC0 = PublishSettings(license="cc0-1.0")


@pytest.fixture
def copied(small_workspace: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """The small workspace somewhere else, to change."""
    place = tmp_path / "elsewhere"
    shutil.copytree(small_workspace.root, place)
    yield Workspace(place)
    shutil.rmtree(place)


@pytest.fixture
def once(copied: Workspace, published: Path) -> Workspace:
    """The same, its run published already."""
    shutil.copytree(published, copied.explanations / RUN / "published")
    return copied


def times(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_every_file_has_its_checksum(published: Path) -> None:
    lines = (published / "checksums.txt").read_text("utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    content = files(published)
    del content["checksums.txt"]
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    assert {"README.md", "published.json", "data/explanations/00000.parquet"} <= listed.keys()


def test_another_machine_publishes_the_same_bytes(copied: Workspace, published: Path) -> None:
    done = publish(Run(copied, RUN), None, CC0)
    assert done.folder.path == copied.explanations / RUN / "published"
    assert files(done.folder.path) == files(published)


def test_nothing_in_it_says_when_where_or_by_whom(published: Path) -> None:
    for name, content in files(published).items():
        for word in (str(published.parent), "/tmp/", "/home/", "/root/"):
            assert word.encode() not in content, (name, word)
    about = (published / "published.json").read_text() + (published / "README.md").read_text()
    assert not re.search(rf"\b{re.escape(os.uname().nodename)}\b", about)
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", about)


def test_publishing_twice_writes_nothing(once: Workspace) -> None:
    before = times(once.root)
    again = publish(Run(once, RUN), None, CC0)
    assert not again.changed
    assert again.rows["explanations"] == 128
    assert times(once.root) == before


def test_what_a_run_gained_since_is_published_too(once: Workspace) -> None:
    run = Run(once, RUN)
    before = publish(run, None, CC0)
    asyncio.run(simulate(run, "constant", SimulateSettings(), label="level"))
    with pytest.raises(DataError, match=f"level on .* has no scores.*neuron-explainer score {RUN}"):
        publish(run, None, CC0)
    score(run, "level", ScoreSettings())
    after = publish(run, None, CC0)
    assert after.changed
    assert after.rows["scores"] == before.rows["scores"] * 4 // 3
    assert not list(after.folder.path.parent.glob(".published*"))


def test_a_lost_file_is_written_again(once: Workspace, published: Path) -> None:
    folder = once.explanations / RUN / "published"
    (folder / "data" / "scores" / "00000.parquet").unlink()
    assert publish(Run(once, RUN), None, CC0).changed
    assert files(folder) == files(published)


def test_another_runs_dataset_is_not_overwritten(
    small_workspace: Workspace, published: Path
) -> None:
    before = times(published)
    other = Run(small_workspace, f"{RUN}-all")
    with pytest.raises(RunMismatch, match=rf"holds run '{RUN}'; choose another --to or delete it"):
        publish(other, published, PublishSettings())
    assert times(published) == before


@pytest.mark.parametrize("name", ["notes.txt", "data/scores/more.parquet", ".hidden"])
def test_a_foreign_file_is_not_deleted(once: Workspace, name: str) -> None:
    folder = once.explanations / RUN / "published"
    (folder / name).write_text("mine")
    before = files(folder)
    with pytest.raises(RunMismatch, match=re.escape(f"{name} is not from publish")):
        publish(Run(once, RUN), None, PublishSettings())
    assert files(folder) == before


def test_a_card_that_was_edited_is_not_overwritten(once: Workspace) -> None:
    folder = once.explanations / RUN / "published"
    (folder / "README.md").write_text("better")
    with pytest.raises(RunMismatch, match="was changed since it was published; move it"):
        publish(Run(once, RUN), None, CC0)
    assert (folder / "README.md").read_text() == "better"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_dataset_is_left_alone(
    small_workspace: Workspace, tmp_path: Path, kind: str
) -> None:
    if kind == "folder":
        (tmp_path / "to").mkdir()
        (tmp_path / "to" / "thesis.tex").write_text("years of work")
    else:
        (tmp_path / "to").write_text("years of work")
    before = files(tmp_path)
    with pytest.raises(RunMismatch, match="holds something else than a dataset"):
        publish(Run(small_workspace, RUN), tmp_path / "to", CC0)
    assert files(tmp_path) == before


def test_an_empty_folder_may_be_filled(
    small_workspace: Workspace, tmp_path: Path, published: Path
) -> None:
    (tmp_path / "to").mkdir()
    publish(Run(small_workspace, RUN), tmp_path / "to", CC0)
    assert files(tmp_path / "to") == files(published)


def test_a_crash_leaves_the_old_dataset_and_nothing_beside_it(
    once: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = once.explanations / RUN / "published"
    before = files(folder.parent)

    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "card", fail)
    with pytest.raises(UserError, match=r"cannot write .*: no space left on device"):
        publish(Run(once, RUN), None, PublishSettings(name="other"))
    assert files(folder.parent) == before


def test_two_processes_do_not_publish_to_one_place(
    small_workspace: Workspace, tmp_path: Path
) -> None:
    with locked(tmp_path / ".to.publishing"), pytest.raises(RunLocked):
        publish(Run(small_workspace, RUN), tmp_path / "to", CC0)


def unfinished(here: Workspace) -> None:
    """As after a kill in the middle of explain."""
    Run(here, RUN).folder.update({"complete": False})


def unscored(here: Workspace) -> None:
    """As before score."""
    folder = Run(here, RUN).simulations("constant")
    kept = {key: value for key, value in folder.manifest()["shards"].items() if "scores" not in key}
    folder.update({"shards": kept})


def unsimulated(here: Workspace) -> None:
    """As before simulate."""
    shutil.rmtree(here.scoring / RUN)


def without_records(here: Workspace) -> None:
    """As after somebody made room."""
    shutil.rmtree(here.data / "tiny" / "blocks.0.mlp.hook_post")


@pytest.mark.parametrize(
    ("harm", "said", "rows"),
    [
        (unfinished, f"run neuron-explainer explain --run {RUN}", 128),
        (unscored, f"run neuron-explainer score {RUN}", 128),
        (unsimulated, f"run neuron-explainer simulate {RUN}", 128),
        (without_records, "run neuron-explainer collect --subject tiny --layer 0", 128),
    ],
)
def test_a_run_that_is_not_whole_is_refused_unless_asked_for(
    copied: Workspace, harm: Callable[[Workspace], None], said: str, rows: int
) -> None:
    harm(copied)
    run = Run(copied, RUN)
    with pytest.raises(DataError, match=re.escape(said)):
        publish(run, None, CC0)
    assert not (copied.explanations / RUN / "published").exists()
    done = publish(run, None, PublishSettings(partial=True))
    assert done.lacks
    assert done.rows["explanations"] == rows
    card = (done.folder.path / "README.md").read_text("utf-8")
    assert "not whole when it was published" in card
    assert str(copied.root) not in card


def test_a_missing_shard_is_named_even_for_a_part(copied: Workspace) -> None:
    shard = next((copied.explanations / RUN).rglob("explanations-*.parquet"))
    shard.unlink()
    with pytest.raises(DataError, match=re.escape(f"{shard} is missing; delete")):
        publish(Run(copied, RUN), None, PublishSettings(partial=True))


def test_a_damaged_shard_is_named_and_nothing_is_left(copied: Workspace) -> None:
    shard = next((copied.scoring / RUN).rglob("simulations-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(DataError, match=re.escape(f"{shard} is damaged")):
        publish(Run(copied, RUN), None, CC0)
    assert not list((copied.explanations / RUN).glob("*publish*"))


def test_records_that_were_collected_anew_do_not_go_with_old_explanations(
    copied: Workspace,
) -> None:
    folder = Folder(copied.data / "tiny" / "blocks.0.mlp.hook_post")
    folder.update({"config": folder.manifest()["config"] | {"seed": 1}})
    with pytest.raises(RunMismatch, match="has changed since"):
        publish(Run(copied, RUN), None, PublishSettings(partial=True))


def test_explanations_that_were_made_anew_do_not_go_with_old_simulations(
    copied: Workspace,
) -> None:
    run = Run(copied, RUN)
    file = next(iter(run.folder.manifest()["shards"]))
    run.folder.write({file: run.folder.read(file).slice(1)})
    with pytest.raises(RunMismatch, match="simulates other explanations"):
        publish(run, None, CC0)


def test_tables_can_be_left_out(small_workspace: Workspace, tmp_path: Path) -> None:
    settings = PublishSettings(without=("records", "simulations"))
    done = publish(Run(small_workspace, RUN), tmp_path / "to", settings)
    assert sorted(done.rows) == ["explanations", "features", "runs", "scores"]
    assert sorted(path.name for path in (tmp_path / "to" / "data").iterdir()) == sorted(done.rows)
    assert "config_name: records" not in (tmp_path / "to" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"without": ("record",)}, "did you mean 'records'"),
        ({"without": ("runs",)}, "always has explanations and runs"),
        ({"language": ("English",)}, "ISO 639"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, tuple[str]], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        PublishSettings(**settings)  # type: ignore[arg-type]


def test_the_command_says_what_it_wrote(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = in_process(monkeypatch, capsys)
    arguments = ("publish", RUN, "--workspace", copied.root, "--without", "records,features")
    report = run(*arguments, "--json").json()
    assert report["changed"] is True
    assert report["rows"] == {"explanations": 128, "scores": 384, "simulations": 7680, "runs": 7}
    assert run(*arguments).out.splitlines()[-1].startswith("nothing to do: ")
    missing = run("publish", "nothing", "--workspace", copied.root)
    assert (missing.code, missing.out) == (2, "")
    assert "there is no run 'nothing'" in missing.err


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1)))
def test_only_the_last_part_of_a_path_leaves_the_machine(parts: list[str]) -> None:
    path = "/".join(["", *parts, "model"])
    assert portable({"llm": f"local/{path}", "examples": [path]}) == {
        "llm": "local/model",
        "examples": ["model"],
    }


@pytest.mark.parametrize("name", ["openai/gpt-4", "local/Qwen/Qwen3-8B", "gpt2", "a/b/c", "3/4"])
def test_names_that_are_no_paths_stay(name: str) -> None:
    assert portable(name) == name
