"""Who may ask the viewer's server, and what every reply says."""

import re
from collections.abc import Mapping

import httpx2
import pytest
from fastapi import APIRouter, Request
from fastapi.testclient import TestClient
from made_workspace import MadeWorkspace
from starlette.responses import Response

from neuron_explainer.errors import ConfigError
from neuron_explainer.view.resources import Resources
from neuron_explainer.view.security import LARGEST_BODY, POLICY, Access
from neuron_explainer.view.server import app
from neuron_explainer.view.serving import access_for, listen
from neuron_explainer.workspace import Workspace

pytestmark = pytest.mark.enable_socket

LOCAL = "http://127.0.0.1:7861"
TOKEN = "a-token-of-some-length"
LIST = "/api/workspace.json"


class Posting:
    """What is live, here: a resource that gives back its body."""

    router = APIRouter()

    @property
    def offers(self) -> dict[str, bool]:
        """One of them."""
        return {"try": True}

    def close(self) -> None:
        """Nothing is held."""


@Posting.router.post("/api/echo")
async def _echo(request: Request) -> Response:
    return Response(await request.body())


def client(made: MadeWorkspace, access: Access | None = None, base: str = LOCAL) -> TestClient:
    """A browser, more or less: it keeps cookies, but follows nothing by itself."""
    source = Resources(Workspace(made.root))
    return TestClient(app(source, Posting(), access), base_url=base, follow_redirects=False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9000"}, 200),  # an ssh tunnel has another port at its end
        ({"host": "[::1]:7861"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "127.0.0.1:7861@evil.example"}, 403),
        ({"host": ""}, 403),
        ({"origin": LOCAL}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 403),  # another server of this machine
        ({"origin": "https://127.0.0.1:7861"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_only_this_servers_pages_are_answered(
    made: MadeWorkspace, headers: Mapping[str, str], status: int
) -> None:
    reply = client(made).get(LIST, headers=headers)
    assert reply.status_code == status
    if status == 403:
        assert set(reply.json()) == {"error", "run"}


def test_a_link_from_another_site_may_open_a_page_and_nothing_else(made: MadeWorkspace) -> None:
    asked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client(made).get("/", headers=asked).status_code == 200
    asked["sec-fetch-mode"] = "no-cors"
    assert client(made).get("/js/app.js", headers=asked).status_code == 403
    asked["sec-fetch-mode"] = "navigate"
    kind = {"content-type": "application/json"}
    assert client(made).post("/api/echo", headers=asked | kind, content="{}").status_code == 403


@pytest.mark.parametrize("path", ["/", LIST, "/js/app.js", "/nothing", "/api/nothing", "/icon.svg"])
@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_every_reply_keeps_browsers_to_the_policy(
    made: MadeWorkspace, path: str, host: str
) -> None:
    reply = client(made).get(path, headers={"host": host})
    assert reply.headers["content-security-policy"] == POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cross-origin-opener-policy"] == "same-origin"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    caching = "no-store" if path.startswith("/api/") else "no-cache"
    assert reply.headers["cache-control"] == caching
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", "{}", 200),
        ("application/json; charset=utf-8", "{}", 200),
        ("text/plain", "{}", 415),  # a form of another page could send it without asking
        ("application/x-www-form-urlencoded", "a=1", 415),
        ("", "{}", 415),
        ("application/json", " " * LARGEST_BODY, 200),
        ("application/json", " " * (LARGEST_BODY + 1), 413),
    ],
)
def test_what_is_posted_is_bounded_json(
    made: MadeWorkspace, kind: str, body: str, status: int
) -> None:
    reply = client(made).post("/api/echo", headers={"content-type": kind}, content=body)
    assert reply.status_code == status


def test_a_body_without_a_length_is_bounded_too(made: MadeWorkspace) -> None:
    kind = {"content-type": "application/json"}
    for number, status in ((4, 200), (5, 413)):
        parts = (b" " * (LARGEST_BODY // 4) for _ in range(number))
        assert client(made).post("/api/echo", headers=kind, content=parts).status_code == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_do_nothing(made: MadeWorkspace, method: str) -> None:
    assert client(made).request(method, LIST).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/js/../../server.py",
        "/%2e%2e/server.py",
        "/js/..%2f..%2fserver.py",
        "/..\\server.py",
        "//etc/passwd",
        "/api/../../../etc/passwd",
        "/api/made--blocks.0.mlp.hook_post/neurons/0/..%2f..%2f1.json",
        "/api/..%2f..%2fdata/summary.json",
        "/__init__.py",
        "/js",
    ],
)
def test_no_path_leads_out_of_the_pages(made: MadeWorkspace, path: str) -> None:
    raw = httpx2.URL(LOCAL).copy_with(raw_path=path.encode())
    reply = client(made).get(raw)
    assert reply.status_code in {404, 405}
    assert "import" not in reply.text
    assert "root:" not in reply.text


def test_without_its_token_a_server_for_others_answers_nothing(made: MadeWorkspace) -> None:
    access = Access("gpu.example", TOKEN)
    asked = client(made, access, "http://gpu.example:7861")
    for path in ("/", LIST, "/js/app.js", "/api/openapi.json", f"{LIST}?token=wrong", "/?token="):
        reply = asked.get(path)
        assert reply.status_code == 401
        assert TOKEN not in reply.text
    kind = {"content-type": "application/json"}
    assert asked.post("/api/echo", headers=kind, content="{}").status_code == 401
    assert asked.get("/", headers={"host": "evil.example"}).status_code == 403
    assert asked.get("/", headers={"cookie": f"{access.cookie}=wrong"}).status_code == 401


def test_the_token_goes_from_the_url_into_a_cookie_that_scripts_cannot_read(
    made: MadeWorkspace,
) -> None:
    asked = client(made, Access("gpu.example", TOKEN), "http://gpu.example:7861")
    reply = asked.get(f"/?page=neuron&token={TOKEN}&neuron=3")
    assert reply.status_code == 200
    assert reply.headers["refresh"] == "0; url=/?page=neuron&neuron=3"
    assert reply.headers["cache-control"] == "no-store"
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert TOKEN not in reply.text
    assert asked.get(LIST).status_code == 200
    assert asked.get("/").status_code == 200


def test_a_script_may_bring_the_token_as_a_bearer(made: MadeWorkspace) -> None:
    asked = client(made, Access("gpu.example", TOKEN), "http://gpu.example:7861")
    assert asked.get(LIST, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert asked.get(LIST, headers={"authorization": "Bearer other"}).status_code == 401
    assert asked.get(LIST, headers={b"authorization": b"Bearer \xff"}).status_code == 401


def test_the_url_a_token_is_taken_from_leads_nowhere_else(made: MadeWorkspace) -> None:
    asked = client(made, Access("gpu.example", TOKEN), "http://gpu.example:7861")
    for path in ("//evil.example/", "/\\evil.example", "/%0d%0aSet-Cookie:a=b"):
        raw = httpx2.URL("http://gpu.example:7861").copy_with(
            raw_path=f"{path}?token={TOKEN}".encode()
        )
        target = asked.get(raw).headers["refresh"].partition("url=")[2]
        assert re.fullmatch(r"/([^/\\\r\n].*)?", target)


def test_a_server_that_listens_everywhere_is_known_by_any_name_with_its_token() -> None:
    assert Access("0.0.0.0", TOKEN).knows_host("gpu7.cluster:7861")
    assert Access("::", TOKEN).knows_host("[2001:db8::1]:7861")
    assert not Access("0.0.0.0").knows_host("gpu7.cluster")
    assert not Access("10.0.0.5", TOKEN).knows_host("evil.example")
    assert Access("10.0.0.5", TOKEN).knows_host("10.0.0.5:7861")


def test_another_host_than_this_machine_gets_a_token() -> None:
    assert access_for(None, None) == Access("127.0.0.1", None)
    assert access_for("localhost", None).token is None
    made_up = access_for("0.0.0.0", None)
    assert made_up.token is not None
    assert len(made_up.token) >= 43
    assert access_for("0.0.0.0", None).token != made_up.token
    assert access_for("127.0.0.1", TOKEN).token == TOKEN
    for weak in ("short", "with spaces in it and long", "ünïcödé-but-long-enough", ""):
        with pytest.raises(ConfigError, match="--token"):
            access_for("0.0.0.0", weak)


def test_a_taken_port_is_left_to_whoever_has_it() -> None:
    first = listen(Access(), 0)
    with first.socket:
        with pytest.raises(ConfigError, match=f"--port {first.port}"):
            listen(Access(), first.port)
        usual = listen(Access(), None)
        with usual.socket, listen(Access(), None).socket as another:
            assert another.getsockname()[1] != usual.port
            assert usual.url == f"http://127.0.0.1:{usual.port}/"


def test_a_host_that_is_not_here_is_a_mistake_of_the_user() -> None:
    for host in ("203.0.113.7", "no such host"):
        with pytest.raises(ConfigError, match="--host"):
            listen(Access(host, TOKEN), None)
