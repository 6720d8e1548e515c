"""Which neurons of a site are most like a neuron, by the cosine of their directions.

output  what a neuron adds to the residual stream: a row of the output projection, a decoder's row
input   what excites it there: a row of the input projection, of a gate or of an encoder

All neurons of the site are compared, those that are not collected too, some at a time, so that
memory holds the directions and a few hundred rows of cosines.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from neuron_explainer import schemas
from neuron_explainer.errors import SubjectError
from neuron_explainer.subjects.base import ResidualReader, ResidualWriter, Subject
from neuron_explainer.subjects.weights import at_least_single

DIRECTIONS = ("output", "input")
_BLOCK = 256  # neurons at once: with 32,768 neurons their cosines take 32 MB


class Nearest:
    """The table `nearest` of a subject's sites, for the subjects that can tell."""

    def __init__(self, subject: Subject, number: int, block: int = _BLOCK) -> None:
        """Keep up to `number` neighbours of each neuron and direction."""
        self._subject = subject
        self._number = number
        self._block = block
        self._site: str | None = None
        self._units: dict[str, Tensor] = {}  # of that site, (neurons, width)

    @torch.inference_mode()
    def shard(self, site: str, neurons: Sequence[int]) -> dict[str, pa.Table]:
        """The table of these neurons, by name; none where the subject cannot tell.

        Raises SubjectError when a direction is not finite.
        """
        if not self._number:
            return {}
        if site != self._site:
            self._units = self._read(site)
            self._site = site
        parts = [
            _rows(direction, some, *closest(units, some, self._number))
            for start in range(0, len(neurons), self._block)
            for some in [torch.as_tensor(neurons[start : start + self._block])]
            for direction, units in self._units.items()
        ]
        if not parts:
            return {}
        table = pa.concat_tables(parts)
        order = [("neuron", "ascending"), ("direction", "descending"), ("rank", "ascending")]
        return {"nearest": table.sort_by(order)}

    def _read(self, site: str) -> dict[str, Tensor]:
        subject, every = self._subject, slice(None)
        written = subject.writes(site, every) if isinstance(subject, ResidualWriter) else None
        read = subject.reads(site, every) if isinstance(subject, ResidualReader) else None
        found = dict(zip(DIRECTIONS, (written, read), strict=True))
        return {name: _units(site, rows) for name, rows in found.items() if rows is not None}


def _units(site: str, rows: Tensor) -> Tensor:
    """Rows brought to length 1; one that is all zero stays so."""
    rows = at_least_single(rows)
    if not rows.isfinite().all():
        raise SubjectError(f"a weight that {site} is read through is not finite")
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1)


def closest(units: Tensor, neurons: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The others of largest cosine with each of `neurons`, by falling cosine, and the cosines.

    `units` (all, width) have length 1 or 0; both results are (neurons, number), or less wide where
    there are fewer others.
    """
    cosines = units[neurons.to(units.device)] @ units.T
    cosines[torch.arange(len(neurons)), neurons] = -torch.inf
    best = cosines.topk(min(number, len(units) - 1), 1)
    return best.indices, best.values


def _rows(direction: str, neurons: Tensor, others: Tensor, cosines: Tensor) -> pa.Table:
    """Those that are like the neuron at all: cosines of 0 say nothing."""
    kept = (cosines != 0).cpu()
    ranks = np.broadcast_to(np.arange(cosines.shape[1], dtype=np.int16), kept.shape)
    columns = [
        pa.array(np.repeat(neurons.numpy().astype(np.int32), kept.sum(1).numpy())),
        pa.repeat(direction, int(kept.sum())),
        pa.array(ranks[kept.numpy()]),
        pa.array(others.cpu()[kept].numpy().astype(np.int32)),
        pa.array(cosines.cpu()[kept].numpy().astype(np.float32)),
    ]
    return pa.table(columns, schema=schemas.NEAREST)
