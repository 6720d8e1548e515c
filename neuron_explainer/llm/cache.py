"""Replies by content: saved before they are used, asked for once, shared by processes.

One sqlite file with a write-ahead log. A reply is committed in the same step of the event loop in
which it arrives, so neither Ctrl-C nor a kill comes between; that takes some tens of microseconds,
for the disk is not waited for. A thread sees to that about once a second: a loss of power costs the
last second's replies. When two processes ask the same at once, both use the reply saved first.
"""

import asyncio
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import numpy as np
import orjson
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from neuron_explainer.errors import DataError, LLMError, WorkspaceError
from neuron_explainer.llm.base import (
    LLM,
    Capabilities,
    Choice,
    Logprobs,
    Masses,
    Reading,
    Request,
    Response,
    Usage,
    reader,
)

Answer = TypeVar("Answer", Response, Masses)

_TABLE = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply BLOB) WITHOUT ROWID"
_BUSY_SECONDS = 60.0
_SYNC_SECONDS = 1.0
_COMPRESS_ABOVE = 2048  # bytes


@dataclass(slots=True)
class _Flight:
    """A request on its way, and how many wait for it."""

    task: asyncio.Task[Any]
    waiting: int = 0


@retry(
    retry=retry_if_exception_message(match="database is locked"),
    stop=stop_after_delay(_BUSY_SECONDS),
    wait=wait_random(0.01, 0.1),
    reraise=True,
)
def _use_wal(database: sqlite3.Connection) -> None:
    """Two processes may turn a new file to WAL at once: then sqlite fails without waiting."""
    database.execute("PRAGMA journal_mode = WAL")


class Cache:
    """An LLM that remembers what another one answered."""

    def __init__(self, inner: LLM, path: Path) -> None:
        self._inner = inner
        self._path = path
        self._flights: dict[str, _Flight] = {}
        self._thread = ThreadPoolExecutor(1, "llm-cache")
        self._synced = monotonic()
        self._syncing: Future[None] | None = None
        self.hits = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database, self._checkpoints = self._open(), self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def _open(self) -> sqlite3.Connection:
        # every statement is a transaction of its own
        database = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        _use_wal(database)
        database.execute("PRAGMA synchronous = NORMAL")  # see the top
        database.execute(_TABLE)
        return database

    @property
    def model(self) -> str:
        """The wrapped model's name."""
        return self._inner.model

    async def capabilities(self) -> Capabilities:
        """The wrapped model's; those it last had when it cannot be had now."""
        key = f"capabilities {self.model}"
        try:
            found = await self._inner.capabilities()
        except LLMError:
            saved = self._read(key)
            if saved is None:
                raise
            return Capabilities(**orjson.loads(saved))
        content = orjson.dumps(found)
        if self._read(key) != content:
            self._write("INSERT OR REPLACE", key, content)
        return found

    async def complete(self, request: Request) -> Response:
        """The remembered answer, or a new one, which is saved first."""
        key = request.key(self.model)
        return await self._kept(key, lambda: self._inner.complete(request), encode, decode)

    async def read(self, reading: Reading) -> Masses:
        """The remembered masses, or new ones, which are saved first."""
        key, inner = reading.key(self.model), reader(self._inner)
        return await self._kept(key, lambda: inner.read(reading), encode_masses, decode_masses)

    async def _kept(
        self,
        key: str,
        ask: Callable[[], Awaitable[Answer]],
        encode: Callable[[Answer], bytes],
        decode: Callable[[bytes], Answer],
    ) -> Answer:
        flight = self._flights.get(key)
        if flight is None:
            saved = self._read(key)
            if saved is not None:
                self.hits += 1
                return decode(saved)
            task = asyncio.create_task(self._fetch(key, ask, encode, decode))
            flight = self._flights[key] = _Flight(task)
            task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiting += 1
        try:
            # shielded: one that stops waiting must not take the reply from the others
            answer: Answer = await asyncio.shield(flight.task)
            return answer
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._forget(key, flight.task)  # first, so that nobody joins a cancelled one
                flight.task.cancel()

    def _forget(self, key: str, task: asyncio.Task[Any]) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # looked at: when all have stopped waiting, nobody else will

    async def _fetch(
        self,
        key: str,
        ask: Callable[[], Awaitable[Answer]],
        encode: Callable[[Answer], bytes],
        decode: Callable[[bytes], Answer],
    ) -> Answer:
        answer = await ask()
        content = encode(answer)
        self._write("INSERT OR IGNORE", key, content)
        saved = self._read(key)
        return answer if saved is None or saved == content else decode(saved)

    def _write(self, how: str, key: str, content: bytes) -> None:
        try:
            self._database.execute(f"{how} INTO replies VALUES (?, ?)", (key, content))
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        idle = self._syncing is None or self._syncing.done()
        if idle and monotonic() - self._synced > _SYNC_SECONDS:
            self._synced = monotonic()
            self._syncing = self._thread.submit(self._sync)

    def _sync(self) -> None:
        """Copy the log into the database, which waits for the disk. Runs in the thread."""
        with suppress(sqlite3.Error):  # what cannot be copied now stays in the log
            self._checkpoints.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _read(self, key: str) -> bytes | None:
        try:
            query = "SELECT reply FROM replies WHERE key = ?"
            row = self._database.execute(query, (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return None if row is None else bytes(row[0])

    async def close(self) -> None:
        """Stop what is on its way and close. What has arrived is saved already."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thread.shutdown()
        self._checkpoints.close()
        self._database.close()
        await self._inner.close()

    def _unusable(self, error: Exception) -> WorkspaceError:
        return WorkspaceError(
            f"the cache {self._path} cannot be used: {error}; "
            "free space, or delete the file (its replies are then asked for again)"
        )


def encode(response: Response) -> bytes:
    """A response as it is saved."""
    content = orjson.dumps(response)
    return zlib.compress(content, 1) if len(content) > _COMPRESS_ABOVE else content


def decode(content: bytes) -> Response:
    """The inverse of `encode`. Raises DataError."""
    try:
        # JSON begins with a brace, which no zlib stream does
        plain = content if content[:1] == b"{" else zlib.decompress(content)
        return _response(orjson.loads(plain))
    except (zlib.error, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise _damaged(error) from error


def encode_masses(masses: Masses) -> bytes:
    """Masses as they are saved: a line of JSON, then the values' bytes."""
    header = {"shape": masses.values.shape, "usage": masses.usage, "prefix": masses.prefix}
    line = orjson.dumps(header)
    return line + b"\n" + masses.values.astype("<f4").tobytes()


def decode_masses(content: bytes) -> Masses:
    """The inverse of `encode_masses`. Raises DataError."""
    line, _, values = content.partition(b"\n")
    try:
        header = orjson.loads(line)
        made = np.frombuffer(values, "<f4").reshape(header["shape"])
        return Masses(made, Usage(**header["usage"]), header.get("prefix"))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> DataError:
    return DataError(f"a saved reply is damaged ({error}); delete the cache's file")


def _response(saved: Mapping[str, Any]) -> Response:
    choices = tuple(
        Choice(
            choice["text"],
            choice["finish_reason"],
            _logprobs(choice["tokens"]),
            _logprobs(choice["prompt"]),
        )
        for choice in saved["choices"]
    )
    return Response(choices, Usage(**saved["usage"]), saved["model"])


def _logprobs(saved: Mapping[str, Any] | None) -> Logprobs | None:
    return None if saved is None else Logprobs(**saved)
