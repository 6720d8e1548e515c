"""A seeded proxy that spoils a share of the replies of a real server, in the ways servers do.

Each arrival of a body draws from a generator seeded by the body and its count, so that which
requests fail does not depend on timing. It counts what it is asked.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

Write = Callable[[bytes], None]
Arrival = tuple[int, bytes]  # the client's life and the body

FAULTS = (
    "429",
    "429-retry-after",
    "500",
    "502",
    "reset",
    "reset-after-work",
    "half-body",
    "wrong-json",
    "no-choice",
    "null-content",
    "no-logprobs",
    "slow",
    "duplicate",
)
_HARMLESS = (None, "slow", "duplicate")  # the reply is whole


@dataclass
class FaultProxy:
    """Counts and spoils. `share` of the requests meet one of `faults`."""

    upstream: str
    share: float = 0.3
    seed: int = 0
    faults: tuple[str, ...] = FAULTS
    asked: Counter[bytes] = field(default_factory=Counter)  # body → times
    answered: Counter[bytes] = field(default_factory=Counter)  # body → whole replies sent
    met: Counter[str] = field(default_factory=Counter)
    tokens: list[int] = field(default_factory=list)  # of each reply of the server
    life: int = 0  # of the client: one more whenever it is started again
    latest: dict[bytes, tuple[int, str | None]] = field(default_factory=dict)  # life, fault
    again: list[Arrival] = field(default_factory=list)  # what came again though no fault was met
    connections: dict[asyncio.StreamWriter, bytes] = field(default_factory=dict)  # → last body
    unsettled: set[Arrival] = field(default_factory=set)  # the last of each that has ended
    inside: int = 0
    most_inside: int = 0
    url: str = ""

    async def left(self) -> None:
        """Wait until all connections of a client that has ended are read to their ends."""
        while self.connections:
            await asyncio.sleep(0.002)
        self.life += 1

    def draw(self, body: bytes) -> str | None:
        """The fault that this arrival meets."""
        chance = random.Random(f"{self.seed} {self.asked[body]} {body!r}")
        return chance.choice(self.faults) if chance.random() < self.share else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        self.connections[writer] = b""
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            self.unsettled.add((self.life, self.connections.pop(writer)))
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head, body = await _read_message(reader)
        if head.startswith(b"GET"):
            writer.write(await self._forward(head, body))
            return True
        self.asked[body] += 1
        self.connections[writer] = body
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            return await self._answer(head, body, writer)
        finally:
            self.inside -= 1

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        fault = self.draw(body)
        self.met[fault or "none"] += 1
        life, before = self.latest.get(body, (0, "never asked"))
        if before in _HARMLESS:
            self.again.append((life, body))
        self.latest[body] = (self.life, fault)
        early = _without_work(fault)
        if early is not None:
            writer.write(early)
            return True
        if fault == "reset":
            return _reset(writer)
        reply = await self._forward(head, body)
        if fault == "reset-after-work":
            return _reset(writer)
        if fault == "half-body":
            writer.write(reply[: len(reply) - 40])
            await writer.drain()
            return False
        if fault == "slow":
            for start in range(0, len(reply), 64):
                writer.write(reply[start : start + 64])
                await writer.drain()  # raises when the client has gone
                await asyncio.sleep(0)
        else:
            writer.write(_spoiled(fault, reply))
        await writer.drain()
        if fault in _HARMLESS:
            self.answered[body] += 1
        return True

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        address = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            start = head.split(b"\r\n", 1)[0]
            writer.write(
                start
                + b"\r\nHost: upstream\r\nContent-Type: application/json\r\nConnection: close\r\n"
                + b"Content-Length: %d\r\n\r\n" % len(body)
                + body
            )
            top, content = await _read_message(reader)
        finally:
            writer.close()
        if not head.startswith(b"GET"):
            self.tokens.append(orjson.loads(content).get("usage", {}).get("total_tokens", 0))
        return _message(top.split(b"\r\n", 1)[0], content)


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head, await reader.readexactly(length)


def _message(status: bytes, content: bytes, header: bytes = b"") -> bytes:
    return (
        status
        + b"\r\nContent-Type: application/json\r\n"
        + header
        + b"Content-Length: %d\r\n\r\n" % len(content)
        + content
    )


def _without_work(fault: str | None) -> bytes | None:
    if fault in ("429", "429-retry-after"):
        header = b"Retry-After: 7\r\n" if fault == "429-retry-after" else b""
        error = b'{"error": {"message": "slow down", "code": 429}}'
        return _message(b"HTTP/1.1 429 Too Many Requests", error, header)
    if fault == "500":
        return _message(b"HTTP/1.1 500 Internal Server Error", b'{"error": "oh"}')
    if fault == "502":
        return _message(b"HTTP/1.1 502 Bad Gateway", b"<html>502</html>")
    return None


def _reset(writer: asyncio.StreamWriter) -> bool:
    transport = writer.transport
    transport.abort()
    return False


def _spoiled(fault: str | None, reply: bytes) -> bytes:
    head, content = reply.split(b"\r\n\r\n", 1)
    status = head.split(b"\r\n", 1)[0]
    if fault == "duplicate":
        return reply + reply
    if fault == "wrong-json":
        return _message(status, b'{"choices": [{"message": nothing')
    parsed = orjson.loads(content)
    if fault == "no-choice":
        parsed["choices"] = []
    elif fault == "null-content":
        for choice in parsed["choices"]:
            choice |= {"message": {"role": "assistant", "content": None}, "logprobs": None}
    elif fault == "no-logprobs":
        for choice in parsed["choices"]:
            choice.pop("logprobs", None)
    return _message(status, orjson.dumps(parsed))


@asynccontextmanager
async def spoiling(upstream: str, **options: object) -> AsyncIterator[FaultProxy]:
    """A proxy before `upstream`; `options` are FaultProxy's fields."""
    proxy = FaultProxy(upstream, **options)  # type: ignore[arg-type]
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with suppress(asyncio.CancelledError):
            await proxy.serve(reader, writer)
        connections.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield proxy
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
