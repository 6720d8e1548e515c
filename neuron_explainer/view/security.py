"""Who may ask the viewer's server, and what it tells browsers to keep to.

The server answers this machine's browser and nobody else: not pages of other sites that the browser
has open (Origin, Sec-Fetch-Site), not names that were made to point here (Host), and from other
machines only those who have the token. What it sends runs nothing but its own scripts.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import URL, Headers, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuron_explainer.view.contract import encode

LARGEST_BODY = 1 << 18  # bytes of a request

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_FOREIGN = {"cross-site", "same-site"}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask: by default this machine alone.

    `host` is the address that the server listens on; one that is not loopback needs a `token`.
    """

    host: str = "127.0.0.1"
    token: str | None = None

    @property
    def cookie(self) -> str:
        """The name of the cookie that keeps the token: another one for each server of a host."""
        digest = hashlib.sha256((self.token or "").encode()).hexdigest()
        return f"neuron_explainer_{digest[:8]}"

    def knows_host(self, host: str) -> bool:
        """Whether a request may be addressed to this name.

        A server that listens everywhere has names that it cannot know; there the token alone, whose
        cookie goes to no other name, keeps strangers out.
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].lower()
        wanted = f"[{self.host}]" if ":" in self.host else self.host.lower()
        if name in _LOOPBACK or name == wanted:
            return True
        return self.token is not None and is_everywhere(self.host)

    def knows_token(self, given: str | None) -> bool:
        """Whether `given` is the token; compared in constant time."""
        if self.token is None:
            return True
        return hmac.compare_digest((given or "").encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_everywhere(host: str) -> bool:
    """Whether an address stands for all of this machine's."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


class Guard:
    """Lets through what may be asked, and puts the headers on every reply."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headed = _with_headers(scope["path"], send)
        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, headed)
            return
        if scope["method"] == "POST":
            body = await _body(receive)
            if body is None:
                await _TOO_LARGE(scope, receive, headed)
                return
            receive = _again(body, receive)
        await self.app(scope, receive, headed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.access.knows_host(host):
            return _refused(403, "this server is not known by that name: use the URL it printed")
        if not _is_own(scope, headers, host):
            return _refused(403, "requests from pages of other sites are not answered")
        if scope["method"] == "POST" and (wrong := _wrong_body(headers)):
            return wrong
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self.access.token is None:
            return None
        query = QueryParams(scope["query_string"])
        if scope["method"] == "GET" and self.access.knows_token(query.get("token")):
            return self._welcome(scope)
        cookies = cookie_parser(headers.get("cookie", ""))
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self.access.knows_token(cookies.get(self.access.cookie) or bearer):
            return None
        return _refused(401, "this server wants its token: open the URL that it printed")

    def _welcome(self, scope: Scope) -> Response:
        """Keep the token in a cookie, and load the same page without it.

        By `Refresh`: after a redirect, a browser that comes from elsewhere would not send the
        cookie along.
        """
        url = URL(scope=scope).remove_query_params("token")
        target = (url.path.lstrip("/") or "./") + (f"?{url.query}" if url.query else "")
        reply = HTMLResponse("<!doctype html><title>neuron-explainer</title>")
        reply.headers["Refresh"] = f"0; url=/{target.removeprefix('./')}"
        reply.headers["Cache-Control"] = "no-store"
        reply.set_cookie(
            self.access.cookie, self.access.token or "", httponly=True, samesite="strict", path="/"
        )
        return reply


def _is_own(scope: Scope, headers: Mapping[str, str], host: str) -> bool:
    """Whether a request comes from this server's pages, or is none that a page makes."""
    origin = headers.get("origin")
    if origin is not None and origin != f"{scope['scheme']}://{host}":
        return False
    foreign = headers.get("sec-fetch-site") in _FOREIGN
    # a link from elsewhere may lead to a page
    opened = headers.get("sec-fetch-mode") == "navigate" and not scope["path"].startswith("/api/")
    return not foreign or (opened and scope["method"] == "GET")


def _wrong_body(headers: Mapping[str, str]) -> Response | None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return _refused(415, "the body must be application/json")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return _TOO_LARGE
    return None


async def _body(receive: Receive) -> bytes | None:
    """A whole body, whatever length its headers named; None for one that is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was taken already, then what comes after it."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(path: str, send: Send) -> Send:
    caching = "no-store" if path.startswith("/api/") else "no-cache"

    async def headed(message: Message) -> None:
        if message["type"] == "http.response.start":
            held = Headers(raw=message["headers"])
            added = {**_HEADERS, "Cache-Control": caching}
            message["headers"] = [
                *message["headers"],
                *(
                    (name.lower().encode(), value.encode())
                    for name, value in added.items()
                    if name not in held
                ),
            ]
        await send(message)

    return headed


def _refused(status: int, why: str) -> Response:
    return Response(encode({"error": why, "run": None}), status, media_type="application/json")


_TOO_LARGE = _refused(413, f"the body must not exceed {LARGEST_BODY:,} bytes")
