"""What can go wrong with one request, and which of it is worth another try.

    NeuronFailure       the prompt is too long, the budget is spent: no reply at all
    └── Unusable        a reply that was paid for and is of no use: refused, cut short
        └── Transient   may go well the next time; final once the tries are used up
            └── Lack    the reply is without something that was asked for
    LLMError
    └── Rejected        a request that the server finds wrong; where others went well, this one's

Causes: "timeout", "connection", "rate-limited", "server-error", "malformed-reply", "cut-short",
"refused", "context-overflow", "out-of-memory", "budget". What concerns every request is an
LLMError.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from neuron_explainer.errors import LLMError, NeuronFailure
from neuron_explainer.llm.base import Feature, Usage

_OVERFLOW = ("context_length", "context length", "context size", "exceed_context", "context window")
_MODERATION = ("content_policy", "content_filter", "content management", "moderation", "flagged")
_QUOTA = ("insufficient_quota", "billing_hard_limit", "credit balance")
_WORTH_ANOTHER_TRY = (408, 409, 425, 429)


class Unusable(NeuronFailure):
    """A reply that is of no use. `usage` is what it took, `reply` its text where it had one."""

    def __init__(
        self, cause: str, message: str, *, usage: Usage | None = None, reply: str | None = None
    ) -> None:
        super().__init__(cause, message)
        self.usage = usage or Usage(requests=1)
        self.reply = reply


class Transient(Unusable):
    """A request that failed and may go well the next time."""

    def __init__(
        self,
        cause: str,
        message: str,
        *,
        retry_after: float | None = None,
        usage: Usage | None = None,
        reply: str | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(cause, message, usage=usage, reply=reply)
        self.retry_after = retry_after
        self.unreachable = unreachable

    @property
    def slow_down(self) -> bool:
        """Whether the server said that there are too many requests."""
        return self.cause == "rate-limited"


class Lack(Transient):
    """The reply is without something that was asked for: a fault, or the server cannot do it."""

    def __init__(
        self, feature: Feature, message: str, *, usage: Usage | None, reply: str | None = None
    ) -> None:
        super().__init__("malformed-reply", message, usage=usage, reply=reply)
        self.feature = feature


class Rejected(LLMError):
    """The server finds the request itself wrong."""


def malformed(message: str, usage: Usage | None = None, reply: str | None = None) -> Transient:
    """A reply that is not what the protocol says."""
    return Transient("malformed-reply", message, usage=usage, reply=reply)


def from_status(
    status: int, detail: str, headers: Mapping[str, str], who: str
) -> NeuronFailure | LLMError:
    """The error for an HTTP status other than 200; `detail` is the body's text."""
    low, said = detail.lower(), f"{who} answers {status}: {brief(detail)}"
    if status in _WORTH_ANOTHER_TRY and not any(word in low for word in _QUOTA):
        cause = "rate-limited" if status == 429 else "server-error"
        return Transient(cause, said, retry_after=retry_after(headers))
    if any(word in low for word in _MODERATION):
        return NeuronFailure("refused", said)
    if status == 413 or any(word in low for word in _OVERFLOW):
        return NeuronFailure("context-overflow", said)
    if status >= 500:
        return Transient("server-error", said, retry_after=retry_after(headers))
    error = Rejected if status in (400, 422) else LLMError
    return error(f"{said}; {_what_to_do(status)}")


def _what_to_do(status: int) -> str:
    advice = {
        401: "set OPENAI_API_KEY to a key that this server accepts",
        402: "add credit to the account, or choose another --llm",
        403: "the key may not use this model: choose another --llm or another key",
        404: "check the model's name and that --base-url ends in /v1",
        429: "the account's quota is used up: add credit, then run the same command again",
    }
    return advice.get(status, "the server does not accept the request: choose other options")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, given as seconds, milliseconds or a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) / unit
        except ValueError:
            seconds = _until(text)
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _until(text: str) -> float:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return -1.0


def brief(detail: Any, limit: int = 300) -> str:
    """One line of at most `limit` characters."""
    text = " ".join(str(detail).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
