"""The four files of one line that say what a source is, and what we read back from them."""

import re
from dataclasses import dataclass
from typing import Any

from neuron_explainer.interchange.neuronpedia import Target

_SITE = re.compile(r"site: (blocks\.[0-9]{1,4}(?:\.[a-z_0-9]+)+(?:/[A-Za-z0-9._-]+)?)(?:;|$)")
_FIRST = "first token: shown, not scored"


@dataclass(frozen=True)
class About:
    """What a source is about, beside its neurons."""

    target: Target
    site: str
    layers: int  # of the model, as far as they are known here
    width: int
    excerpts: int  # in the corpus
    excludes_first: bool
    release: str
    creator: str
    created: str

    def files(self) -> dict[str, dict[str, Any]]:
        """The object in each file, by the file's name.

        A model, set or source that is known there already stays as it is.
        """
        target = self.target
        common = {"creatorId": self.creator, "createdAt": self.created, "visibility": "PUBLIC"}
        text = f"{self.site}, explained with neuron-explainer"
        return {
            "release": {
                "name": self.release,
                "description": text,
                "urls": [],
                "creatorName": self.creator,
                "defaultSourceSetName": target.set,
                "defaultSourceId": target.source,
                **common,
            },
            "model": {
                "id": target.model,
                "displayNameShort": target.model,
                "displayName": target.model,
                "layers": self.layers,
                "neuronsPerLayer": self.width if self.site.endswith(".mlp.hook_post") else 0,
                "owner": self.creator,
                **common,
            },
            "sourceset": {
                "modelId": target.model,
                "name": target.set,
                "description": text,
                "type": "",
                "urls": [],
                "creatorName": self.creator,
                "releaseName": self.release,
                "hasDashboards": True,
                "allowInferenceSearch": False,
                **common,
            },
            "source": {
                "id": target.source,
                "modelId": target.model,
                "setName": target.set,
                "hasDashboards": True,
                "inferenceEnabled": False,
                "num_prompts": self.excerpts,
                "notes": f"site: {self.site}" + (f"; {_FIRST}" if self.excludes_first else ""),
                **common,
            },
        }


def site_in(notes: str) -> tuple[str | None, bool]:
    """The site that a source's notes name, if we wrote them, and whether its first token is BOS.

    A name that could lead out of a folder is no site.
    """
    match = _SITE.match(notes)
    site = None if match is None or ".." in match[1] else match[1]
    return site, site is not None and _FIRST in notes
