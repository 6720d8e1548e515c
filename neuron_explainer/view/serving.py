"""Listening: a port that is free, and the server until it is stopped."""

import errno
import os
import secrets
import socket
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from neuron_explainer.errors import ConfigError
from neuron_explainer.view.security import Access, is_everywhere, is_loopback

PORT = 7861
_SHORTEST_TOKEN = 16  # characters
_LAST_REQUESTS = 3  # seconds that they get to finish


@dataclass(frozen=True)
class Listening:
    """A socket that browsers may connect to already."""

    socket: socket.socket
    access: Access

    @property
    def port(self) -> int:
        """Which it got."""
        return int(self.socket.getsockname()[1])

    @property
    def url(self) -> str:
        """What to open; with the token, where there is one."""
        host = self.access.host
        if is_everywhere(host):
            host = socket.gethostname()
        elif ":" in host:
            host = f"[{host}]"
        query = "" if self.access.token is None else f"?token={self.access.token}"
        return f"http://{host}:{self.port}/{query}"


def access_for(host: str | None, token: str | None) -> Access:
    """Who may ask a server on `host`: where others reach it, those with a token, made if not given.

    Raises ConfigError for a token that could be guessed or does not fit in a URL.
    """
    if token is not None and (len(token) < _SHORTEST_TOKEN or not _is_plain(token)):
        raise ConfigError(
            f"--token takes at least {_SHORTEST_TOKEN} letters, digits, '-' and '_'; "
            "leave it out to have one made"
        )
    address = host or "127.0.0.1"
    if token is None and not is_loopback(address):
        token = secrets.token_urlsafe(32)
    return Access(address, token)


def listen(access: Access, port: int | None) -> Listening:
    """Take `port` of the host; by default 7861 or, where that is taken, a free one.

    Raises ConfigError when the host or port cannot be had.
    """
    try:
        return Listening(_bound(access.host, PORT if port is None else port), access)
    except OSError as error:
        taken = error.errno in {errno.EADDRINUSE, errno.EACCES}
        if port is None and taken:
            return Listening(_bound(access.host, 0), access)
        what = f"--port {port}" if taken else f"--host {access.host}"
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot listen at {what}: {reason}; choose another") from error


def server_of(app: FastAPI) -> uvicorn.Server:
    """What answers requests; it logs nothing but its own faults."""
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody may say on whose behalf they ask
        timeout_graceful_shutdown=_LAST_REQUESTS,
    )
    return uvicorn.Server(config)


def serve(app: FastAPI, listening: Listening) -> None:
    """Answer until the process is told to stop; what is being answered then gets a moment."""
    server_of(app).run([listening.socket])


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port that a server has just left is free
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _is_plain(token: str) -> bool:
    return token.isascii() and token.replace("-", "").replace("_", "").isalnum()
