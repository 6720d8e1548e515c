"""Explain the units of a language model in natural language, and score the explanations."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuron_explainer.publish.load import LoadedRun

__version__ = "0.1.0"


def load_run(path: str | Path) -> "LoadedRun":
    """A run as tables and objects: `explanations/<run>` of a workspace, or a published folder.

    `explanations`, `scores`, `simulations`, `records`, `features` and `runs` are pyarrow tables,
    read when they are first asked for; docs/publish.md has their columns. Iterating gives
    `Explanation` objects, and `iterate_records()` pairs of `NeuronId` and `Record`.

    >>> import neuron_explainer
    >>> run = neuron_explainer.load_run("explanations/tiny-token-lookup")
    >>> run.subject
    'tiny'
    >>> run.explanations.column_names[:4]
    ['subject', 'site', 'layer', 'neuron']
    >>> explanation = next(iter(run))
    >>> print(explanation.neuron)
    tiny/blocks.0.mlp.hook_post/0
    >>> explanation.text.startswith("Fires on")
    True
    >>> neuron, record = next(run.iterate_records())
    >>> record.kind, len(record.tokens) == len(record.activations)
    ('top', True)

    Raises DataError when there is no run at `path`, or a file of it is missing or damaged.
    """
    from neuron_explainer.publish.load import load_run as load

    return load(path)
