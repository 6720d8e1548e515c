"""A published folder on the Hugging Face hub. The token is huggingface_hub's own affair."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from neuron_explainer.errors import ConfigError, RunMismatch, ServiceError
from neuron_explainer.publish.folder import ABOUT, CARD, PublishedFolder
from neuron_explainer.tokens import readable

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.A)
_HUBS_OWN = {".gitattributes", CARD}  # what a new repository may hold


def check_repository(name: str) -> str:
    """`name` of a dataset on the hub. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--hub {name}: write USER/NAME, in letters, digits, '.', '_' and '-'")
    return name


def push(folder: PublishedFolder, name: str, public: bool = False, api: HfApi | None = None) -> str:
    """Make dataset `name` on the hub hold what `folder` holds; its address.

    What the hub has already is not sent again, so the same call goes on where one was interrupted.
    A new dataset is private unless `public`. Raises RunMismatch when it holds another run or is not
    as private as asked, ServiceError when the hub refuses or cannot be reached.
    """
    api = api or HfApi(library_name="neuron-explainer")
    about = folder.about()
    with _explained(name):
        url = api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        _check_visibility(api, name, public)
        _check_content(api, name, about["run"])
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder.path,
            allow_patterns=list(folder.sizes()),
            delete_patterns="data/*",
            commit_message=f"Publish with neuron-explainer {about['package_version']}",
        )
    return str(url)


def _check_visibility(api: HfApi, name: str, public: bool) -> None:
    """A dataset that was there before keeps its visibility: it must be the one that is meant."""
    if bool(api.dataset_info(name).private) == public:
        found, wanted = ("private", "--public") if public else ("public", "private")
        remedy = "leave --public away" if public else "give --public"
        raise RunMismatch(
            f"dataset {name} on the hub is {found}, not {wanted}: {remedy}, choose another name, "
            "or change it in the dataset's settings"
        )


def _check_content(api: HfApi, name: str, run: str) -> None:
    files = set(api.list_repo_files(name, repo_type="dataset"))
    if ABOUT in files:
        with tempfile.TemporaryDirectory() as place:
            api.hf_hub_download(name, ABOUT, repo_type="dataset", local_dir=place)
            there = PublishedFolder(Path(place)).about()["run"]
        if there != run:
            raise RunMismatch(f"dataset {name} on the hub holds run '{there}': choose another name")
    elif foreign := sorted(files - _HUBS_OWN):
        raise RunMismatch(
            f"dataset {name} on the hub holds {foreign[0]}, which is not from publish: "
            "choose another name"
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Errors of the hub's library as one line, without what a request held."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ServiceError("the hub needs a token: run `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        said = {
            401: "the token is missing or not valid: run `hf auth login`, or set HF_TOKEN",
            403: "the token may not write there: choose a namespace of yours, or a token that may",
        }
        message = readable((error.server_message or "").encode("utf-8", "replace"))[:200]
        reason = said.get(status, f"it answered {status} {message}".rstrip())
        raise ServiceError(f"cannot push {name}: {reason}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        raise ServiceError(
            f"cannot push {name}: {type(error).__name__} on the way to the hub; "
            "the same command goes on from there"
        ) from error
