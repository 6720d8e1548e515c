"""The four folders of a workspace, and the one that ships with the package.

`data/` holds what collect writes, `explanations/` and `scoring/` the runs, `prompts/` the
templates. Nothing else in the package builds such paths.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from neuron_explainer.errors import ConfigError, WorkspaceError

FOLDERS = ("data", "explanations", "scoring", "prompts")
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with the four folders."""

    root: Path

    @property
    def data(self) -> Path:
        """Subjects' corpora and record sets."""
        return self.root / "data"

    @property
    def explanations(self) -> Path:
        """One folder a run."""
        return self.root / "explanations"

    @property
    def scoring(self) -> Path:
        """Simulations and scores: one folder a run and simulator."""
        return self.root / "scoring"

    @property
    def prompts(self) -> Path:
        """Templates of its own, which go before those of the package."""
        return self.root / "prompts"

    @property
    def run_file(self) -> Path:
        """The configuration of `neuron-explainer run`, where there is one."""
        return self.root / "run.toml"


def check_name(name: str) -> str:
    """`name` of a run or subject, which is that of one folder. Raises ConfigError."""
    if name in {"", ".", ".."} or any(mark in name for mark in "/\\\0"):
        raise ConfigError(f"'{name}' cannot name a run or subject: it must be a folder's name")
    return name


def shipped() -> Path:
    """The workspace that came with the package: in the wheel, or the checkout's root.

    An editable install does not see the files that a wheel carries, hence the two places.
    """
    packaged = _PACKAGE / "_workspace"
    return packaged if packaged.is_dir() else _PACKAGE.parent


def example_file() -> Path:
    """The configuration of the embedded example."""
    return shipped() / "data" / "tiny" / "run.toml"


def is_workspace(folder: Path) -> bool:
    """Whether the three folders that commands write to are there."""
    return all((folder / name).is_dir() for name in FOLDERS[:3])


def find(folder: Path | None) -> Workspace:
    """The workspace at `folder`, by default the current directory. Raises WorkspaceError."""
    root = folder or Path()
    if not is_workspace(root):
        place = "this folder" if folder is None else str(folder)
        raise WorkspaceError(
            f"{place} is no workspace (it has no {', '.join(FOLDERS[:3])}): "
            f"make one with neuron-explainer init {'.' if folder is None else folder}"
        )
    return Workspace(root)


def init(folder: Path) -> Workspace:
    """Make the four folders, each with its README, and leave what is there alone.

    Raises WorkspaceError when the folder cannot be written.
    """
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
            readme = folder / name / "README.md"
            if not readme.exists():
                shutil.copyfile(shipped() / name / "README.md", readme)
    except OSError as error:
        raise WorkspaceError(
            f"cannot make a workspace in {folder}: {(error.strerror or str(error)).lower()}; "
            "choose another folder"
        ) from error
    return Workspace(folder)
