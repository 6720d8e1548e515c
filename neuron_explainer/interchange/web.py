"""HTTP with a service that publishes or takes data: bounded, tried again where that may help."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from neuron_explainer.errors import ConfigError, ServiceError
from neuron_explainer.llm.failures import brief, retry_after

LARGEST_REPLY = 32 << 20  # bytes
_ATTEMPTS = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds
_LONGEST_ASKED = 900.0  # a server that asks for more is not waited for
_WORTH_ANOTHER_TRY = (408, 425, 429)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server says."""

    status: int
    content: bytes

    def says(self) -> str:
        """One line of it."""
        return f"{self.status}: {brief(self.content.decode('utf-8', 'replace'))}"


class _Again(Exception):
    """A try that failed and may go well the next time."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass
class Web:
    """One server. `secret` is sent in a header and never shown; `sleep` is for tests."""

    url: str
    secret: tuple[str, str] | None = field(default=None, repr=False)  # header, value
    sleep: Callable[[float], Any] = time.sleep
    seconds: float = 60.0  # for each part of a request
    retries: int = 0  # how often something was tried again

    def __post_init__(self) -> None:
        self.url = check_url(self.url)
        header = dict([self.secret]) if self.secret else {}
        self._client = httpx2.Client(
            headers={"Accept-Encoding": "identity", **header}, timeout=self.seconds
        )

    def get(self, path: str) -> Reply:
        """What is at `path`. Raises ServiceError when no try has an answer."""
        return self._tried("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Reply:
        """The answer to a JSON body. Raises ServiceError as `get` does."""
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return self._tried("POST", path, content)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _tried(self, method: str, path: str, content: bytes | None) -> Reply:
        retrying = Retrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_wait,
            sleep=self._slept,
            retry_error_callback=_give_up,
        )
        reply: Reply = retrying(self._once, method, path, content)
        return reply

    def _slept(self, seconds: float) -> None:
        self.retries += 1
        self.sleep(seconds)

    def _once(self, method: str, path: str, content: bytes | None) -> Reply:
        headers = {} if content is None else {"Content-Type": "application/json"}
        where = f"{self.url}/{path.lstrip('/')}"
        try:
            with self._client.stream(method, where, content=content, headers=headers) as response:
                reply = Reply(response.status_code, self._without_secret(_body(response, where)))
                asked = retry_after(response.headers)
        except httpx2.TransportError as error:
            raise _Again(f"the connection to {where} failed: {type(error).__name__}") from None
        except httpx2.InvalidURL as error:
            raise ServiceError(f"{where} is no address") from error
        if reply.status in _WORTH_ANOTHER_TRY or reply.status >= 500:
            if asked is not None and asked > _LONGEST_ASKED:
                raise ServiceError(
                    f"{where} asks to wait {asked:,.0f} s: run the same command again after that"
                )
            raise _Again(f"{where} answers {reply.says()}", asked)
        return reply

    def _without_secret(self, content: bytes) -> bytes:
        return content.replace(self.secret[1].encode(), b"[key]") if self.secret else content


def check_url(url: str) -> str:
    """`url` without a slash at its end. Raises ConfigError unless https, or http here."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"'{url}' is no address: write it such as https://example.org") from error
    if parsed.userinfo:
        raise ConfigError("an address must not hold a password")
    if parsed.scheme != "https" and not (parsed.scheme == "http" and parsed.host in _LOOPBACK):
        raise ConfigError(f"'{url}' must begin with https:// (http:// is for this machine alone)")
    return url.rstrip("/")


def _body(response: httpx2.Response, where: str) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ServiceError(f"{where} answers in an encoding that was not asked for")
    parts, size = [], 0
    for part in response.iter_raw():
        parts.append(part)
        size += len(part)
        if size > LARGEST_REPLY:
            raise ServiceError(f"{where} holds over {LARGEST_REPLY >> 20} MB: it is not read")
    return b"".join(parts)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Again) and error.wait is not None:
        return error.wait + random.uniform(0, 0.1)
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (state.attempt_number - 1))
    return random.uniform(longest / 2, longest)


def _give_up(state: RetryCallState) -> Any:
    error = state.outcome.exception() if state.outcome else None
    raise ServiceError(
        f"{error} (after {state.attempt_number} tries): run the same command again later; "
        "it goes on from there"
    )
