"""A pass that is killed goes on from its last checkpoint, and comes to the same bytes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import files
from fake_subject import SITE, FakeSubject, table_lookup, write_documents

from neuron_explainer.collect.parts import Part, collect_part
from neuron_explainer.collect.stage import CHECKPOINT, collect
from neuron_explainer.config import CollectSettings, SubjectSettings

_FAKE = SubjectSettings(model="fake")
_BATCHES = 30

# dies before forward pass `batch`, or before the `sync`-th file is synced
_CHILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from test_checkpoint import run, subject_of

data, corpus, kind, when, part = sys.argv[3:]
subject, count = subject_of(), 0

def happened():
    global count
    count += 1
    if count == int(when):
        os.kill(os.getpid(), signal.SIGKILL)

if kind == "batch":
    real = subject.observe
    subject.observe = lambda *arguments: (happened(), real(*arguments))
else:
    os.fsync = lambda fd: happened()
run(Path(data), Path(corpus), subject, part == "part")
"""


def subject_of() -> FakeSubject:
    """Two neurons without ties."""
    table = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    return FakeSubject({SITE: table_lookup(table)})


def run(data: Path, corpus: Path, subject: FakeSubject, part: bool, every: int = 9) -> None:
    """Collect the corpus, or its only part, with a checkpoint every three batches."""
    settings = CollectSettings(
        corpus=str(corpus), sites=(SITE,), batch=4, checkpoint=every, excerpt_tokens=8
    )
    if part:
        collect_part(data, _FAKE, settings, Part(1, 1), subject=subject)
    else:
        collect(data, _FAKE, settings, subject=subject)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 50, 8) for _ in range(4 * _BATCHES)]
    return write_documents(tmp_path / "corpus.jsonl", documents)


def _without_locks(data: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(data).items() if not name.endswith(".lock")}


@pytest.mark.parametrize(
    ("kind", "when", "part"),
    [("batch", 20, "whole"), ("batch", 20, "part"), ("sync", 19, "whole")],
)
def test_a_killed_pass_goes_on_where_it_was(
    tmp_path: Path, corpus: Path, kind: str, when: int, part: str
) -> None:
    tests = Path(__file__).resolve().parent
    where = [str(tests), str(tests.parent), str(tmp_path / "killed"), str(corpus)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHILD, *where, kind, str(when), part], check=False
    )
    assert done.returncode == -9
    folder = tmp_path / "killed" / ("fake.parts/1-of-1" if part == "part" else "fake")
    assert (folder / CHECKPOINT).is_file()
    subject = subject_of()
    run(tmp_path / "killed", corpus, subject, part == "part")
    assert 0 < len(subject.batches) < _BATCHES
    if kind == "batch":
        assert len(subject.batches) == _BATCHES - 18
    run(tmp_path / "undisturbed", corpus, subject_of(), part == "part", every=0)
    assert _without_locks(tmp_path / "killed") == _without_locks(tmp_path / "undisturbed")


def _left_at(data: Path, corpus: Path, batch: int) -> None:
    subject = subject_of()
    real = subject.observe

    def observe(*arguments: object) -> None:
        if len(subject.batches) == batch:
            raise KeyboardInterrupt
        real(*arguments)  # type: ignore[arg-type]

    subject.observe = observe  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        run(data, corpus, subject, part=False)


@pytest.mark.parametrize("damage", ["other batch size", "cut short", "one bit", "gone"])
def test_a_checkpoint_that_does_not_fit_is_not_taken_up(
    tmp_path: Path, corpus: Path, damage: str
) -> None:
    data = tmp_path / "data"
    _left_at(data, corpus, 20)
    path = data / "fake" / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "one bit":
        path.write_bytes(content)
    subject = subject_of()
    batch = 5 if damage == "other batch size" else 4
    settings = CollectSettings(
        corpus=str(corpus), sites=(SITE,), batch=batch, checkpoint=9, excerpt_tokens=8
    )
    collect(data, _FAKE, settings, subject=subject)
    assert sum(size for size, _ in subject.batches) == 4 * _BATCHES
    assert not path.exists()
