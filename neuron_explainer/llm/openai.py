"""Any server that speaks the OpenAI protocol: chat and completions, one request at a time.

The SDK carries the bytes; what they say is built and verified in `wire`. Tries, waiting and limits
are the wrappers' business, so the SDK's own are off.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2
import openai
import orjson

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm import wire
from neuron_explainer.llm.base import BackendSettings, Capabilities, Request, Response, lacking
from neuron_explainer.llm.failures import Lack, Transient, from_status, malformed
from neuron_explainer.llm.overflow import Overflow, context_told

Sent = TypeVar("Sent")

OFFICIAL = "https://api.openai.com/v1"
_REMEMBERED = 512  # replies, to notice one that comes twice
_NO_KEY = "none"  # the SDK insists on one
_NO_LIST_OF_MODELS = (403, 404, 405, 501)
_CONTEXT_NAMES = ("max_model_len", "context_length", "context_window", "n_ctx")


class OpenAI:
    """The backend `openai/MODEL`. The key is read from OPENAI_API_KEY when it is made."""

    def __init__(self, model: str, settings: BackendSettings) -> None:
        self.model = model
        self._settings = settings
        self._url = (settings.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL).rstrip("/")
        self._key = _key(self._url)
        self._clients = [self._connect()]
        self.limit_name: wire.LimitName = (
            "max_completion_tokens" if self._url == OFFICIAL else "max_tokens"
        )
        self._form: wire.PromptForm = "echo"
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)
        self._capabilities: Capabilities | None = None

    def __repr__(self) -> str:
        return f"OpenAI({self.model!r}, {str(self)!r})"

    def _connect(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self._url,
            max_retries=0,
            timeout=self._settings.timeout,
        )

    @property
    def client(self) -> openai.AsyncOpenAI:
        """The SDK's client that is in use."""
        return self._clients[-1]

    async def capabilities(self) -> Capabilities:
        """All that the protocol has, with the context length where the server tells it."""
        if self._capabilities is None:
            context = self._settings.context or await self._context()
            self._capabilities = Capabilities(True, True, 20, True, True, True, context)
        return self._capabilities

    async def _context(self) -> int | None:
        try:
            response = await self.sent(lambda: self.client.get("/models", cast_to=httpx2.Response))
        except openai.APIStatusError as error:
            if error.status_code in _NO_LIST_OF_MODELS:
                return None
            raise self.status_error(error) from None
        return _context_length(wire.decode(response.content), self.model)

    async def complete(self, request: Request) -> Response:
        """The verified answer."""
        form, limit_name = self._form, self.limit_name
        body = wire.body(request, self.model, limit_name, form)
        try:
            response = await self._post(wire.path(request), body)
        except openai.APIStatusError as error:
            if limit_name == "max_tokens" and "max_completion_tokens" in error.response.text:
                self.limit_name = "max_completion_tokens"
                return await self.complete(request)
            if request.json_schema is not None and "response_format" in error.response.text:
                raise lacking("json_schema", str(self)) from None
            failure = self.status_error(error)
            if isinstance(failure, NeuronFailure) and failure.cause == "context-overflow":
                told = context_told(error.response.text, request.prompt, request.max_tokens)
                raise Overflow(str(failure), told) from None
            raise failure from None
        try:
            return wire.answer(response, request, str(self), form)
        except Lack as lack:
            if lack.feature == "prompt_logprobs" and self._form == form:
                self._form = "prompt_logprobs" if form == "echo" else "echo"  # for the next try
            raise

    def __str__(self) -> str:
        return str(httpx2.URL(self._url).copy_with(userinfo=b""))

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        content = orjson.dumps(body)
        headers = {"Content-Type": "application/json"}
        response = await self.sent(
            lambda: self.client.post(
                path, cast_to=httpx2.Response, content=content, options={"headers": headers}
            )
        )
        reply = wire.decode(self._without_key(response.content))
        if isinstance(reply, dict) and reply.get("id"):
            self._refuse_duplicate(hash(response.content))
        return reply

    def _refuse_duplicate(self, reply: int) -> None:
        """A reply that a server sends twice would be read as the next request's on its connection,
        and so on for ever. Replies have ids, so equal bytes are the same reply; then all
        connections are left for new ones.
        """
        if reply in self._recent:
            self._clients.append(self._connect())
            raise malformed("the server sent the same reply twice")
        self._recent.append(reply)

    async def sent(self, send: Callable[[], Awaitable[Sent]]) -> Sent:
        """What the SDK gets, within the time-out: its own is for each read, not for all of them.

        Raises Transient for what the network does; a status other than 200 is left as it is.
        """
        seconds = self._settings.timeout
        try:
            async with asyncio.timeout(seconds):
                return await send()
        except (TimeoutError, openai.APITimeoutError):
            raise Transient("timeout", f"{self} did not answer within {seconds:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            raise Transient(
                "connection",
                f"the connection to {self} failed: {type(cause).__name__}",
                unreachable=isinstance(cause, httpx2.ConnectError),
            ) from None

    def status_error(self, error: openai.APIStatusError) -> NeuronFailure | LLMError:
        """The SDK's error as ours, without the key."""
        detail = self._without_key(error.response.content).decode(errors="replace")
        return from_status(error.status_code, detail, error.response.headers, str(self))

    def _without_key(self, content: bytes) -> bytes:
        """What a server says, even one that repeats the key."""
        return content if self._key == _NO_KEY else content.replace(self._key.encode(), b"[key]")

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            await client.close()


def _key(url: str) -> str:
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key and url == OFFICIAL:
        raise LLMError("OPENAI_API_KEY is not set: set it, or choose another server by --base-url")
    return key or _NO_KEY


def _context_length(content: Any, model: str) -> int | None:
    listed = content.get("data") if isinstance(content, dict) else None
    models = [item for item in listed or () if isinstance(item, dict)]
    named = [item for item in models if item.get("id") == model]
    for item in named or (models if len(models) == 1 else []):
        meta = item.get("meta")
        known = item | (meta if isinstance(meta, dict) else {})
        found = (known.get(name) for name in _CONTEXT_NAMES)
        return next((length for length in found if isinstance(length, int)), None)
    return None
