"""A small local implementation of the Batch API: files and batches, in memory.

No server at hand implements it, so this one stands in for OpenAI's, as its documentation describes
it; each line of a batch is answered by a real server. It is told what goes wrong.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass
class BatchServer:
    """`upstream` answers the lines."""

    upstream: str
    looks: int = 2  # how often a batch is polled before it ends
    answers: int | None = None  # lines answered before the batch expires; None: all
    failing_lines: int = 0  # how many lines fail with status 500 in the next batch
    refusal: str | None = None  # why the next batch is refused as a whole
    drop_creations: int = 0  # how many creations get no reply
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: Counter[str] = field(default_factory=Counter)  # custom_id → times answered
    url: str = ""

    async def handle(self, method: str, path: str, body: bytes) -> bytes | None:
        """The reply's JSON or content; None: the connection breaks."""
        path = path.split("?", maxsplit=1)[0].removeprefix("/v1")
        if (method, path) == ("POST", "/files"):
            return self._stored(_uploaded(body))
        if method == "GET" and path.endswith("/content"):
            return self.files[path.split("/")[2]]
        if (method, path) == ("POST", "/batches"):
            created = self._created(orjson.loads(body))
            if self.drop_creations:
                self.drop_creations -= 1
                return None
            return orjson.dumps(created)
        if (method, path) in (("GET", "/batches"), ("GET", "/models")):
            listed = list(self.batches.values()) if path == "/batches" else []
            return orjson.dumps({"object": "list", "data": listed, "has_more": False})
        return orjson.dumps(await self._looked_at(self.batches[path.split("/")[2]]))

    def _stored(self, content: bytes) -> bytes:
        identifier = f"file-{len(self.files)}"
        self.files[identifier] = content
        return orjson.dumps(
            {
                "id": identifier,
                "object": "file",
                "bytes": len(content),
                "created_at": 0,
                "filename": "x.jsonl",
                "purpose": "batch",
                "status": "processed",
            }
        )

    def _created(self, asked: dict[str, Any]) -> dict[str, Any]:
        identifier = f"batch_{len(self.batches)}"
        self.batches[identifier] = {
            "id": identifier,
            "object": "batch",
            "status": "in_progress",
            "created_at": 0,
            "looks": 0,
            **asked,
        }
        return self.batches[identifier]

    async def _looked_at(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looks"] += 1
        if batch["status"] == "in_progress" and batch["looks"] > self.looks:
            if self.refusal:
                batch |= {"status": "failed", "errors": {"data": [{"message": self.refusal}]}}
                self.refusal = None
            else:
                await self._worked_off(batch)
        return batch

    async def _worked_off(self, batch: dict[str, Any]) -> None:
        lines = [orjson.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        answered = lines if self.answers is None else lines[: self.answers]
        output, errors = b"", b""
        for line in answered:
            assert line["url"] == batch["endpoint"]
            reply = {"id": "x", "custom_id": line["custom_id"], "error": None}
            if self.failing_lines:
                self.failing_lines -= 1
                reply["response"] = {"status_code": 500, "body": {"error": {"message": "oh"}}}
                errors += orjson.dumps(reply) + b"\n"
                continue
            self.lines[line["custom_id"]] += 1
            status, content = await _post(self.upstream, line["url"], orjson.dumps(line["body"]))
            reply["response"] = {"status_code": status, "body": orjson.loads(content)}
            output = orjson.dumps(reply) + b"\n" + output  # in another order than asked
        for line in lines[len(answered) :]:
            error = {"code": "batch_expired", "message": "This request could not be executed"}
            lost = {"custom_id": line["custom_id"], "response": None, "error": error}
            errors += orjson.dumps(lost) + b"\n"
        batch["status"] = "completed" if self.answers is None else "expired"
        for name, content in (("output_file_id", output), ("error_file_id", errors)):
            if content:
                batch[name] = orjson.loads(self._stored(content))["id"]
        self.answers = None


def _uploaded(body: bytes) -> bytes:
    """The file in a multipart form."""
    boundary = body.split(b"\r\n", 1)[0]
    part = next(part for part in body.split(boundary) if b"filename=" in part)
    return part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")


async def _post(upstream: str, path: str, body: bytes) -> tuple[int, bytes]:
    address = urlsplit(upstream)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + body)
    try:
        return await _message(reader)
    finally:
        writer.close()
        await writer.wait_closed()


async def _message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(
        int(line.split(":")[1])
        for line in head.splitlines()
        if line.lower().startswith("content-length:")
    )
    return int(head.split()[1]), await reader.readexactly(length)


@asynccontextmanager
async def batches(upstream: str, **options: Any) -> AsyncIterator[BatchServer]:
    """A running batch server; `options` are BatchServer's fields."""
    server = BatchServer(upstream, **options)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _serve(server.handle, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test has ended
        finally:
            connections.discard(task)
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _serve(
    handle: Callable[[str, str, bytes], Any],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path = head.split()[:2]
        lengths = [
            int(line.split(":")[1])
            for line in head.splitlines()
            if line.lower().startswith("content-length:")
        ]
        body = await reader.readexactly(lengths[0] if lengths else 0)
        content = await handle(method, path, body)
        if content is None:
            return
        kind = b"application/octet-stream" if path.endswith("/content") else b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind)
        writer.write(b"\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()
