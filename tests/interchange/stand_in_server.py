"""A small HTTP server on this machine that stands in for a public one, and spoils some answers.

It is not the public service: it does what that service's documentation says, as far as the tests
need it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = tuple[int, bytes, dict[str, str]]  # status, body, headers
DROP: Answer = (0, b"", {})  # close the connection without an answer
CUT: Answer = (-1, b"half of a repl", {})  # say that more will come, and close


@dataclass
class StandIn:
    """Answers requests by `answer`, unless a fault is next in line."""

    answer: Callable[[str, str, Any], Answer]  # method, path, JSON body
    faults: list[Answer] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)  # "METHOD path" → times
    keys: set[str | None] = field(default_factory=set)
    url: str = ""

    def next(self, method: str, path: str, body: Any) -> Answer:
        """What is answered now."""
        self.asked[f"{method} {path}"] += 1
        return self.faults.pop(0) if self.faults else self.answer(method, path, body)


@contextmanager
def serving(server: StandIn) -> Iterator[StandIn]:
    """The server, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            server.keys.add(self.headers.get("X-Api-Key"))
            status, content, headers = server.next(method, self.path, body)
            if status <= 0:
                self.close_connection = True
                if status == CUT[0]:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content) + 100))
                    self.end_headers()
                    self.wfile.write(content)
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
