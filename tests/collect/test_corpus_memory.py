"""Storing a corpus and reading it in batches holds the same however large it is, as measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
import re, sys
from pathlib import Path
import numpy as np
from neuron_explainer.collect.batches import batches
from neuron_explainer.collect.excerpts import ExcerptRule, write_corpus
from neuron_explainer.record_set import Corpus
from neuron_explainer.store import Folder


class Bytes:  # a token a byte
    vocabulary = tuple(bytes([value]) for value in range(256))
    special = np.zeros(256, bool)
    bos = None

    def encode(self, texts):
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


folder = Folder(Path(sys.argv[1]))
folder.open({"excludes_first": True})
documents = ("x" * 250 for _ in range(int(sys.argv[2])))
write_corpus(folder, documents, Bytes(), ExcerptRule(250))
corpus = Corpus(folder.path)
assert sum(len(batch.positions) for batch in batches(corpus, 32, 0)) == int(sys.argv[2])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def _peak(folder: Path, excerpts: int) -> float:
    """The most memory in MB that a process held which stored and read so many excerpts."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(folder), str(excerpts)],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell")
def test_ten_times_the_corpus_takes_no_more_memory(tmp_path: Path) -> None:
    small, large = (_peak(tmp_path / str(number), number) for number in (8_000, 80_000))
    (stored,) = (tmp_path / "80000").glob("*.arrow")
    assert stored.stat().st_size > 75e6
    assert large < small + 20
