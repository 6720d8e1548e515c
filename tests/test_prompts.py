"""Templates: found, filled, and never half filled."""

from pathlib import Path

import pytest

from neuron_explainer import prompts, workspace
from neuron_explainer.errors import PromptError

SHIPPED = workspace.shipped() / "prompts"


def _template(folder: Path, text: str) -> Path:
    (folder / "greeting.txt").write_text(text, "utf-8")
    return folder


def test_variables_go_where_they_are_named_and_doubled_braces_are_braces(tmp_path: Path) -> None:
    folder = _template(tmp_path, "Dear {name}: {{{count}}}\n")
    assert prompts.render("greeting", {"name": "A", "count": "3"}, folder) == "Dear A: {3}"


def test_what_a_variable_holds_is_never_read_as_a_template(tmp_path: Path) -> None:
    folder = _template(tmp_path, "{name}")
    assert prompts.render("greeting", {"name": "{count} {"}, folder) == "{count} {"


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"greeting\.txt asks for \{name\}"):
        prompts.render("greeting", {}, _template(tmp_path, "Dear {name}"))


def test_an_unused_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"leaves \{count\} out"):
        prompts.render("greeting", {"name": "A", "count": "3"}, _template(tmp_path, "{name}"))


@pytest.mark.parametrize("text", ["Dear {name", "Dear } you", "{"])
def test_a_stray_brace_is_reported_with_its_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(PromptError, match=r"greeting\.txt has a stray brace"):
        prompts.render("greeting", {"name": "A"}, _template(tmp_path, text))


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(PromptError, match=r"no template prompts/nothing\.txt"):
        prompts.load("nothing")


def test_a_workspaces_own_template_goes_first(tmp_path: Path) -> None:
    (tmp_path / "token-lookup.txt").write_text("mine\n")
    assert prompts.load("token-lookup", tmp_path) == "mine"
    assert prompts.load("token-lookup") != "mine"


def test_only_the_last_line_break_of_a_template_is_dropped(tmp_path: Path) -> None:
    assert prompts.load("greeting", _template(tmp_path, "two\n\n")) == "two\n"


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.txt")), ids=lambda path: path.stem)
def test_every_template_that_ships_is_listed_and_is_text(path: Path) -> None:
    name = path.relative_to(SHIPPED).as_posix()
    assert name in (SHIPPED / "README.md").read_text("utf-8")
    assert path.read_bytes().endswith(b"\n")
    assert prompts.load(name.removesuffix(".txt"))
