"""A round of batch files: answers from files of replies, what they leave open into files to send.

Nothing is sent here. `vllm run-batch`, the Batch API or anything else that speaks its lines works
the requests off between two rounds. The model's name and so the requests' keys are those of a live
model, and replies go into the same cache.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from neuron_explainer.errors import ConfigError, Deferred, LLMError, NeuronFailure
from neuron_explainer.llm.base import Capabilities, Request, Response, lacking
from neuron_explainer.llm.batch_files import (
    MOST_BYTES,
    MOST_REQUESTS,
    ReplyFiles,
    answer_line,
    request_line,
)
from neuron_explainer.llm.failures import Lack, Rejected, Transient, Unusable
from neuron_explainer.llm.wire import path as endpoint_of
from neuron_explainer.store import replacing


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of batch files came to."""

    read: Path | None
    write: Path | None
    answered: int  # requests
    unanswered: int
    files: tuple[str, ...]  # what was written for the unanswered ones


class BatchRound:
    """An LLM that answers from `read` and gathers what is open in `write`; either may be None.

    As a context manager: the files to send appear when the block ends well, all of them or none.
    """

    bulk = True

    def __init__(
        self, model: str, read: Path | None, write: Path | None, context: int | None = None
    ) -> None:
        self.model = model
        self._context = context  # tokens, where the user tells
        self._read = read
        self._replies = ReplyFiles() if read is None else _replies_in(read)
        self._write = write
        self._requests = None if write is None else _RequestFiles(write)
        self._answered: set[bytes] = set()
        self._unanswered: set[bytes] = set()

    @property
    def holds_back(self) -> bool:
        """Whether this round only gathers requests: then nothing is a result yet."""
        return self._read is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._requests is not None:
            self._requests.end(kind, error, trace)

    async def capabilities(self) -> Capabilities:
        """What the protocol has, in every round: the prompts must be the same."""
        return Capabilities(True, True, 20, True, True, True, self._context)

    async def complete(self, request: Request) -> Response:
        """The reply in the files, verified. Raises Deferred when there is none.

        Lines that say that the request was not worked off (expired, cancelled, the server's fault)
        are no replies. One that was answered, but not as asked, is final: Unusable.
        """
        key = request.key(self.model)
        if key in self._replies:
            try:
                response = self._reply(key, request)
            except NeuronFailure as failure:
                if not _open(failure):
                    self._settle(key)
                    raise
            else:
                self._answered.add(bytes.fromhex(key))
                return response
        self._unanswered.add(bytes.fromhex(key))
        if self._requests is not None:
            self._requests.add(key, request, self.model)
        raise Deferred("the answer comes in a later round of batch files")

    def _reply(self, key: str, request: Request) -> Response:
        try:
            return answer_line(self._replies.line(key), request, str(self._read))
        except Transient as failure:
            if not self._replies.good(key):
                raise
            said = str(failure)
            if isinstance(failure, Lack):
                said += f"; if all replies are so, {lacking(failure.feature, self.model)}"
            raise Unusable(failure.cause, said, usage=failure.usage) from failure
        except Rejected as error:
            if not self._replies.any_good:
                raise
            raise NeuronFailure("refused", str(error)) from error  # others went well

    def _settle(self, key: str) -> None:
        """Hand on what is of no use and so not in the cache: the next round must not ask again."""
        self._answered.add(bytes.fromhex(key))
        if self._requests is not None:
            self._requests.carried[key] = self._replies.line(key)

    async def close(self) -> None:
        """Nothing is open."""

    def report(self) -> Round:
        """How the round went."""
        files = self._requests.files if self._requests else ()
        return Round(self._read, self._write, len(self._answered), len(self._unanswered), files)


def _open(failure: NeuronFailure) -> bool:
    return isinstance(failure, Transient) or failure.cause == "cancelled"


def _replies_in(folder: Path) -> ReplyFiles:
    files = [path for path in folder.glob("*.jsonl") if not path.name.startswith("requests-")]
    if not files:
        raise LLMError(f"no replies in {folder}: put the batch's output there as .jsonl files")
    replies = ReplyFiles()
    for path in sorted(files):
        replies.add(path)
    return replies


@dataclass(slots=True)
class _Part:
    """A file that is being written."""

    file: BinaryIO
    requests: int = 0
    size: int = 0


class _RequestFiles:
    """requests-0001.jsonl and so on, each to one endpoint and within the Batch API's limits."""

    def __init__(self, folder: Path) -> None:
        if found := sorted(folder.glob("requests-*.jsonl")):
            raise ConfigError(
                f"{found[0]} is there already, from another round: name a new folder, or delete it"
            )
        self._folder = folder
        self._stack = ExitStack()
        self._parts: dict[str, _Part] = {}  # by endpoint
        self._known: set[bytes] = set()
        self.carried: dict[str, bytes] = {}  # replies that are read in the next round again
        self.files: tuple[str, ...] = ()

    def add(self, key: str, request: Request, model: str) -> None:
        """Write a request, unless it is written already."""
        digest = bytes.fromhex(key)
        if digest in self._known:
            return
        self._known.add(digest)
        # of the two names of the limit the one that every OpenAI model takes, and vLLM too
        line = request_line(request, model, "max_completion_tokens")
        part = self._with_room(endpoint_of(request), len(line))
        part.file.write(line)
        part.requests += 1
        part.size += len(line)

    def _with_room(self, endpoint: str, size: int) -> _Part:
        part = self._parts.get(endpoint)
        if part is None or part.requests >= MOST_REQUESTS or part.size + size > MOST_BYTES:
            name = f"requests-{len(self.files) + 1:04d}.jsonl"
            self.files = (*self.files, name)
            opened = self._stack.enter_context(replacing(self._folder / name))
            part = self._parts[endpoint] = _Part(opened)
        return part

    def end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the files appear, or take them back after an error."""
        if self.files and self.carried:
            carried = self._stack.enter_context(replacing(self._folder / "replies-carried.jsonl"))
            carried.writelines(line.rstrip(b"\n") + b"\n" for line in self.carried.values())
        self._stack.__exit__(kind, error, trace)
