"""Draw the README's pictures from a workspace in which the embedded example has been run.

python scripts/write_pictures.py WORKSPACE
"""

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType

from neuron_explainer import show
from neuron_explainer.records import NeuronId
from neuron_explainer.workspace import find

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NEURON = "tiny/blocks.0.mlp.hook_post/3"


def draw(name: str, title: str, content: RenderableType, width: int = 100) -> None:
    """Write what a terminal would show as `docs/images/<name>.svg`."""
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    console.print(content)
    IMAGES.mkdir(parents=True, exist_ok=True)
    # no font from elsewhere, and a fixed id so that the file is the same from run to run
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    path = str(IMAGES / f"{name}.svg")
    console.save_svg(path, title=title, code_format=template, unique_id=name)


def main() -> None:
    """Draw all of them."""
    workspace = find(Path(sys.argv[1]))
    found = show.find(workspace, NeuronId.parse(NEURON))
    shown = [judged for judged in found.explanations if not judged.run.endswith("-all")]
    choice = show.Choice(top=4)
    content = show.render(show.Found(found.neuron, shown), choice, plain=False)
    draw("show", f"neuron-explainer show {NEURON}", content)


if __name__ == "__main__":
    main()
