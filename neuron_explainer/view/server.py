"""The viewer's server: the pages, and the contract's resources as they are asked for."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi import Path as InPath

from neuron_explainer import __version__
from neuron_explainer.view import shapes
from neuron_explainer.view.contract import Unavailable, encode
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.security import Access, Guard
from neuron_explainer.view.shapes_neuron import Neuron

PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_THREADS = 8
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)

Key = Annotated[str, InPath(description="A key of workspace.json.")]
Whole = Annotated[str, InPath(description="A whole number.")]


class Live(Protocol):
    """What needs a process: typing text into the model, simulating, judging."""

    @property
    def router(self) -> APIRouter:
        """Its resources, at paths below `/api`."""
        ...

    @property
    def offers(self) -> dict[str, bool]:
        """Whether there is `try` and `judge`."""
        ...

    def close(self) -> None:
        """Let go of everything: the server stops."""
        ...


def app(source: Resources, live: Live | None = None, access: Access | None = None) -> FastAPI:
    """The server of what `source` holds.

    `live` adds what needs a process; `access` says who may ask, by default this machine alone.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # each thread keeps memory of its own, and they take turns anyway
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield
        if live is not None:
            live.close()

    made = FastAPI(
        title="neuron-explainer view",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # those pages fetch their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    made.add_middleware(Guard, access=access or Access())
    made.add_exception_handler(Unavailable, _unavailable)
    made.add_exception_handler(Exception, _broken)
    offers = {"try": False, "judge": False} | (live.offers if live else {})
    if live is not None:
        made.include_router(live.router)
    made.include_router(_resources(source, offers))
    made.include_router(_pages())
    return made


def _resources(source: Resources, offers: dict[str, bool]) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/workspace.json", **_documented(shapes.Workspace))
    def workspace() -> Response:
        return _json(source.workspace("served", offers))

    @router.get("/{site}/summary.json", **_documented(shapes.Summary))
    def summary(site: Key) -> Response:
        return _json(source.summary(site))

    @router.get("/{site}/columns.json", **_documented(shapes.Columns))
    def columns(site: Key) -> Response:
        return _json(source.columns(site))

    @router.get("/{site}/columns/{column}.json", **_documented(shapes.Column))
    def column(site: Key, column: Key) -> Response:
        return _json(source.column(site, column))

    @router.get("/{site}/rows/{folder}/{block}.json", **_documented(shapes.Rows))
    def rows(site: Key, folder: Whole, block: Whole) -> Response:
        return _json(source.rows(site, _whole(folder), _whole(block)))

    @router.get("/{site}/search/{bucket}.json", **_documented(shapes.Words))
    def search(site: Key, bucket: Whole) -> Response:
        return _json(source.search(site, _whole(bucket)))

    @router.get("/{site}/neurons/{folder}/{neuron}.json", **_documented(Neuron))
    def neuron(site: Key, folder: Whole, neuron: Whole) -> Response:
        return _json(source.neuron(site, _whole(folder), _whole(neuron)))

    return router


def _pages() -> APIRouter:
    router = APIRouter()

    @router.get("/{path:path}", include_in_schema=False)
    def page(path: str) -> Response:
        if path == "api" or path.startswith("api/"):
            raise Unavailable(404, "there is no such resource", None)
        file = page_file(path or "index.html")
        if file is None:
            raise Unavailable(404, "there is no such page", None)
        return Response(file.read_bytes(), media_type=_TYPES[file.suffix])

    return router


def page_file(path: str) -> Path | None:
    """The file of the pages at `path`, if there is one; nothing outside their folder."""
    return next((file for file in page_files() if file.relative_to(PAGE).as_posix() == path), None)


def page_files() -> list[Path]:
    """All files of the pages."""
    return sorted(path for path in PAGE.rglob("*") if path.suffix in _TYPES and path.is_file())


def _documented(shape: type[shapes.Shape]) -> dict[str, Any]:
    """The bytes are made by `Resources`; this says what is in them."""
    refused = {"model": shapes.Refusal, "description": "It cannot be had, and what mends that."}
    return {
        "response_model": None,
        "response_class": Response,
        "responses": {200: {"model": shape}, 404: refused, 409: refused},
    }


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise Unavailable(404, f"'{text[:40]}' is no number", None)
    return int(text)


async def _unavailable(_: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    return Response(error.body(), error.status, media_type="application/json")


async def _broken(_: Request, error: Exception) -> Response:
    said = {"error": f"something broke here ({type(error).__name__})", "run": None}
    return Response(encode(said), 500, media_type="application/json")
