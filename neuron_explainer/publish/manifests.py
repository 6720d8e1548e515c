"""What the manifests say of a run, without anything that belongs to one machine."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import orjson
import pyarrow as pa

from neuron_explainer.publish.columns import RUNS
from neuron_explainer.record_set import Corpus, RecordSet
from neuron_explainer.runs import Run
from neuron_explainer.store import Folder

# a folder on this machine, perhaps behind the name of a backend: local//home/me/model
_OWN_PATH = re.compile(
    r"(?P<backend>(?:local|scripted)/)?(?P<path>(?:/|~|\.{1,2}/|[A-Za-z]:\\).*)", re.DOTALL
)
_SPENT = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cache_hits", "cost")


@dataclass(frozen=True, slots=True)
class Made:
    """One folder that took part in a run, with its manifest."""

    stage: str  # "corpus", "collect", "explain", "simulate"
    name: str  # the site, run or simulator; of a corpus the subject's
    manifest: Mapping[str, Any]
    sha256: str  # of its configuration and tables, as Folder.digest has it

    @property
    def config(self) -> Mapping[str, Any]:
        """What makes its results what they are."""
        found: Mapping[str, Any] = self.manifest["config"]
        return found

    @property
    def spending(self) -> Mapping[str, Any]:
        """What a language model took; empty where none was asked."""
        found: Mapping[str, Any] = self.manifest.get("spending") or {}
        return found


def made_of(run: Run) -> list[Made]:
    """The corpus, the record sets, the run and its simulations, as far as they are there."""
    return [
        Made(stage, name, portable(folder.manifest()), folder.digest())
        for stage, name, folder in _folders(run)
        if folder.exists
    ]


def _folders(run: Run) -> Iterator[tuple[str, str, Folder]]:
    data = run.workspace.data
    yield "corpus", run.subject, Corpus(data / run.subject / "corpus").folder
    for site in run.sites():
        yield "collect", site, RecordSet(data, run.subject, site).folder
    yield "explain", run.name, run.folder
    for simulator in run.simulators():
        yield "simulate", simulator, run.simulations(simulator)


def portable(value: Any) -> Any:
    """`value` with each path of this machine cut to its last part: it tells whose machine it is."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    match = _OWN_PATH.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    name = PurePosixPath(match["path"].replace("\\", "/")).name
    return f"{match['backend'] or ''}{name}"


def runs_table(run: Run) -> pa.Table:
    """Config `runs`: one row a folder."""
    rows = [
        {
            "stage": made.stage,
            "name": made.name,
            "subject": run.subject,
            "complete": bool(made.manifest.get("complete")),
            "package_version": made.manifest.get("package_version"),
            "schema_version": made.manifest.get("schema_version"),
            "sha256": made.sha256,
            **{key: made.spending.get(key) for key in _SPENT},
            "manifest": orjson.dumps(made.manifest, option=orjson.OPT_SORT_KEYS).decode(),
        }
        for made in made_of(run)
    ]
    return pa.Table.from_pylist(rows, schema=RUNS)
