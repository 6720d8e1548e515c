"""The four folders."""

from pathlib import Path

import pytest

from neuron_explainer import workspace
from neuron_explainer.errors import ConfigError, WorkspaceError


def test_init_makes_the_four_folders_each_with_its_readme(tmp_path: Path) -> None:
    made = workspace.init(tmp_path / "new" / "study")
    assert sorted(path.name for path in made.root.iterdir()) == sorted(workspace.FOLDERS)
    for name in workspace.FOLDERS:
        readme = (made.root / name / "README.md").read_text("utf-8")
        assert readme.startswith(f"# {name}/")
        assert len(readme.splitlines()) <= 25
    assert workspace.find(made.root) == made


def test_init_leaves_alone_what_is_there(tmp_path: Path) -> None:
    made = workspace.init(tmp_path)
    (made.data / "README.md").write_text("mine")
    (made.data / "texts.jsonl").write_text("{}")
    workspace.init(tmp_path)
    assert (made.data / "README.md").read_text() == "mine"
    assert (made.data / "texts.jsonl").exists()


def test_a_file_in_the_way_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(WorkspaceError, match=r"cannot make a workspace in .*file exists"):
        workspace.init(tmp_path)


def test_a_folder_that_is_no_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=f"neuron-explainer init {tmp_path}"):
        workspace.find(tmp_path)


def test_the_current_directory_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match=r"this folder is no workspace .* init \.$"):
        workspace.find(None)
    workspace.init(Path())
    assert workspace.find(None).data.resolve() == tmp_path / "data"


def test_what_ships_with_the_package_is_a_workspace_with_the_example() -> None:
    shipped = workspace.shipped()
    assert workspace.is_workspace(shipped)
    assert (shipped / "data" / "tiny" / "run.toml").is_file()
    assert (shipped / "prompts" / "token-lookup.txt").is_file()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/", "a\\b", "a\0b"])
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a run or subject"):
        workspace.check_name(name)


@pytest.mark.parametrize("name", ["tiny", "gpt2-xl_v1.5", "an experiment (2)", "...", "größer"])
def test_any_name_of_a_folder_will_do(name: str) -> None:
    assert workspace.check_name(name) == name
