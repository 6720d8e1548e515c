"""Explanations and simulations on disk, and the tables they are read from and written to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_explainer import schemas
from neuron_explainer.errors import DataError
from neuron_explainer.records import (
    Explanation,
    Fit,
    NeuronId,
    Record,
    Simulation,
    TokenTable,
)
from neuron_explainer.store import Folder
from neuron_explainer.workspace import Workspace, check_name

_FITS = ("examples", "examples_dropped", "items", "items_dropped")
_BYTES, _FLOATS = pa.list_(pa.binary()), pa.list_(pa.float32())


@dataclass(frozen=True)
class Run:
    """A run of explanations: `explanations/<name>/`."""

    workspace: Workspace
    name: str

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def folder(self) -> Folder:
        """Where its explanations are."""
        return Folder(
            self.workspace.explanations / self.name,
            f"neuron-explainer explain --run {quote(self.name)}",
        )

    @property
    def subject(self) -> str:
        """The name of the record sets that it explains."""
        return str(self.folder.manifest()["config"]["subject"])

    def sites(self) -> list[str]:
        """The sites with explanations, in order."""
        names = {file.rpartition("/")[0] for file in self.folder.manifest()["shards"]}
        return sorted(names, key=lambda site: (int(site.split(".")[1]), site))

    def simulations(self, simulator: str) -> Folder:
        """Where one simulator's simulations and scores are."""
        return Folder(
            self.workspace.scoring / self.name / check_name(simulator),
            f"neuron-explainer simulate {quote(self.name)} --simulator {quote(simulator)}",
        )

    def simulators(self) -> list[str]:
        """The simulators that have been run on it."""
        root = self.workspace.scoring / self.name
        return sorted(path.parent.name for path in root.glob("*/manifest.json"))

    def taken(self) -> dict[str, dict[str, float | None]]:
        """Tokens and US dollars a neuron, of the explainer and of each simulator with a model."""
        folders = {"explainer": self.folder}
        folders |= {name: self.simulations(name) for name in self.simulators()}
        found = {
            name: folder.manifest().get("spending", {}).get("per_neuron")
            for name, folder in folders.items()
        }
        return {name: means for name, means in found.items() if means}

    def require(self) -> None:
        """Raises DataError when there is no such run, and names those that there are."""
        if not self.folder.exists:
            known = sorted(path.parent.name for path in self.folder.path.parent.glob("*/*.json"))
            raise DataError(
                f"there is no run '{self.name}' in {self.workspace.explanations}; "
                f"there are: {', '.join(known) or 'none'}"
            )

    def changed_since(self, simulations: Folder) -> list[str]:
        """The shards of explanations that were simulated there and have changed since."""
        now = self.folder.manifest()["shards"]
        before = simulations.manifest().get("inputs", {})
        return [
            file
            for file, digest in before.items()
            if "/explanations-" in file
            and simulations.has(simulated_in(file))
            and now.get(file, {}).get("sha256") != digest
        ]

    def explanations(self, site: str, file: str) -> dict[int, Explanation]:
        """One shard's explanations by neuron."""
        table = self.folder.read(file)
        return {
            explanation.neuron.index: explanation
            for explanation in _explanations(table, self.subject, site)
        }

    def explanation(self, neuron: NeuronId) -> Explanation | None:
        """One neuron's explanation, where there is one."""
        name = f"{neuron.site}/explanations"
        if not any(neuron.index in shard for shard, _ in self.folder.shards(name)):
            return None
        table = self.folder.read_neuron(name, neuron.index)
        return next(_explanations(table, neuron.subject, neuron.site), None)


def simulated_in(explanations: str) -> str:
    """The file that holds the simulations of a shard of explanations."""
    site, _, name = explanations.rpartition("/explanations-")
    return f"{site}/simulations-{name}"


def explanation_table(explanations: Sequence[Explanation]) -> pa.Table:
    """Explanations as they are stored, sorted by neuron."""
    tables = [explanation.table for explanation in explanations]
    columns = [
        pa.array([explanation.neuron.index for explanation in explanations], pa.int32()),
        pa.array([explanation.explainer for explanation in explanations], pa.string()),
        pa.array([explanation.text for explanation in explanations], pa.string()),
        pa.array([table.previous if table else None for table in tables], _BYTES),
        pa.array([table.tokens if table else None for table in tables], _BYTES),
        pa.array([table.activations if table else None for table in tables], _FLOATS),
        pa.array([table.shares if table else None for table in tables], _FLOATS),
        pa.array([table.otherwise if table else None for table in tables], pa.float32()),
        pa.array([explanation.candidate for explanation in explanations], pa.string()),
        *_fit_columns([explanation.fit for explanation in explanations], _FITS),
    ]
    return pa.table(columns, schema=schemas.EXPLANATIONS)


def _explanations(table: pa.Table, subject: str, site: str) -> Iterator[Explanation]:
    for row in table.to_pylist():
        yield explanation_of(row, NeuronId(subject, site, row["neuron"]))


def explanation_of(row: Mapping[str, Any], neuron: NeuronId) -> Explanation:
    """One row of an explanation table as an object."""
    found = None
    if row["table_token"] is not None:
        found = TokenTable(
            tuple(row["table_previous"]),
            tuple(row["table_token"]),
            tuple(row["table_activation"]),
            tuple(row["table_share"]),
            row["table_otherwise"],
        )
    candidate, fit = row.get("candidate"), _fit_of(row)
    return Explanation(neuron, row["explainer"], row["text"], found, candidate, fit)


def simulation_table(
    neurons: Sequence[int],
    records: Sequence[Sequence[Record]],
    simulations: Sequence[Sequence[Simulation]],
) -> pa.Table:
    """Simulations as they are stored: one row a record, in the records' order."""
    rows = [
        (neuron, rank, record, simulation)
        for neuron, of_neuron, made in zip(neurons, records, simulations, strict=True)
        for rank, (record, simulation) in enumerate(zip(of_neuron, made, strict=True))
    ]
    lengths = [len(simulation.activations) for _, _, _, simulation in rows]
    values = np.concatenate(
        [np.array([], np.float32), *(simulation.activations for _, _, _, simulation in rows)]
    ).astype(np.float32)
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    shown = [simulation.highlight for _, _, _, simulation in rows]
    columns = [
        pa.array([neuron for neuron, _, _, _ in rows], pa.int32()),
        pa.array([record.kind for _, _, record, _ in rows], pa.string()),
        pa.array([rank for _, rank, _, _ in rows], pa.int16()),
        pa.array([record.split for _, _, record, _ in rows], pa.string()),
        pa.array([record.sequence for _, _, record, _ in rows], pa.int32()),
        pa.ListArray.from_arrays(offsets, pa.array(values, mask=np.isnan(values))),
        pa.array([made and made.tokens for made in shown], pa.list_(pa.bool_())),
        pa.array([made and made.genuine for made in shown], pa.bool_()),
        *_fit_columns([simulation.fit for _, _, _, simulation in rows], _FITS[:2]),
    ]
    return pa.table(columns, schema=schemas.SIMULATIONS)


def _fit_columns(fits: Sequence[Fit | None], names: Sequence[str]) -> list[pa.Array]:
    return [pa.array([fit and getattr(fit, name) for fit in fits], pa.int16()) for name in names]


def _fit_of(row: Mapping[str, Any]) -> Fit | None:
    if row.get("examples") is None:  # also what was written before there was such a column
        return None
    return Fit(*(row[name] for name in _FITS))


def all_runs(workspace: Workspace) -> list[Run]:
    """Every run of a workspace, by name."""
    paths = sorted(workspace.explanations.glob("*/manifest.json"))
    return [Run(workspace, path.parent.name) for path in paths]


def runs_of(workspace: Workspace, subject: str) -> list[Run]:
    """The runs that explain `subject`."""
    return [run for run in all_runs(workspace) if run.subject == subject]
