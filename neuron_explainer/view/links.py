"""Where a neuron is on Neuronpedia, when its records or explanations came from there."""

import re

from neuron_explainer.view.entries import SiteEntry

_HOME = "https://www.neuronpedia.org"
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


def neuronpedia_url(site: SiteEntry, neuron: int) -> str | None:
    """The neuron's page there, where the record set or a run says which source it is."""
    for folder in (site.folder, *(run.folder for run in site.runs)):
        source = folder.manifest().get("neuronpedia")
        if isinstance(source, dict):
            model, name = str(source.get("model", "")), str(source.get("source", ""))
            if _NAME.fullmatch(model) and _NAME.fullmatch(name):
                return f"{_HOME}/{model}/{name}/{neuron}"
    return None
