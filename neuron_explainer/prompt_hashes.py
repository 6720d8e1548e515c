"""What the templates and examples of a run hold, as hashes in its manifest."""

import hashlib
from pathlib import Path

from neuron_explainer import few_shot_heads, prompts
from neuron_explainer.errors import RunMismatch
from neuron_explainer.few_shot import few_shot_files
from neuron_explainer.store import Folder


def note_prompts(folder: Folder, made: object, templates: str) -> None:
    """Record the files that the explainer or simulator `made` may ask with.

    `templates` is a name in `prompts/`, of a file or of a folder. What was recorded when the first
    shard was written stays; a run from before hashes were kept stays without. Raises RunMismatch,
    which names the file, when one has changed since.
    """
    manifest = folder.manifest()
    now = _hashes(made, templates)
    if not manifest["shards"]:
        folder.update({"prompts": now or None})
        return
    before = manifest.get("prompts", now)
    if different := sorted(key for key in before | now if before.get(key) != now.get(key)):
        raise RunMismatch(
            f"{folder.path} was made with another prompts/{different[0]}; put that back, or choose "
            "another name or delete that folder"
        )


def _hashes(made: object, templates: str) -> dict[str, str]:
    """File in `prompts/` → SHA-256."""
    own: Path | None = getattr(made, "prompts", None)
    found = prompts.files(templates, own)
    if getattr(made, "few_shot", 0):
        found |= _examples(made, own)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def _examples(made: object, own: Path | None) -> dict[str, Path]:
    """The files of the example neurons, or heads, that `made` shows."""
    if "heads" in (getattr(made, "explains", None), getattr(made, "simulates", None)):
        return {few_shot_heads.FILE: few_shot_heads.few_shot_heads_file(own)}
    return {f"few-shot/{path.name}": path for path in few_shot_files(own)}
