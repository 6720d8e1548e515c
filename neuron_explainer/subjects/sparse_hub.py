"""Where an autoencoder's files lie: here, or on the Hugging Face hub, which gives them."""

from functools import lru_cache
from pathlib import Path

from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.hub import first_line, unreachable

_FILES = ("cfg.json", "activation_scaler.json", "sae_weights.safetensors", "sae.safetensors")


@lru_cache
def located(source: str) -> Path:
    """A file or folder here as it is; otherwise `USER/NAME/FOLDER` or `USER/NAME/FILE.pt`, fetched.

    Raises SubjectError when it is neither.
    """
    path = Path(source)
    if path.exists():
        return path
    parts = source.split("/")
    if len(parts) < 2 or not all(parts) or ".." in parts:
        raise _absent(source, "no hub id, which would be USER/NAME/FOLDER")
    return _fetched(source, "/".join(parts[:2]), "/".join(parts[2:]))


def _fetched(source: str, repository: str, inner: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    prefix = f"{inner}/" if inner else ""
    wanted = [inner] if inner.endswith(".pt") else [prefix + name for name in _FILES]
    unasked = unreachable()  # then what was fetched before will do
    try:
        folder = Path(
            snapshot_download(
                repository, allow_patterns=wanted, local_files_only=unasked is not None
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = unasked or first_line(error)
        raise _absent(source, f"the hub did not give it ({reason})") from error
    if not (folder / inner).exists():
        raise _absent(source, f"{repository} on the hub does not hold it")
    return folder / inner


def _absent(source: str, reason: str) -> SubjectError:
    return SubjectError(
        f"no autoencoder at {source}: it is no file or folder here and {reason}; name a .pt file, "
        "or a folder with cfg.json and its weights"
    )
