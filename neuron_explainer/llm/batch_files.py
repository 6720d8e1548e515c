"""The files of the Batch API: one request or one reply a line, named by the request's key.

`vllm run-batch` and others read and write the same lines, so requests can be written here, run
elsewhere, and the replies read back (`batch_round`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from neuron_explainer.errors import DataError, NeuronFailure
from neuron_explainer.llm import wire
from neuron_explainer.llm.base import Request, Response
from neuron_explainer.llm.failures import Transient, from_status, malformed

_PREFIX = "/v1"
MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000  # the API takes 200 MB


def request_line(request: Request, model: str, limit_name: wire.LimitName = "max_tokens") -> bytes:
    """A request as a line of a batch's input."""
    line = {
        "custom_id": request.key(model),
        "method": "POST",
        "url": _PREFIX + wire.path(request),
        "body": wire.body(request, model, limit_name),
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class Part:
    """The requests of one batch: all to one endpoint. Key → line."""

    endpoint: str
    lines: Mapping[str, bytes]

    @property
    def content(self) -> bytes:
        """The file."""
        return b"".join(self.lines.values())


def parts(
    lines: Iterable[bytes], most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES
) -> Iterator[Part]:
    """Lines as batches within the limits on requests and bytes."""
    by_endpoint: dict[str, list[tuple[str, bytes]]] = {}
    for line in lines:
        request = orjson.loads(line)
        by_endpoint.setdefault(request["url"], []).append((request["custom_id"], line))
    for endpoint, items in by_endpoint.items():
        taken: dict[str, bytes] = {}
        size = 0
        for key, line in items:
            if taken and (len(taken) >= most_requests or size + len(line) > most_bytes):
                yield Part(endpoint, taken)
                taken, size = {}, 0
            taken[key] = line
            size += len(line)
        yield Part(endpoint, taken)


def answer_line(line: bytes, request: Request, who: str) -> Response:
    """A line of a batch's output or errors as a verified answer. Raises as `wire.answer` does."""
    content = wire.decode(line)
    error, response = content.get("error"), content.get("response") or {}
    status = response.get("status_code")
    if status == 200:
        return wire.answer(response.get("body"), request, who)
    if isinstance(status, int):
        detail = orjson.dumps(response.get("body")).decode()
        raise from_status(status, detail, {}, who)
    code = error.get("code") if isinstance(error, dict) else None
    if code == "batch_expired":
        raise Transient("timeout", "the batch expired before this request was answered")
    if code == "batch_cancelled":
        raise NeuronFailure("cancelled", "the batch was cancelled before this request was answered")
    raise malformed(f"the batch gives no reply to this request: {error}")


class ReplyFiles:
    """Where in files of replies each request's line is. A good line goes before a failed one."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Path, int]] = {}
        self._good: set[str] = set()

    def add(self, path: Path) -> None:
        """Index a file. Raises DataError for a line that is no reply."""
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._note(line, path, offset, number)
                offset += len(line)

    def _note(self, line: bytes, path: Path, offset: int, number: int) -> None:
        try:
            content = wire.decode(line)
            key, response = str(content["custom_id"]), content.get("response") or {}
        except (NeuronFailure, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number}: no reply of a batch ({error!r})") from error
        good = isinstance(response, dict) and response.get("status_code") == 200
        if good or key not in self._good:
            self._places[key] = (path, offset)
        if good:
            self._good.add(key)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def line(self, key: str) -> bytes:
        """A request's line."""
        path, offset = self._places[key]
        with path.open("rb") as file:
            file.seek(offset)
            return file.readline()

    def good(self, key: str) -> bool:
        """Whether a server answered the request."""
        return key in self._good

    @property
    def any_good(self) -> bool:
        """Whether a server answered any request."""
        return bool(self._good)

    def forget(self, key: str) -> None:
        """Leave a line out from now on."""
        self._places.pop(key, None)
        self._good.discard(key)
