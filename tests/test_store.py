"""Files are whole or absent, damage is found and named, and two writers never meet."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuron_explainer import __version__, parquet, store
from neuron_explainer.errors import (
    DataError,
    RunLocked,
    RunMismatch,
    SubjectError,
    WorkspaceError,
)
from neuron_explainer.parquet import serialise
from neuron_explainer.store import (
    SCHEMA_VERSION,
    Folder,
    Shard,
    locked,
    remove_leftovers,
    replace_file,
    replacing,
    shards_of,
)

REBUILD = "neuron-explainer collect --layer 3"
FILE = Shard(0, 8).file("records")


def _table(neurons: range, rows: int = 5, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    number = len(neurons) * rows
    values = rng.normal(size=number * 20).astype(np.float16)
    offsets = np.arange(0, number * 20 + 1, 20, dtype=np.int32)
    return pa.table(
        {
            "neuron": pa.array(np.repeat(np.array(neurons, np.int32), rows)),
            "kind": pa.array(["top"] * number, pa.string()),
            "activations": pa.ListArray.from_arrays(offsets, pa.array(values)),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with one shard of eight neurons."""
    made = Folder(tmp_path / "site", REBUILD)
    made.open({"seed": 0})
    made.write({FILE: _table(range(8))})
    return made


def _content(path: Path) -> dict[str, bytes]:
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def _leftovers(path: Path) -> list[Path]:
    return list(path.rglob(".*.tmp"))


# ---------------------------------------------------------------- replacing


def test_a_file_appears_whole_in_a_folder_that_is_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    replace_file(path, b"content")
    assert path.read_bytes() == b"content"
    assert not _leftovers(tmp_path)


def test_nothing_is_seen_before_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def _raise(error: Exception) -> Callable[..., Any]:
    def raising(*_: object, **__: object) -> None:
        raise error

    return raising


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("fsync", OSError(errno.ENOSPC, "no space")),
        ("fsync", OSError(errno.EIO, "input/output error")),
    ],
)
@pytest.mark.parametrize("existed", [True, False])
def test_a_failing_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: OSError, existed: bool
) -> None:
    path = tmp_path / "file"
    if existed:
        path.write_bytes(b"old")
    before = _content(tmp_path)
    monkeypatch.setattr(os, name, _raise(error))
    with pytest.raises(WorkspaceError) as raised:
        replace_file(path, b"new")
    assert str(path) in str(raised.value)
    assert os.strerror(error.errno or 0).lower() in str(raised.value)
    assert _content(tmp_path) == before


def test_a_failing_rename_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", _raise(PermissionError(errno.EACCES, "no")))
    with pytest.raises(WorkspaceError, match="permission denied"):
        replace_file(path, b"new")
    assert _content(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SubjectError("no")])
def test_any_error_in_the_block_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert _content(tmp_path) == {"file": b"old"}


def _onto_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file opened for writing is /dev/full, which the kernel never writes to."""
    real = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return real(Path("/dev/full") if "w" in mode else path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named_and_what_was_finished_is_kept(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _content(folder.path)
    with monkeypatch.context() as patched:
        _onto_full_disk(patched)
        with pytest.raises(WorkspaceError, match=r"no space left on device.*--workspace") as raised:
            folder.write({Shard(8, 16).file("records"): _table(range(8, 16))})
    assert "what was finished is kept" in str(raised.value)
    assert _content(folder.path) == before
    folder.write({Shard(8, 16).file("records"): _table(range(8, 16))})
    assert folder.read_all("records").num_rows == 80


@contextmanager
def _mounted(place: Path, size: str) -> Iterator[None]:
    """A file system of its own at `place`. Skips where that is not allowed."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_keeps_every_shard_that_was_finished(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    with _mounted(place, "256k"):
        folder = Folder(place / "site", REBUILD)
        folder.open({})
        written: list[Shard] = []

        def fill() -> None:
            for shard in shards_of(8000, 80):
                neurons = range(shard.start, shard.stop)
                folder.write({shard.file("records"): _table(neurons, seed=shard.start)})
                written.append(shard)

        with pytest.raises(WorkspaceError, match="no space left on device"):
            fill()
        assert written
        assert [shard for shard, _ in folder.shards("records")] == written
        assert folder.read_all("records").num_rows == 400 * len(written)
        assert not _leftovers(place)


@contextmanager
def _without_privileges() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_is_named(mode: int) -> None:
    place = Path(tempfile.mkdtemp())  # pytest's own folders may be entered by their owner alone
    place.chmod(mode)
    try:
        with _without_privileges():
            with pytest.raises(WorkspaceError, match=r"cannot write .*: permission denied"):
                replace_file(place / "file", b"")
            with (
                pytest.raises(WorkspaceError, match=r"cannot write .*: permission denied"),
                locked(place / "site"),
            ):
                pass
    finally:
        place.chmod(0o755)
    assert list(place.iterdir()) == []
    place.rmdir()


def test_a_read_only_file_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", _raise(OSError(errno.EROFS, "read-only")))
    with pytest.raises(WorkspaceError, match="read-only file system"):
        replace_file(tmp_path / "file", b"")


def test_a_file_in_a_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "site").write_bytes(b"a file")
    with pytest.raises(WorkspaceError, match="cannot write"):
        Folder(tmp_path / "site").open({})
    with pytest.raises(WorkspaceError, match="cannot write"), locked(tmp_path / "site"):
        pass


# ---------------------------------------------------------------- shards


@given(st.integers(0, 5000), st.integers(1, 700))
def test_shards_part_all_neurons(width: int, size: int) -> None:
    shards = shards_of(width, size)
    assert [neuron for shard in shards for neuron in range(shard.start, shard.stop)] == list(
        range(width)
    )
    assert all(shard.stop - shard.start <= size for shard in shards)


def test_what_was_written_comes_back(folder: Folder) -> None:
    assert folder.read(FILE).equals(_table(range(8)))
    assert folder.read(FILE, ["kind"]).column_names == ["kind"]
    assert folder.has(FILE)
    assert not folder.has(FILE, Shard(8, 9).file("records"))
    assert folder.manifest()["shards"][FILE]["rows"] == 40


def test_shards_are_listed_in_order_of_neurons_and_by_table(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.open({})
    for start in (100_000, 512, 0):
        shard = Shard(start, start + 2)
        folder.write(
            {
                shard.file("records"): _table(range(start, start + 2)),
                shard.file("blocks.0.mlp/records"): _table(range(start, start + 2)),
            }
        )
    starts = [shard.start for shard, _ in folder.shards("records")]
    assert starts == [0, 512, 100_000]
    assert folder.read_all("records")["neuron"].to_pylist()[::10] == [0, 512, 100_000]
    assert folder.read_neuron("blocks.0.mlp/records", 513)["neuron"].to_pylist() == [513] * 5
    assert folder.shards("neurons") == []


def test_shards_that_a_crash_cut_off_from_the_manifest_do_not_exist(folder: Folder) -> None:
    other = Shard(8, 16).file("records")
    (folder.path / other).write_bytes(serialise(_table(range(8, 16))))
    assert not folder.has(other)
    assert folder.read_all("records").num_rows == 40
    with pytest.raises(DataError, match="is not there; make it with neuron-explainer collect"):
        folder.read(other)
    with pytest.raises(DataError, match="holds no records of neuron 9"):
        folder.read_neuron("records", 9)


def test_several_tables_count_as_done_together_or_not_at_all(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = replace_file, []

    def failing(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise WorkspaceError("full")
        real(path, content)

    monkeypatch.setattr(store, "replace_file", failing)
    tables = {Shard(8, 16).file(name): _table(range(8, 16)) for name in ("records", "tokens")}
    with pytest.raises(WorkspaceError):
        folder.write(tables)
    assert not any(folder.has(file) for file in tables)


def test_a_shard_is_a_plain_parquet_file_with_checksums_and_small_row_groups(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pq.read_table(folder.path / FILE).equals(_table(range(8)))
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 2000)
    folder.write({FILE: _table(range(8))})
    assert pq.ParquetFile(folder.path / FILE).num_row_groups == 2
    pq.read_table(folder.path / FILE, page_checksum_verification=True)


def test_a_table_without_rows_is_a_shard_all_the_same(folder: Folder) -> None:
    folder.write({Shard(8, 16).file("records"): _table(range(8, 8))})
    assert folder.read_neuron("records", 9).num_rows == 0
    assert folder.read_all("records").num_rows == 40


def test_the_same_table_gives_the_same_bytes() -> None:
    assert serialise(_table(range(8))) == serialise(_table(range(8)))


def test_one_neuron_is_read_from_its_row_groups_alone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1000)
    table = _table(range(64), rows=3)
    folder.write({FILE: table.slice(0, 24), Shard(8, 72).file("tokens"): table})
    read: list[int] = []
    real = pq.ParquetFile.read_row_groups

    def counting(file: pq.ParquetFile, groups: list[int], **options: Any) -> pa.Table:
        read.append(len(groups))
        return real(file, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counting)
    for neuron in (8, 30, 63):
        found = folder.read_neuron("tokens", neuron)
        assert found.equals(table.slice(3 * neuron, 3))
    assert max(read) <= 2
    assert pq.ParquetFile(folder.path / Shard(8, 72).file("tokens")).num_row_groups > 8


def test_a_shard_made_anew_is_read_anew(folder: Folder) -> None:
    assert folder.read_neuron("records", 3).equals(_table(range(8)).slice(15, 5))
    folder.write({FILE: _table(range(8), seed=1)})
    assert folder.read_neuron("records", 3).equals(_table(range(8), seed=1).slice(15, 5))


# ---------------------------------------------------------------- damage


def _every_way_to_read(folder: Folder) -> list[Callable[[], object]]:
    return [
        lambda: folder.read(FILE),
        lambda: folder.read_all("records"),
        lambda: folder.read_neuron("records", 5),
    ]


def _is_damaged(folder: Folder, path: Path, read: Callable[[], object]) -> None:
    with pytest.raises(DataError) as raised:
        read()
    message = str(raised.value)
    assert f"{path} is damaged" in message
    assert message.endswith(f"delete {folder.path} and run {REBUILD}")
    assert "\n" not in message


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_shard_cut_short_is_named_with_the_command_that_rebuilds_it(
    folder: Folder, keep: int
) -> None:
    path = folder.path / FILE
    path.write_bytes(path.read_bytes()[:keep])
    for read in _every_way_to_read(folder):
        _is_damaged(folder, path, read)


def test_a_shard_with_one_bit_changed_is_named_wherever_the_bit_is(folder: Folder) -> None:
    path = folder.path / FILE
    good = path.read_bytes()
    folder.read_neuron("records", 5)  # what was read before does not hide it
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 50):
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        for read in _every_way_to_read(folder):
            _is_damaged(folder, path, read)
    path.write_bytes(good)
    for read in _every_way_to_read(folder):
        read()


def test_a_shard_that_is_gone_is_named(folder: Folder) -> None:
    (folder.path / FILE).unlink()
    assert not folder.has(FILE)
    for read in _every_way_to_read(folder):
        _is_damaged(folder, folder.path / FILE, read)


def test_a_shard_of_another_folder_is_found_out(folder: Folder, tmp_path: Path) -> None:
    (folder.path / FILE).write_bytes(serialise(_table(range(8), seed=1)))
    for read in _every_way_to_read(folder):
        _is_damaged(folder, folder.path / FILE, read)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"17",
        b"{}",
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "config": {}}',
        b'{"schema_version": 1, "shards": {}}',
        b'{"schema_version": "1", "config": {}, "shards": {}}',
        b'{"schema_version": 1, "config": [], "shards": {}}',
    ],
)
def test_a_damaged_manifest_is_named_with_the_command_that_rebuilds_it(
    folder: Folder, content: bytes
) -> None:
    path = folder.path / "manifest.json"
    path.write_bytes(content)
    for read in (
        folder.manifest,
        lambda: folder.open({"seed": 0}),
        lambda: folder.complete,
        folder.digest,
        lambda: folder.has(FILE),
        *_every_way_to_read(folder),
    ):
        _is_damaged(folder, path, read)


def test_a_manifest_with_one_byte_changed_never_gives_a_traceback(folder: Folder) -> None:
    path = folder.path / "manifest.json"
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 300):
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        for read in _every_way_to_read(folder):
            with suppress(DataError, WorkspaceError):
                read()


def test_results_of_a_newer_version_are_refused_and_not_called_damaged(folder: Folder) -> None:
    folder.update({})
    path = folder.path / "manifest.json"
    manifest = orjson.loads(path.read_bytes())
    manifest |= {"schema_version": SCHEMA_VERSION + 1, "package_version": "99.1"}
    path.write_bytes(orjson.dumps(manifest))
    with pytest.raises(WorkspaceError, match=r"newer neuron-explainer \(99.1\); upgrade this one"):
        folder.read(FILE)


def test_a_folder_without_results_says_how_to_make_them(tmp_path: Path) -> None:
    folder = Folder(tmp_path, REBUILD)
    assert not folder.exists
    assert not folder.complete
    assert not folder.has(FILE)
    with pytest.raises(DataError, match=f"{tmp_path} holds no results; make them with {REBUILD}"):
        folder.manifest()
    folder.open({})
    with pytest.raises(DataError, match=f"holds no records; make them with {REBUILD}"):
        folder.read_all("records")


# ---------------------------------------------------------------- runs


def test_the_same_configuration_opens_a_folder_again_and_changes_nothing(folder: Folder) -> None:
    before = _content(folder.path)
    folder.open({"seed": 0})
    assert _content(folder.path) == before


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ({"seed": 0}, {"seed": 1}, "seed = 0, not 1"),
        ({"seed": 0}, {"seed": 0, "top": 20}, "top = null, not 20"),
        ({"seed": 0, "top": 20}, {"seed": 0}, "top = 20, not null"),
        ({"b": 1, "a": 1}, {"a": 2, "b": 2}, "a = 1, not 2"),
        ({"a": "x" * 200}, {"a": "y"}, "…"),
        ({"a": {"deep": [1, 2]}}, {"a": {"deep": [1, 3]}}, "[1,3]"),
        ({"a": (1, 2)}, {"a": [1, 3]}, "[1,2], not [1,3]"),
    ],
)
def test_another_configuration_is_refused_and_the_differing_key_named(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], named: str
) -> None:
    folder = Folder(tmp_path)
    folder.open(old)
    before = _content(tmp_path)
    with pytest.raises(RunMismatch) as raised:
        folder.open(new)
    assert named in str(raised.value)
    assert "choose another name or delete that folder" in str(raised.value)
    assert _content(tmp_path) == before


def test_values_that_json_writes_alike_are_the_same_configuration(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.open({"splits": ("valid", "test"), "width": np.int64(3)})
    folder.open({"splits": ["valid", "test"], "width": 3})


def test_updates_merge_into_the_manifest_and_keep_the_rest(folder: Folder) -> None:
    before = folder.manifest()
    folder.update({"complete": True, "width": np.int64(8)})
    assert folder.complete
    assert folder.manifest() == before | {"complete": True, "width": 8}
    assert folder.manifest()["package_version"] == __version__
    assert (folder.path / "manifest.json").read_bytes().endswith(b"}\n")


def test_the_digest_is_of_configuration_and_content_and_nothing_else(
    folder: Folder, tmp_path: Path
) -> None:
    digest = folder.digest()
    folder.update({"complete": True, "note": "later"})
    assert folder.digest() == digest
    twin = Folder(tmp_path / "twin")
    twin.open({"seed": 0})
    twin.write({FILE: _table(range(8))})
    assert twin.digest() == digest
    twin.write({FILE: _table(range(8), seed=1)})
    assert twin.digest() != digest


# ---------------------------------------------------------------- locks


def test_a_lock_is_refused_while_another_process_holds_it_and_free_afterwards(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, pathlib\n"
        "from neuron_explainer.store import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        stdout: BinaryIO | Any = holder.stdout
        assert stdout.readline() == b"held\n"
        with (
            pytest.raises(RunLocked, match=f"{tmp_path} is being written by another process"),
            locked(tmp_path),
        ):
            pass
        holder.kill()  # a process that dies leaves no lock
        holder.wait()
    with locked(tmp_path):
        pass


def test_a_lock_is_refused_in_the_same_process_and_freed_by_an_error(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunLocked), locked(tmp_path):
        pass

    def fail() -> None:
        with locked(tmp_path):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    with locked(tmp_path):
        pass


def test_a_lock_removes_what_a_killed_process_left_anywhere_below(tmp_path: Path) -> None:
    left = [tmp_path / ".manifest.json.17.tmp", tmp_path / "a" / "b" / ".records.parquet.9.tmp"]
    kept = [tmp_path / "notes.tmp", tmp_path / "a" / ".hidden"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with locked(tmp_path):
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    remove_leftovers(tmp_path / "nowhere")


def test_a_folder_made_for_a_stage_that_cannot_run_goes_again(tmp_path: Path) -> None:
    place = tmp_path / "run"

    def refuse(results: bool) -> None:
        with locked(place):
            Folder(place).open({})
            if results:
                Folder(place).write({FILE: _table(range(8))})
            raise SubjectError("no such layer")

    with pytest.raises(SubjectError):
        refuse(results=False)
    assert not place.exists()
    with pytest.raises(SubjectError):
        refuse(results=True)
    assert Folder(place).has(FILE)
    with pytest.raises(SubjectError):
        refuse(results=False)  # it was there before
    assert Folder(place).has(FILE)


_COUNT_THREADS = """
import os, sys
from pathlib import Path
from neuron_explainer.store import Folder

def threads():
    return len(os.listdir("/proc/self/task"))

folder = Folder(Path(sys.argv[1]))
before = threads()
folder.read("records-00000-00007.parquet", ["neuron"])
print(threads() - before)
"""


def test_a_shard_is_read_without_threads_that_could_outlive_the_interpreter(folder: Folder) -> None:
    run = [sys.executable, "-c", _COUNT_THREADS, str(folder.path)]
    assert subprocess.run(run, capture_output=True, check=True, text=True).stdout == "0\n"
