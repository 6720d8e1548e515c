"""Asks the viewer's live resources, without a network: the ASGI app itself, line by line."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
import torch
from fastapi import FastAPI

from neuron_explainer.subjects.base import Observer, Subject
from neuron_explainer.view.live import Live, LiveSettings
from neuron_explainer.view.live_routes import Offered
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.server import app as served
from neuron_explainer.workspace import Workspace

Line = dict[str, Any]


def app_of(workspace: Workspace, settings: LiveSettings) -> tuple[FastAPI, Live]:
    """The server of a workspace; `close()` the second when done."""
    source, live = Resources(workspace), Live(workspace, settings)
    return served(source, Offered(source, live)), live


class Asked:
    """One request that goes on until it is answered or `leave` is called."""

    def __init__(self, app: FastAPI, path: str, body: object) -> None:
        self._app = app
        self._path = path
        self._body = body if isinstance(body, bytes) else orjson.dumps(body)
        self._gone = asyncio.Event()
        self._rest = b""
        self.status = 0
        self.lines: asyncio.Queue[Line] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    async def line(self) -> Line:
        """The next line of the reply."""
        return await self.lines.get()

    async def all(self) -> list[Line]:
        """All lines that are left, once the reply has ended."""
        await self._task
        return [self.lines.get_nowait() for _ in range(self.lines.qsize())]

    async def leave(self) -> None:
        """Close the connection, and wait until the server has let go of the request."""
        self._gone.set()
        await self._task

    async def _run(self) -> None:
        sent = False
        answered = asyncio.Event()

        async def receive() -> Mapping[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": self._body, "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            self._rest += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set()
                self._rest += b"\n"
            *whole, self._rest = self._rest.split(b"\n")
            for line in filter(None, whole):
                self.lines.put_nowait(orjson.loads(line))

        await self._app(_scope(self._path), receive, send)  # type: ignore[arg-type]


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:7861"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7861),
    }


def ask(app: FastAPI, path: str, body: object) -> tuple[int, list[Line]]:
    """The status and all lines of one reply."""

    async def whole() -> tuple[int, list[Line]]:
        asked = Asked(app, path, body)
        lines = await asked.all()
        return asked.status, lines

    return asyncio.run(whole())


class Held:
    """A subject that begins a forward pass and waits in it until it may go on."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.begun, self.may_go = threading.Semaphore(0), threading.Semaphore(0)
        self.passes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subject, name)

    def observe(self, tokens: torch.Tensor, observers: Mapping[str, Observer]) -> None:
        """As the subject does, once it may."""
        self.passes += 1
        self.begun.release()
        self.may_go.acquire()
        self._subject.observe(tokens, observers)

    def free(self) -> None:
        """Let all passes go from now on."""
        self.may_go.release(1_000_000)


async def soon(event: Callable[[], object]) -> None:
    """Wait in a thread for something that blocks."""
    with suppress(asyncio.CancelledError):
        await asyncio.to_thread(event)
