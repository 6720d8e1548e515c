"""The Batch API: half the price, an answer within a day.

Requests that arrive together become one batch, or several within the API's limits. A batch is
remembered in a folder before and after it is sent: NAME.requests.jsonl, NAME.json once it is
created, NAME.replies.jsonl once it has ended. So a process may go and another one take over, and
nothing is sent twice: a batch whose creation was not confirmed is looked for by its digest.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import openai
import orjson
from openai.types import Batch as SentBatch

from neuron_explainer.errors import ConfigError, LLMError
from neuron_explainer.llm.base import BackendSettings, Capabilities, Request, Response
from neuron_explainer.llm.batch_files import (
    MOST_BYTES,
    MOST_REQUESTS,
    Part,
    ReplyFiles,
    answer_line,
    parts,
    request_line,
)
from neuron_explainer.llm.failures import Transient, brief
from neuron_explainer.llm.openai import OpenAI
from neuron_explainer.llm.retry import persist
from neuron_explainer.llm.wire import decode
from neuron_explainer.store import locked, replace_file

Result = TypeVar("Result")

_TRIES = 8
_MARK = "neuron_explainer_digest"
_ENDED = ("completed", "expired", "cancelled")


class Batch:
    """The backend `batch/MODEL`. Its replies are those of `openai/MODEL`, and cached as such."""

    bulk = True
    most_requests = MOST_REQUESTS
    most_bytes = MOST_BYTES

    def __init__(self, model: str, settings: BackendSettings) -> None:
        if settings.folder is None:
            raise ConfigError("a batch needs a folder to remember it in: set one, or a cache")
        self.model = model
        self._server = OpenAI(model, settings)
        self._settings = settings
        self._folder = settings.folder
        self._held = ExitStack()
        self._held.enter_context(locked(self._folder))
        self._replies = ReplyFiles()
        self._queue: dict[str, bytes] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gatherer: asyncio.Task[None] | None = None
        self._taken_over = False

    async def capabilities(self) -> Capabilities:
        """The server's."""
        return await self._server.capabilities()

    async def complete(self, request: Request) -> Response:
        """The answer, once the batch that holds the request has ended."""
        self._take_over()
        key = request.key(self.model)
        if key not in self._replies:
            await asyncio.shield(self._wait(key, request))
        line = self._replies.line(key)
        try:
            return answer_line(line, request, str(self._server))
        except Transient:
            self._replies.forget(key)  # another try is another request
            raise

    def _wait(self, key: str, request: Request) -> asyncio.Future[None]:
        if key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().create_future()
            self._queue[key] = request_line(request, self.model, self._server.limit_name)
            if self._gatherer is None or self._gatherer.done():
                self._gatherer = asyncio.create_task(self._gather())
        return self._waiting[key]

    async def _gather(self) -> None:
        """Send what has queued up, once nothing new comes."""
        seen = -1
        while seen != len(self._queue):
            seen = len(self._queue)
            await asyncio.sleep(self._settings.gather)
        lines = list(self._queue.values())
        self._queue.clear()
        for part in parts(lines, self.most_requests, self.most_bytes):
            digest = hashlib.sha256(part.content).hexdigest()[:24]
            # a name that sorts by age: later replies go before earlier failures
            name = f"{self._next_number():06d}-{digest}"
            replace_file(self._file(name, "requests.jsonl"), part.content)
            self._start(name, part)

    def _next_number(self) -> int:
        names = sorted(path.name for path in self._folder.glob("*.requests.jsonl"))
        return int(names[-1].split("-")[0]) + 1 if names else 1

    def _file(self, name: str, kind: str) -> Path:
        return self._folder / f"{name}.{kind}"

    def _start(self, name: str, part: Part) -> None:
        task = asyncio.create_task(self._run(name, part))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_over(self) -> None:
        """Index what has ended, and wait for what other processes have sent."""
        if self._taken_over:
            return
        self._taken_over = True
        running: list[tuple[str, Part]] = []
        for path in sorted(self._folder.glob("*.requests.jsonl")):
            name = path.name.removesuffix(".requests.jsonl")
            replies = self._file(name, "replies.jsonl")
            if replies.is_file():
                self._replies.add(replies)
            else:
                running.extend((name, part) for part in parts(path.read_bytes().splitlines(True)))
        for name, part in running:
            for key in part.lines:
                self._replies.forget(key)
                self._waiting[key] = asyncio.get_running_loop().create_future()
            self._start(name, part)

    async def _run(self, name: str, part: Part) -> None:
        """One batch from its file to its replies; wakes all that wait for them."""
        error: Exception | None = None
        try:
            batch = await self._ended(await self._created(name, part))
            content = await self._downloaded(batch, part)
            replace_file(self._file(name, "replies.jsonl"), content)
            self._replies.add(self._file(name, "replies.jsonl"))
        except Transient as failure:  # not theirs: another try would be another batch
            error = LLMError(f"{failure}; run the same command again, it goes on with its batches")
        except Exception as caught:  # noqa: BLE001  # whatever it is, it is what the waiting get
            error = caught
        for key in part.lines:
            future = self._waiting.pop(key, None)
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # looked at: perhaps nobody waits

    async def _created(self, name: str, part: Part) -> str:
        """The id of this part's batch, new or found."""
        state = self._file(name, "json")
        if state.is_file():
            return str(orjson.loads(state.read_bytes())["batch"])
        created = await self._call(lambda: self._create(name, part))
        replace_file(state, orjson.dumps({"batch": created}))
        return created

    async def _create(self, name: str, part: Part) -> str:
        client, intent = self._server.client, self._file(name, "intent")
        if intent.is_file():  # asked for before, and perhaps created
            async for known in client.batches.list(limit=100):
                if (known.metadata or {}).get(_MARK) == name:
                    return known.id
        upload = (f"{name}.jsonl", part.content)
        file = await client.files.create(file=upload, purpose="batch")
        replace_file(intent, b"")
        batch = await client.batches.create(
            completion_window="24h",
            endpoint=part.endpoint,  # type: ignore[arg-type]  # the SDK lists them, we have two
            input_file_id=file.id,
            metadata={_MARK: name},
        )
        return batch.id

    async def _ended(self, identifier: str) -> SentBatch:
        while True:
            batch = await self._call(lambda: self._server.client.batches.retrieve(identifier))
            if batch.status in _ENDED:
                return batch
            if batch.status == "failed":
                raise self._failed(batch)
            await asyncio.sleep(self._settings.poll)

    def _failed(self, batch: SentBatch) -> LLMError:
        """The API refused the file as a whole. It is forgotten, so that it can be sent again."""
        found = (batch.errors.data if batch.errors else None) or []
        reason = brief(found[0].message) if found else "no reason is given"
        for path in self._folder.glob("*.json"):
            if orjson.loads(path.read_bytes()).get("batch") == batch.id:
                for kind in ("json", "intent", "requests.jsonl"):
                    self._file(path.name.removesuffix(".json"), kind).unlink(missing_ok=True)
        return LLMError(f"{self._server} refuses the batch {batch.id}: {reason}")

    async def _downloaded(self, batch: SentBatch, part: Part) -> bytes:
        """All replies; a line for each request that has none, which says so."""
        lines: list[bytes] = []
        for identifier in (batch.output_file_id, batch.error_file_id):
            lines += await self._lines_of(identifier) if identifier else []
        answered = {decode(line).get("custom_id") for line in lines}
        lost = {"response": None, "error": {"code": f"batch_{batch.status}"}}
        missing = [key for key in part.lines if key not in answered]
        lines += [orjson.dumps({"custom_id": key, **lost}) for key in missing]
        return b"".join(line + b"\n" for line in lines)

    async def _lines_of(self, identifier: str) -> list[bytes]:
        file = await self._call(lambda: self._server.client.files.content(identifier))
        return [line for line in file.content.splitlines() if line.strip()]

    async def _call(self, send: Callable[[], Awaitable[Result]]) -> Result:
        """The SDK's result, tried again while the network or the server is at fault."""

        async def sent() -> Result:
            try:
                return await self._server.sent(send)
            except openai.APIStatusError as error:
                raise self._server.status_error(error) from None

        return await persist(sent, _TRIES, asyncio.sleep)

    async def close(self) -> None:
        """Stop waiting. What was sent goes on, and another process can take it over."""
        tasks = [*self._tasks, *([self._gatherer] if self._gatherer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()
        self._held.close()
