"""The resources that are there only while a process serves them: what docs/view.md calls so."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from neuron_explainer.errors import NeuronExplainerError
from neuron_explainer.record_set import RecordSet
from neuron_explainer.view import judgement_summary, judgements, live_simulation
from neuron_explainer.view.catalog import Catalog
from neuron_explainer.view.contract import Unavailable, encode
from neuron_explainer.view.entries import RunEntry
from neuron_explainer.view.live import LONGEST_EXPLANATION, LONGEST_TEXT, Live, start_of
from neuron_explainer.view.live_simulation import Hypothesis
from neuron_explainer.view.live_worker import Line, error_line
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.security import LARGEST_BODY

_LARGEST = 2**31 - 1
RecordsAt = Callable[[str], Awaitable[RecordSet]]
Key = Field(min_length=1, max_length=200)
Index = Field(ge=0, le=_LARGEST)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Neuron(_Body):
    site: str = Key
    neuron: int = Index


class Typed(_Neuron):
    """Text to run."""

    text: str = Field(max_length=LONGEST_TEXT)
    query: tuple[int, int] | None = Field(default=None, strict=False)


class Said(_Neuron):
    """An explanation to simulate."""

    explanation: str = Field(max_length=LONGEST_EXPLANATION)
    simulator: str = Key


class Start(_Neuron):
    """Whose explanation to begin with."""

    run: str = Key


class Judged(_Neuron):
    """Which of two explanations is preferred; None takes a judgement back."""

    first: str = Key
    second: str = Key
    preferred: Literal["first", "second", "tie", "neither"] | None


class Offered:
    """What a server adds to the resources of `source`: see `server.Live`."""

    def __init__(self, source: Resources, live: Live) -> None:
        self.router = _router(live, source)
        self.offers = {"try": True, "judge": True}
        self.close = live.close


def _router(live: Live, source: Resources) -> APIRouter:
    routes = APIRouter(prefix="/api", route_class=_Route)

    async def listed() -> Catalog:
        return await asyncio.to_thread(source.catalog)

    async def records_at(site: str) -> RecordSet:
        return (await asyncio.to_thread(source.entry, site)).records

    @routes.get("/live.json")
    async def about() -> Response:
        known = await listed()
        return await _answer(lambda: _about(live, known))

    @routes.post("/live/activations")
    async def activations(request: Request) -> Response:
        asked = await _body(request, Typed)
        records = await records_at(asked.site)

        async def work(emit: Callable[[Line], None]) -> None:
            await live.activations(records, asked.neuron, asked.text, asked.query, emit)

        return Lines(live.worker.lines(work))

    @routes.post("/live/explanation")
    async def explanation(request: Request) -> Response:
        asked = await _body(request, Start)
        run, records = _run(await listed(), asked.run).run, await records_at(asked.site)
        return await _answer(lambda: start_of(run, records, asked.neuron))

    @routes.post("/live/forecast")
    async def forecast(request: Request) -> Response:
        asked = await _hypothesis(request, records_at)
        return _json(await live.worker.done(live.forecast(asked)))

    @routes.post("/live/simulate")
    async def simulate(request: Request) -> Response:
        asked = await _hypothesis(request, records_at)

        async def work(emit: Callable[[Line], None]) -> None:
            await live.simulate(asked, emit)

        return Lines(live.worker.lines(work))

    _add_judging(routes, live, listed, records_at)
    return routes


def _add_judging(
    routes: APIRouter,
    live: Live,
    listed: Callable[[], Awaitable[Catalog]],
    records_at: RecordsAt,
) -> None:
    @routes.get("/judgements.json")
    async def all_judgements() -> Response:
        known = await listed()
        return await _answer(lambda: {"judgements": judgements.listed(live.workspace, known)})

    @routes.get("/judgements-summary.json")
    async def summary() -> Response:
        known = await listed()
        return await _answer(lambda: {"pairs": judgement_summary.pairs(live.workspace, known)})

    @routes.post("/judgements")
    async def judge(request: Request) -> Response:
        asked, known = await _body(request, Judged), await listed()
        pair = judgements.Pair.of(_run(known, asked.first), _run(known, asked.second))
        records = await records_at(asked.site)
        preferred = asked.preferred
        return await _answer(
            lambda: judgements.save(
                live.workspace, pair, records, asked.neuron, preferred, asked.first
            )
        )


def _about(live: Live, known: Catalog) -> Line:
    sites = {key: live.unable(entry.records) for key, entry in known.sites.items()}
    return {
        "sites": sites,
        "simulators": live_simulation.simulators(),
        "llm": live.llm,
        "limits": {"text": LONGEST_TEXT, "explanation": LONGEST_EXPLANATION},
    }


async def _hypothesis(request: Request, records_at: RecordsAt) -> Hypothesis:
    asked = await _body(request, Said)
    records = await records_at(asked.site)
    if asked.simulator not in {entry["name"] for entry in live_simulation.simulators()}:
        raise Unavailable(404, "there is no such simulator here")
    return Hypothesis(records, asked.neuron, asked.explanation, asked.simulator)


def _run(known: Catalog, key: str) -> RunEntry:
    found = known.runs.get(key)
    if found is None:
        raise Unavailable(404, "there is no such run here", "neuron-explainer explain")
    return found


async def _answer(work: Callable[[], Line]) -> Response:
    """What `work`, which reads files, returns."""
    return _json(await asyncio.to_thread(work))


def _json(resource: Line) -> Response:
    return Response(encode(resource), media_type="application/json")


async def _body(request: Request, form: type[Any]) -> Any:
    """The body, of the form `form`. Raises Unavailable."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Unavailable(415, "the body must be JSON, with Content-Type: application/json")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_BODY:
            raise Unavailable(413, f"the body has more than {LARGEST_BODY:,} bytes")
    try:
        return form.model_validate(orjson.loads(content))
    except orjson.JSONDecodeError as error:
        raise Unavailable(400, "the body is no JSON") from error
    except ValidationError as error:
        raise Unavailable(422, _told(error.errors()[0])) from error


def _told(problem: Mapping[str, Any]) -> str:
    """What is wrong with a body, in one line that repeats nothing of it but our own names."""
    names = {"site", "neuron", "text", "query", "explanation", "simulator", "run"}
    names |= {"first", "second", "preferred"}
    place = next((str(part) for part in problem["loc"] if part in names), "the body")
    if problem["type"] == "string_too_long":
        return f"{place} has more than {problem['ctx']['max_length']:,} characters"
    return f"{place} is missing or not as it should be ({problem['type'].replace('_', ' ')})"


class Lines(StreamingResponse):
    """Lines of JSON as they come. The work behind them stops when the client goes."""

    def __init__(self, lines: AsyncGenerator[Line]) -> None:
        self._lines = lines
        super().__init__(_encoded(lines), media_type="application/x-ndjson")
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the lines end or the client has gone, whichever is first."""
        del scope
        sending = asyncio.create_task(self.stream_response(send))
        going = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, going}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, going):
                task.cancel()
            await asyncio.gather(sending, going, return_exceptions=True)
            await self._lines.aclose()


async def _encoded(lines: AsyncGenerator[Line]) -> AsyncGenerator[bytes]:
    async for line in lines:
        yield encode(line) + b"\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Route(APIRoute):
    """A route whose refusals are lines with `error` and `run`, whatever the server around it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, and what becomes of its errors."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except Exception as error:  # noqa: BLE001  # whatever happens, the page is told in one line
                return _refused(error)

        return handle


def _refused(error: Exception) -> Response:
    status = 409 if isinstance(error, NeuronExplainerError) else 500
    if isinstance(error, Unavailable):
        status = error.status
    return Response(encode(error_line(error)), status, media_type="application/json")
