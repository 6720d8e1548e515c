"""A stand-in for the Hugging Face hub on loopback: it speaks what uploading and streaming need.

It knows repositories, the file list, preupload, the LFS batch protocol, commits and downloads, but
of each repository only the newest revision. It does not speak Xet, which the hub prefers for large
files: tests switch that off in the library.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Repository:
    """One dataset."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class StandIn:
    """What the server holds, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS objects by SHA-256
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    uploads_left: int = 1_000_000  # after which an upload is refused, as on a bad line
    refuse: int | None = None  # a status with which everything is answered

    def uploads(self) -> int:
        """How many large files were sent."""
        return sum(method == "PUT" for method, _ in self.asked)


@contextmanager
def serving() -> Iterator[StandIn]:
    """The stand-in, until the block ends."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

        def answer(self, status: int, content: Any = None, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def handle_any(self) -> None:
            body = self.body()
            path = urlsplit(self.path).path
            hub.asked.append((self.command, path))
            if not path.startswith(("/store/", "/api/validate-yaml")):
                hub.tokens.add(self.headers.get("Authorization"))
            if hub.refuse is not None:
                self.answer(hub.refuse, {"error": "no\nentry"})
                return
            for method, pattern, function in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    function(self, hub, body, *match.groups())
                    return
            self.answer(404, {"error": f"the stand-in does not know {self.command} {path}"})

    for method in ("GET", "HEAD", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    return Handler


def _create(handler: Any, hub: StandIn, body: bytes) -> None:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    there = name in hub.repositories
    private = asked.get("visibility") == "private" or asked.get("private") is True
    hub.repositories.setdefault(name, Repository(private))
    url = {"url": f"{hub.url}/datasets/{name}"}
    handler.answer(409 if there else 200, url)


def _info(handler: Any, hub: StandIn, _: bytes, name: str) -> None:
    if name not in hub.repositories:
        handler.answer(404, {"error": "no such repository"}, X_Error_Code="RepoNotFound")
        return
    repository = hub.repositories[name]
    siblings = [{"rfilename": path} for path in repository.files]
    sha = _oid(repository)
    handler.answer(
        200, {"id": name, "private": repository.private, "sha": sha, "siblings": siblings}
    )


def _tree(handler: Any, hub: StandIn, _: bytes, name: str, folder: str = "") -> None:
    inside = folder and f"{folder}/"
    there = {p: data for p, data in hub.repositories[name].files.items() if p.startswith(inside)}
    deep = "recursive=true" in handler.path.lower()
    files = [_entry(p, data) for p, data in there.items() if deep or "/" not in p[len(inside) :]]
    below = {inside + p[len(inside) :].partition("/")[0] for p in there if "/" in p[len(inside) :]}
    folders = [] if deep else [_folder(path) for path in sorted(below)]
    handler.answer(200 if there or not folder else 404, files + folders)


def _paths(handler: Any, hub: StandIn, body: bytes, name: str) -> None:
    files = hub.repositories[name].files
    wanted = json.loads(body)["paths"]
    found = [_entry(path, files[path]) for path in wanted if path in files]
    folders = [path for path in wanted if any(file.startswith(f"{path}/") for file in files)]
    handler.answer(200, found + [_folder(path) for path in folders])


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _preupload(handler: Any, hub: StandIn, body: bytes, name: str) -> None:
    files = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if file["path"].endswith(".parquet") else "regular",
            "shouldIgnore": False,
            "oid": _git_oid(there)
            if (there := hub.repositories[name].files.get(file["path"]))
            else None,
        }
        for file in json.loads(body)["files"]
    ]
    handler.answer(200, {"files": files})


def _batch(handler: Any, hub: StandIn, body: bytes, name: str) -> None:
    objects = []
    for wanted in json.loads(body)["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.stored:
            entry["actions"] = {"upload": {"href": f"{hub.url}/store/{wanted['oid']}"}}
        objects.append(entry)
    handler.answer(200, {"transfer": "basic", "objects": objects})


def _store(handler: Any, hub: StandIn, body: bytes, oid: str) -> None:
    if hub.uploads_left == 0:
        handler.answer(400, {"error": "the line is bad"})
        return
    hub.uploads_left -= 1
    assert hashlib.sha256(body).hexdigest() == oid
    hub.stored[oid] = body
    handler.answer(200, {})


def _commit(handler: Any, hub: StandIn, body: bytes, name: str) -> None:
    repository = hub.repositories[name]
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        match entry["key"]:
            case "header":
                repository.commits.append(value["summary"])
            case "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                repository.files[value["path"]] = hub.stored[value["oid"]]
            case "deletedFile":
                del repository.files[value["path"]]
    oid = _oid(repository)
    handler.answer(200, {"commitUrl": f"{hub.url}/datasets/{name}/commit/{oid}", "commitOid": oid})


def _resolve(handler: Any, hub: StandIn, _: bytes, name: str, path: str) -> None:
    repository = hub.repositories[name]
    if path not in repository.files:
        handler.answer(404, {"error": "no such file"}, X_Error_Code="EntryNotFound")
        return
    data = repository.files[path]
    about = {"ETag": f'"{_git_oid(data)}"', "X_Repo_Commit": _oid(repository)}
    part = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
    if part is None:
        handler.answer(200, data, **about)
        return
    first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
    about["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
    handler.answer(206, data[first : last + 1], **about)


def _validate(handler: Any, hub: StandIn, body: bytes) -> None:
    handler.answer(200, {"errors": [], "warnings": []})


def _oid(repository: Repository) -> str:
    return hashlib.sha1(repr(sorted(repository.files.items())).encode()).hexdigest()


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_REPO = r"([^/]+/[^/]+)"
_REVISION = "(?:main|[0-9a-f]{40})"
_ROUTES: tuple[tuple[tuple[str, ...], str, Any], ...] = (
    (("POST",), "/api/repos/create", _create),
    (("POST",), "/api/validate-yaml", _validate),
    (("GET",), f"/api/datasets/{_REPO}(?:/revision/{_REVISION})?", _info),
    (("GET",), f"/api/datasets/{_REPO}/tree/{_REVISION}", _tree),
    (("GET",), f"/api/datasets/{_REPO}/tree/{_REVISION}/(.+)", _tree),
    (("POST",), f"/api/datasets/{_REPO}/paths-info/{_REVISION}", _paths),
    (("POST",), f"/api/datasets/{_REPO}/preupload/main", _preupload),
    (("POST",), f"/api/datasets/{_REPO}/commit/main", _commit),
    (("POST",), rf"/datasets/{_REPO}\.git/info/lfs/objects/batch", _batch),
    (("PUT",), "/store/([0-9a-f]{64})", _store),
    (("GET", "HEAD"), f"/datasets/{_REPO}/resolve/{_REVISION}/(.+)", _resolve),
)
