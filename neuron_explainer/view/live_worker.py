"""Where live work runs: a thread with an event loop of its own, and turns at what it shares.

The server's own loop only passes lines on, so that pages are served whatever is computed. Forward
passes have a thread to themselves; one that has begun is finished even if nobody waits for it any
more, and nothing else uses the model meanwhile.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from neuron_explainer.errors import NeuronExplainerError
from neuron_explainer.view.contract import Unavailable

Line = dict[str, Any]
Emit = Callable[[Line], None]
Result = TypeVar("Result")

MOST_WAITING = 8
_BUSY = 429  # too many requests


class Worker:
    """A thread that runs coroutines, started by the first one."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._passes = ThreadPoolExecutor(1, "passes")

    async def done(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns or raises; cancelling the caller cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running()))

    async def lines(self, work: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[Line]:
        """The lines that `work` emits, each at once, and a last one that says how it ended.

        Closing the iterator cancels the work.
        """
        here = asyncio.get_running_loop()
        queue: asyncio.Queue[Line | None] = asyncio.Queue()

        def emit(line: Line | None) -> None:
            with suppress(RuntimeError):  # the server's loop is closed already
                here.call_soon_threadsafe(queue.put_nowait, line)

        future = asyncio.run_coroutine_threadsafe(_to_its_end(work, emit), self._running())
        try:
            while (line := await queue.get()) is not None:
                yield line
        finally:
            future.cancel()

    async def computed(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, in the thread of forward passes; for coroutines of this worker."""
        begun = asyncio.get_running_loop().run_in_executor(self._passes, work)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            await asyncio.wait([begun])
            raise

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Cancel all work, run `last`, and end the thread. Blocks until then."""
        self._passes.shutdown(wait=False, cancel_futures=True)
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            if last is not None:
                last.close()
            return
        asyncio.run_coroutine_threadsafe(_ending(last), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="live", daemon=True
                )
                self._thread.start()
            return self._loop


async def _ending(last: Coroutine[Any, Any, None] | None) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    if last is not None:
        await last


async def _to_its_end(
    work: Callable[[Emit], Awaitable[None]], emit: Callable[[Line | None], None]
) -> None:
    try:
        await work(emit)
        emit({"done": True})
    except Exception as error:  # noqa: BLE001  # whatever happens, the page is told in one line
        emit(error_line(error))
    finally:
        emit(None)


def error_line(error: Exception) -> Line:
    """What went wrong, in one line, and the command that mends it where one does."""
    if isinstance(error, Unavailable):
        return {"error": str(error), "run": error.run}
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, NeuronExplainerError):
        return {"error": text, "run": None}
    return {"error": f"this failed: {text or type(error).__name__}", "run": None}


class Turns:
    """One at a time, in order of arrival. For the tasks of one event loop."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._line: deque[asyncio.Event] = deque()

    @asynccontextmanager
    async def turn(self, emit: Emit) -> AsyncIterator[None]:
        """Wait for one's turn, and have it; `emit` is told how many are before.

        Raises Unavailable when too many wait.
        """
        if len(self._line) > self._most:
            raise Unavailable(_BUSY, f"{self._most} requests are waiting already: try again later")
        moved = asyncio.Event()
        self._line.append(moved)
        try:
            while before := self._line.index(moved):
                emit({"waiting": before})
                moved.clear()
                await moved.wait()
            yield
        finally:
            self._line.remove(moved)
            for other in self._line:
                other.set()
