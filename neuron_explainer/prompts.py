"""Text templates from `prompts/`: a missing and an unused variable are both errors.

A workspace's own `prompts/` goes before the one that ships with the package. A template is plain
text with `{name}` where a variable goes; `{{` and `}}` are braces.
"""

from collections.abc import Mapping
from pathlib import Path
from string import Formatter

from neuron_explainer import workspace
from neuron_explainer.errors import PromptError


def load(name: str, folder: Path | None = None) -> str:
    """The template `prompts/<name>.txt`. Raises PromptError when there is none."""
    for root in (folder, workspace.shipped() / "prompts"):
        if root is not None and (root / f"{name}.txt").is_file():
            return (root / f"{name}.txt").read_text("utf-8").removesuffix("\n")
    raise PromptError(f"no template prompts/{name}.txt; restore it from the package")


def files(name: str, folder: Path | None = None) -> dict[str, Path]:
    """Where the template `name` is read from, or the files of the folder `name`, by their names."""
    found: dict[str, Path] = {}
    for root in (workspace.shipped() / "prompts", folder):
        if root is not None:  # the workspace's own last: it goes before the package's
            inside = (root / name).glob("*.t*")  # templates, and examples in TOML
            paths = [root / f"{name}.txt", *sorted(inside)]
            found |= {str(path.relative_to(root)): path for path in paths if path.is_file()}
    return found


def render(name: str, variables: Mapping[str, str], folder: Path | None = None) -> str:
    """The template with every variable in its place. Raises PromptError when they disagree."""
    template = load(name, folder)
    try:
        wanted = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise PromptError(f"prompts/{name}.txt has a stray brace: write {{{{ or }}}}") from error
    if missing := sorted(wanted - variables.keys()):
        raise PromptError(f"prompts/{name}.txt asks for {{{missing[0]}}}, which nothing fills")
    if unused := sorted(variables.keys() - wanted):
        raise PromptError(f"prompts/{name}.txt leaves {{{unused[0]}}} out; put it somewhere")
    return template.format_map(variables)
