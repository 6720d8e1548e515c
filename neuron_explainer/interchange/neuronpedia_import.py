"""Neuronpedia's features, activations and explanations, taken into a workspace."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from neuron_explainer.interchange.import_job import ImportResult, Job, Place, check_name
from neuron_explainer.interchange.neuronpedia import EXPLANATIONS
from neuron_explainer.interchange.neuronpedia_records import NeuronpediaRows
from neuron_explainer.interchange.neuronpedia_source import Content, Found, Spool, site_for, spooled
from neuron_explainer.interchange.openai_results import IMPORTED
from neuron_explainer.interchange.source import check_site
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace

_COMMAND = "neuron-explainer import neuronpedia"
_NAME = 200  # characters of a name of theirs that are kept


def import_source(
    workspace: Workspace,
    source: Path,
    name: str,
    neurons: Collection[int] | None = None,
    site: str | None = None,
    bos_first: bool = False,
) -> ImportResult:
    """A source's folder, or one batch file, as record set `data/<name>/<site>/` and run `name`.

    Without explanations there is no run. `neurons` are the ones to import, by default all. `site`
    is found out unless given; `bos_first`: the first token of a sequence is shown and not scored.
    A line at fault costs that line and becomes a Failure. Raises DataError, ConfigError,
    RunMismatch.
    """
    home = workspace.data / check_name(name)
    if site is not None:
        check_site(site)
    found = Found.at(source)
    with spooled(found, neurons, workspace.data) as spool:
        guessed, excludes_first = site_for(spool) if site is None else (site, False)
        place = Place(
            Folder(home / guessed, _COMMAND),
            {"site": guessed, "random": "published"},
            "",
            {"width": spool.neurons[-1] + 1, **_origin(spool)},
        )
        run = Folder(workspace.explanations / name, _COMMAND)
        places = {"data": place}
        with_run = any(part == EXPLANATIONS for part, _ in found.files)
        if with_run:
            about = {"subject": name, "run": name, "explainer": IMPORTED}
            places["explanations"] = Place(run, about, f"{guessed}/")
        job: Job[Content] = Job(
            name,
            spool,
            {
                "format": "neuronpedia",
                "files": len(found.files),
                "sha256": found.digest(neurons),
            },
            Place(
                Folder(home / "corpus", _COMMAND),
                {"excludes_first": excludes_first or bos_first, "whole": False},
            ),
            {guessed: places},
            lambda sequences: NeuronpediaRows(sequences, with_run, spool.effects),
            "data",
        )
        return job.run([home, *([run.path] if with_run else [])])


def _origin(spool: Spool) -> dict[str, Any]:
    """For the manifest: which source it is there, for links to it."""
    if spool.model is None or spool.source is None:
        return {}
    return {"neuronpedia": {"model": spool.model[:_NAME], "source": spool.source[:_NAME]}}
