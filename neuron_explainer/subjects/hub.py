"""The Hugging Face hub: asked once whether it is there, so that nothing waits for its retries."""

from functools import cache
from typing import Any

_PATIENCE = 5.0  # seconds


@cache
def unreachable() -> str | None:
    """Why the hub cannot be asked, or None when it answers. It is asked once in a process."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    session: Any = get_session()
    try:
        session.head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # noqa: BLE001  # whichever HTTP library huggingface_hub stands on
        return f"{constants.ENDPOINT} cannot be reached: {first_line(error)}"
    return None


def dataset_revision(name: str, asked: str | None) -> str | None:
    """The commit that a dataset's branch, tag or commit stands for, by default its main branch.

    None where the server has no commits. Raises what huggingface_hub raises.
    """
    from huggingface_hub import HfApi

    return HfApi().dataset_info(name, revision=asked, timeout=2 * _PATIENCE).sha


def first_line(error: BaseException) -> str:
    """What an error of the hub's libraries says first."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
