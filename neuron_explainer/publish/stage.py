"""The publish stage: a run in, a dataset folder out."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from neuron_explainer import __version__
from neuron_explainer.publish.card import card
from neuron_explainer.publish.facts import facts_of
from neuron_explainer.publish.folder import CARD, FORMAT, PublishedFolder
from neuron_explainer.publish.manifests import made_of, portable
from neuron_explainer.publish.parts import Written, write_parts
from neuron_explainer.publish.readiness import Lack, lacks_of
from neuron_explainer.publish.settings import PublishSettings
from neuron_explainer.publish.tables import RunTables
from neuron_explainer.runner import Progress, silent
from neuron_explainer.runs import Run
from neuron_explainer.score.summary import references
from neuron_explainer.store import replace_file

DEFAULT = "published"  # in the run's own folder


@dataclass(frozen=True, slots=True)
class Published:
    """What publish did."""

    folder: PublishedFolder
    rows: Mapping[str, int]  # by config
    changed: bool  # False: it was all there already
    lacks: Sequence[Lack]  # empty unless the run was published in part


def publish(
    run: Run, to: Path | None, settings: PublishSettings, progress: Progress = silent
) -> Published:
    """Write `run` as a dataset to `to`, by default `published/` in its own folder.

    The same run gives the same bytes on every machine, and nothing is written when they are there.
    Raises DataError when the run is not whole or damaged, RunMismatch when `to` holds anything else
    than an earlier state of this dataset.
    """
    lacks = lacks_of(run, settings.without, settings.partial)
    folder = PublishedFolder(to or run.folder.path / DEFAULT)
    identity = _identity(run)
    folder.require_own(**identity)
    source = _source(run, settings)
    if folder.exists and folder.about().get("source") == source and folder.is_whole():
        rows = {name: entry["rows"] for name, entry in folder.about()["configs"].items()}
        return Published(folder, rows, False, lacks)

    def make(staging: Path) -> dict[str, Any]:
        configs = _write_configs(run, settings, staging, progress)
        facts = facts_of(run, settings, configs, lacks)
        replace_file(staging / CARD, card(facts).encode())
        about = {name: asdict(written) for name, written in configs.items()}
        made_by = {"subject": run.subject, "package_version": __version__}
        return {**identity, **made_by, "source": source, "configs": about}

    folder.write(make)
    rows = {name: entry["rows"] for name, entry in folder.about()["configs"].items()}
    return Published(folder, rows, True, lacks)


def rehearse(run: Run, settings: PublishSettings, progress: Progress = silent) -> dict[str, int]:
    """The files that `publish` would write, with their sizes: made, measured and thrown away.

    Raises what `publish` raises about the run.
    """
    with tempfile.TemporaryDirectory() as place:
        done = publish(run, Path(place) / DEFAULT, settings, progress)
        return done.folder.sizes()


def _identity(run: Run) -> dict[str, Any]:
    """What makes two folders two states of one dataset."""
    manifest = portable(run.folder.manifest())
    return {"run": run.name, "config": manifest["config"], "inputs": manifest.get("inputs", {})}


def _source(run: Run, settings: PublishSettings) -> str:
    """A hash over all that the dataset is made from."""
    content = {
        "format": FORMAT,
        "package_version": __version__,
        "settings": asdict(settings),
        "made": [made.manifest for made in made_of(run)],
        "references": [
            made.manifest for reference in references(run) for made in made_of(reference)
        ],
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _write_configs(
    run: Run, settings: PublishSettings, folder: Path, progress: Progress
) -> dict[str, Written]:
    """All configs that have rows."""
    tables = RunTables(run)
    written = {}
    with progress("publish", len(settings.configs), "tables") as advance:
        for config in settings.configs:
            made = write_parts(
                folder / "data" / config, tables.schema(config), tables.tables(config)
            )
            if made.rows:
                written[config] = made
            advance(1)
    return written
