"""A workspace made without a model: as many neurons as wanted, with plausible figures and texts.

Everything is written by the store, as the stages write it, so whatever reads a workspace reads this
one. Run it to make one by hand: python tests/view/made_workspace.py FOLDER --neurons 100000
"""

import argparse
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuron_explainer import schemas, workspace
from neuron_explainer.histogram import HISTOGRAM_EDGES
from neuron_explainer.score.stage import TOKEN_SCORES
from neuron_explainer.store import SHARD_SIZE, Folder, Shard, replacing, shards_of
from neuron_explainer.workspace import Workspace

SUBJECT = "made"
SITE = "blocks.0.mlp.hook_post"
RUNS = ("made-first", "made-second")
SIMULATORS = ("simulated", "shuffled")
TOKENS = 64  # of a sequence
TOP, RANDOM, BANDS, PER_BAND = 20, 20, 5, 4
RECORDS = TOP + RANDOM + BANDS * PER_BAND
_SEQUENCES = 4_000
_FIRING = 6  # positions at which a record is above zero
_SYLLABLES = ("ba", "den", "fir", "gol", "ha", "kem", "li", "mur", "no", "pas", "ri", "sto", "tu")


@dataclass(frozen=True)
class MadeWorkspace:
    """What is written, and of how many neurons."""

    root: Path
    neurons: int
    seed: int = 0
    runs: tuple[str, ...] = RUNS
    simulated: bool = True  # whether simulations are kept beside their scores

    def write(self) -> Workspace:
        """Write all of it, and say where."""
        made = workspace.init(self.root)
        self._write_corpus(made.data / SUBJECT / "corpus")
        self._write_records(made)
        for number, run in enumerate(self.runs):
            self._write_run(made, run, number)
        return made

    @cached_property
    def words(self) -> list[str]:
        """The vocabulary: made words, each with the space before it."""
        pairs = [first + second for first in _SYLLABLES for second in _SYLLABLES]
        return [f" {first}{second}" for first in pairs for second in pairs[:12]]

    @cached_property
    def sequences(self) -> NDArray[np.int32]:
        """The corpus (sequences, tokens); the first token of each is special."""
        rng = np.random.default_rng(self.seed)
        ids = np.minimum(rng.zipf(1.4, (_SEQUENCES, TOKENS)), len(self.words)).astype(np.int32)
        ids[:, 0] = 0
        return ids

    @cached_property
    def _pool(self) -> NDArray[np.float16]:
        """Activations of one shard's records (records, tokens), which every shard turns."""
        rng = np.random.default_rng(self.seed + 1)
        rows = SHARD_SIZE * RECORDS
        values = np.zeros((rows, TOKENS), np.float16)
        places = rng.integers(1, TOKENS, (rows, _FIRING))
        strength = np.tile(np.linspace(4.0, 0.2, RECORDS), SHARD_SIZE)[:, None]
        found = np.round(rng.gamma(2.0, 0.5, (rows, _FIRING)) * strength, 1)
        np.put_along_axis(values, places, found.astype(np.float16), axis=1)
        return values

    @property
    def shards(self) -> list[Shard]:
        """As the stages cut them."""
        return shards_of(self.neurons)

    def activations(self, shard: Shard) -> NDArray[np.float16]:
        """Of all records of a shard (records, tokens)."""
        turned = np.roll(self._pool, shard.start // SHARD_SIZE, axis=1)
        turned[:, 0] = 0
        return turned[: (shard.stop - shard.start) * RECORDS]

    def sequences_of(self, shard: Shard) -> NDArray[np.int32]:
        """Which sequence each record of a shard is (records,); distinct within a neuron."""
        neurons = np.arange(shard.start, shard.stop, dtype=np.int64)
        start = neurons * 7919 % _SEQUENCES
        found = (start[:, None] + np.arange(RECORDS) * 61) % _SEQUENCES
        return found.astype(np.int32).ravel()

    def _write_corpus(self, path: Path) -> None:
        folder = Folder(path)
        folder.open({"excludes_first": True, "length": TOKENS})
        ids = self.sequences
        offsets = pa.array(np.arange(0, ids.size + 1, TOKENS, dtype=np.int32))
        table = pa.table(
            [
                pa.array(np.arange(len(ids), dtype=np.int32)),
                pa.array(np.zeros(len(ids), np.int32)),
                pa.ListArray.from_arrays(offsets, pa.array(ids.ravel())),
            ],
            schema=schemas.SEQUENCES,
        )
        with (
            replacing(path / "sequences.arrow") as file,
            pa.ipc.new_file(file, schemas.SEQUENCES) as sink,
        ):
            sink.write_table(table)
        folder.register("sequences.arrow", len(ids))
        texts = [b"<|start|>", *(word.encode() for word in self.words)]
        counts = np.bincount(ids.ravel(), minlength=len(texts))
        special = np.arange(len(texts)) == 0
        columns = [np.arange(len(texts), dtype=np.int32), texts, special, counts]
        folder.write({"vocabulary.parquet": pa.table(columns, schema=schemas.VOCABULARY)})
        folder.update({"complete": True, "excerpts": len(ids), "tokens": int(ids.size)})

    def _write_records(self, made: Workspace) -> None:
        folder = Folder(made.data / SUBJECT / SITE)
        folder.open({"site": SITE, "seed": self.seed, "top": TOP, "random": RANDOM})
        for shards in _together(self.shards):
            tables = {}
            for shard in shards:
                tables[shard.file("records")] = self._records(shard)
                tables[shard.file("neurons")] = self._neurons(shard)
                tables[shard.file("logit_effects")] = self._effects(shard)
            folder.write(tables)
        folder.update({"complete": True, "width": self.neurons})

    def _records(self, shard: Shard) -> pa.Table:
        count = shard.stop - shard.start
        kinds, ranks, bands, splits = _layout()
        return pa.table(
            [
                np.repeat(np.arange(shard.start, shard.stop, dtype=np.int32), RECORDS),
                pa.array(kinds * count),
                pa.array(ranks * count, pa.int16()),
                pa.array(bands * count, pa.int8()),
                pa.array(splits * count),
                self.sequences_of(shard),
                _lists(self.activations(shard)),
            ],
            schema=schemas.records(pa.float16()),
        )

    def _neurons(self, shard: Shard) -> pa.Table:
        neurons = np.arange(shard.start, shard.stop, dtype=np.int32)
        rng = np.random.default_rng([self.seed, shard.start])
        density = rng.beta(1.2, 12.0, len(neurons))
        maximum = 3.0 + rng.gamma(2.0, 1.0, len(neurons))
        boundaries = maximum[:, None] * np.array([0.1, 0.4, 0.7, 0.9])
        counts = np.zeros((len(neurons), len(HISTOGRAM_EDGES)), np.int64)
        counts[:, 0] = 200_000 * (1 - density)
        counts[:, 24:40] = rng.poisson(200, (len(neurons), 16))
        moments = [density * 0.7, density, 1.0 + 3.0 * rng.random(len(neurons)), 9.0 * density]
        return pa.table(
            [
                *(neurons, np.full(len(neurons), _SEQUENCES * (TOKENS - 1)), density, maximum),
                *moments,
                _lists(boundaries),
                _lists(counts),
            ],
            schema=schemas.NEURONS,
        )

    def _effects(self, shard: Shard) -> pa.Table:
        count = shard.stop - shard.start
        rng = np.random.default_rng([self.seed, shard.start, 1])
        effect = np.tile(np.r_[np.linspace(2.0, 0.1, 10), np.linspace(-0.1, -2.0, 10)], count)
        columns = [
            np.repeat(np.arange(shard.start, shard.stop, dtype=np.int32), 20),
            rng.integers(1, len(self.words), len(effect)).astype(np.int32),
            effect.astype(np.float32),
        ]
        return pa.table(columns, schema=schemas.LOGIT_EFFECTS)

    def _write_run(self, made: Workspace, run: str, number: int) -> None:
        folder = Folder(made.explanations / run)
        folder.open({"subject": SUBJECT, "explainer": "made", "llm": "made/model"})
        for shards in _together(self.shards):
            tables = {}
            for shard in shards:
                texts = [self.text(neuron, number) for neuron in range(shard.start, shard.stop)]
                tables[f"{SITE}/{shard.file('explanations')}"] = _explanations(shard, texts)
                tables[f"{SITE}/{shard.file('failures')}"] = schemas.FAILURES.empty_table()
            folder.write(tables)
        folder.update({"complete": True})
        for place, simulator in enumerate(SIMULATORS):
            self._write_scores(made, run, simulator, 0.55 - 0.1 * number - 0.5 * place)

    def text(self, neuron: int, number: int) -> str:
        """The explanation that a run gives of a neuron."""
        first, second, third = (
            self.words[(neuron * factor + number) % len(self.words)].strip()
            for factor in (31, 101, 317)
        )
        return f"mentions of {first} and {second}, above all where {third} follows"

    def _write_scores(self, made: Workspace, run: str, simulator: str, mean: float) -> None:
        folder = Folder(made.scoring / run / simulator)
        folder.open({"simulator": simulator, "seed": 0, "splits": ["calibration", "valid"]})
        for shards in _together(self.shards):
            tables = {}
            for shard in shards:
                tables[f"{SITE}/{shard.file('scores')}"] = self._scores(shard, mean)
                if self.simulated:
                    tables[f"{SITE}/{shard.file('simulations')}"] = self._simulations(shard, mean)
            folder.write(tables)
        folder.update({"complete": True, "predicts": "tokens"})

    def _scores(self, shard: Shard, mean: float) -> pa.Table:
        count = shard.stop - shard.start
        rng = np.random.default_rng([self.seed, shard.start, 2])
        columns: dict[str, Any] = {"neuron": np.arange(shard.start, shard.stop, dtype=np.int32)}
        for name in TOKEN_SCORES:
            values = np.clip(rng.normal(mean, 0.2, count), -1, 1)
            undefined = rng.random(count) < 0.02
            columns[name] = pa.array(values, mask=undefined)
            reasons = ["truth is constant" if each else None for each in undefined.tolist()]
            columns[f"{name}_undefined"] = pa.array(reasons, pa.string())
        return pa.table(columns)

    def _simulations(self, shard: Shard, mean: float) -> pa.Table:
        """Of the calibration and valid records: the truth on another scale, more or less noisy."""
        count = shard.stop - shard.start
        kinds, ranks, _, splits = _layout()
        chosen = [place for place, split in enumerate(splits) if split in {"calibration", "valid"}]
        rows = (np.arange(count)[:, None] * RECORDS + np.array(chosen)).ravel()
        predicted = self.activations(shard)[rows].astype(np.float32) * 2
        predicted[:, 1 :: max(2, round(6 * max(mean, 0.05)))] += 1.0
        none = pa.nulls(len(rows))
        return pa.table(
            [
                np.repeat(np.arange(shard.start, shard.stop, dtype=np.int32), len(chosen)),
                pa.array([kinds[place] for place in chosen] * count),
                pa.array([ranks[place] for place in chosen] * count, pa.int16()),
                pa.array([splits[place] for place in chosen] * count),
                self.sequences_of(shard)[rows],
                _lists(np.minimum(predicted, 10.0)),
                none.cast(pa.list_(pa.bool_())),
                none.cast(pa.bool_()),
                *(none.cast(pa.int16()) for _ in range(2)),
            ],
            schema=schemas.SIMULATIONS,
        )


def _layout() -> tuple[list[str], list[int], list[int | None], list[str | None]]:
    """Kind, rank, band and split of each record of a neuron."""
    turns = ("train", "calibration", "valid", "test")
    kinds = ["top"] * TOP + ["random"] * RANDOM + ["quantile"] * (BANDS * PER_BAND)
    ranks = [*range(TOP), *range(RANDOM), *range(BANDS * PER_BAND)]
    bands: list[int | None] = [None] * (TOP + RANDOM)
    bands += [place // PER_BAND for place in range(BANDS * PER_BAND)]
    splits: list[str | None] = [turns[place % 4] for place in range(TOP)]
    splits += [turns[1 + place % 3] for place in range(15)] + [None] * (RANDOM - 15)
    return kinds, ranks, bands, splits + [None] * (BANDS * PER_BAND)


def _lists(rows: NDArray[Any]) -> pa.ListArray:
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.ravel()))


def _explanations(shard: Shard, texts: list[str]) -> pa.Table:
    columns = [
        np.arange(shard.start, shard.stop, dtype=np.int32),
        pa.array(["made"] * len(texts)),
        pa.array(texts),
        *(pa.nulls(len(texts), field.type) for field in list(schemas.EXPLANATIONS)[3:]),
    ]
    return pa.table(columns, schema=schemas.EXPLANATIONS)


def _together(shards: list[Shard], number: int = 16) -> list[list[Shard]]:
    """Shards that are listed in one go: a manifest is written anew each time."""
    return [shards[start : start + number] for start in range(0, len(shards), number)]


def main() -> None:
    """Make one, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--neurons", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    MadeWorkspace(given.folder, given.neurons, given.seed).write()
    print(f"{given.neurons:,} neurons in {time.monotonic() - began:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()
