"""The model that settings name, its autoencoders with it, and what tells one model from another.

Nothing here loads torch before a model or an autoencoder is looked at.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from neuron_explainer.config import SubjectSettings
from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.base import Subject


def load_subject(settings: SubjectSettings) -> Subject:
    """The model, with its autoencoders. Raises SubjectError when something cannot be loaded."""
    from neuron_explainer.registry import resolve

    if not settings.model:
        raise SubjectError("no subject was named: give --subject FOLDER or a hub id")
    loaded: Subject = resolve("subjects", "huggingface").load(
        settings.model, settings.device, settings.dtype, settings.by_hand
    )
    if settings.sae:
        from neuron_explainer.subjects.sparse import SparseSubject

        saes = with_sites(settings).sae
        loaded = SparseSubject.load(loaded, {sae.latents: sae.path for sae in saes})
    return loaded


def with_sites(settings: SubjectSettings) -> SubjectSettings:
    """The settings with each autoencoder's site, from its own files where none is given.

    Raises SubjectError when neither names one, or they differ.
    """
    if not settings.sae:
        return settings
    from neuron_explainer.subjects.sparse_formats import site_of

    saes = (replace(sae, site=site_of(sae.path, sae.site)) for sae in settings.sae)
    return replace(settings, sae=tuple(saes))


def fingerprint(source: str) -> str:
    """SHA-256 of a model's weights file, or of all in a folder; a hub id stands for itself."""
    path = Path(source)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    files = files or sorted(path.glob("*.bin"))
    return _digest(files) if files else source


def autoencoders(settings: SubjectSettings) -> list[dict[str, str | None]]:
    """Where each autoencoder reads, and the SHA-256 of its files."""
    if not settings.sae:
        return []
    from neuron_explainer.subjects.sparse_formats import files_of

    return [{"site": sae.site, "weights": _digest(files_of(sae.path))} for sae in settings.sae]


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()
