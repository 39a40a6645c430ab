"""The letter of PEP 3333: ``wsgiref.validate`` on both sides of every skin, WebTest's lint on answers of our own."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from webtest import TestApp as Lint

from proxymw import (
    AccessLog,
    BalancerManagerApp,
    BalancerPool,
    ClientAddress,
    ErrorPages,
    HeaderRule,
    Headers,
    IPAllowlist,
    PrefixProxy,
    RedirectRule,
    Redirects,
    RewriteProxy,
    StaticOrPass,
    VirtualHosts,
)
from tests.client import environ, run
from tests.origins import EchoOrigin, dead_port


@validator
def inner(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """An application that reads what it is sent, validated from its own side."""
    length = environ.get("CONTENT_LENGTH")
    body = environ["wsgi.input"].read(int(length)) if length else b""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body) + 2))])
    return [b"ok", body]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    (root / "file.txt").write_text("a file")
    return root


@pytest.fixture(scope="module")
def origin() -> Iterator[EchoOrigin]:
    with EchoOrigin() as origin:
        yield origin


SKINS: dict[str, Callable[[Path, str], Any]] = {
    "StaticOrPass": lambda root, url: StaticOrPass(inner, root),
    "PrefixProxy": lambda root, url: PrefixProxy(inner, [("/proxied", url)]),
    "PrefixProxy, mounting": lambda root, url: PrefixProxy(None, [("/", inner)]),
    "RewriteProxy": lambda root, url: RewriteProxy(inner, [(r"^/proxied/(.*)$", url + "/$1"), ("^/old$", "/new")]),
    "BalancerPool": lambda root, url: BalancerPool([inner], name="one", sticky=True),
    "BalancerPool of an origin": lambda root, url: BalancerPool([url], name="two"),
    "IPAllowlist": lambda root, url: IPAllowlist(inner, allow=["127.0.0.1"]),
    "ClientAddress": lambda root, url: ClientAddress(inner, ["127.0.0.1"]),
    "VirtualHosts": lambda root, url: VirtualHosts({"ducklington.org": inner}),
    "AccessLog": lambda root, url: AccessLog(inner, io.StringIO()),
    "Headers": lambda root, url: Headers(inner, response=[HeaderRule("set", "X-A", "b")]),
    "Redirects": lambda root, url: Redirects(inner, [RedirectRule("/gone", "https://elsewhere.example/")]),
    "ErrorPages": lambda root, url: ErrorPages(inner, {404: "nothing here"}),
}
REQUESTS: dict[str, dict[str, Any]] = {
    "a page": {"target": "/"},
    "a file": {"target": "/file.txt"},
    "a part": {"target": "/file.txt", "headers": {"Range": "bytes=0-2"}},
    "head": {"target": "/file.txt", "method": "HEAD"},
    "proxied": {"target": "/proxied/a%2Fb?q"},
    "proxied head": {"target": "/proxied/a", "method": "HEAD"},
    "a body": {"target": "/proxied/post", "method": "POST", "body": b"some"},
    "a body to the application": {"target": "/form", "method": "POST", "body": b"some"},
    "gone": {"target": "/gone"},
    "old": {"target": "/old"},
    "refused": {"target": "/../x"},
    "another host": {"target": "/", "host": "front.example"},
}


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("skin", SKINS)
def test_both_sides_of_every_skin(skin: str, asked: str, root: Path, origin: EchoOrigin) -> None:
    options = dict(REQUESTS[asked])
    app = validator(SKINS[skin](root, origin.url))
    reply = run(app, environ(options.pop("target"), **options))
    assert reply.status in {200, 206, 302, 400, 403, 404}
    assert reply.reason


def _own(root: Path) -> dict[str, tuple[Any, str, int]]:
    pool = BalancerPool([f"http://127.0.0.1:{dead_port()}"], name="dead")
    away = f"http://127.0.0.1:{dead_port()}"
    return {
        "not found": (PrefixProxy(None, [("/x", away)]), "/", 404),
        "no file": (StaticOrPass(None, root), "/none", 404),
        "denied": (IPAllowlist(inner, allow=["10.0.0.1"]), "/", 403),
        "nobody listens": (PrefixProxy(None, [("/", away + "/")]), "/", 503),
        "no member": (pool, "/", 503),
        "above the root": (PrefixProxy(inner, [("/x", away)]), "/%2e%2e/", 400),
        "redirected": (Redirects(None, [RedirectRule("/", "https://elsewhere.example/")]), "/", 302),
        "forbidden by a rule": (RewriteProxy(None, [("^/x", "-")]), "/y", 404),
        "manager without an allow list": (BalancerManagerApp([pool]), "/", 403),
        "error page": (ErrorPages(StaticOrPass(None, root), {404: "nothing here"}), "/none", 404),
        "a file": (StaticOrPass(None, root), "/file.txt", 200),
    }


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", list(_own(Path("/"))))
def test_answers_of_our_own_pass_the_lint(name: str, method: str, root: Path) -> None:
    app, target, status = _own(root)[name]
    lint = Lint(app, extra_environ={"REMOTE_ADDR": "127.0.0.1"})
    reply = lint.request(target, method=method, expect_errors=True)
    if name != "manager without an allow list":
        assert reply.status_int == status
    assert (reply.body == b"") == (method == "HEAD" or reply.status_int == 304)


def test_the_manager_passes_the_lint() -> None:
    pool = BalancerPool(["http://127.0.0.1:1", "http://127.0.0.1:2"], name="cluster")
    app = IPAllowlist(BalancerManagerApp([pool], hosts=["localhost"]), allow=["127.0.0.1"])
    lint = Lint(validator(app), extra_environ={"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost"})
    assert "cluster" in lint.get("/").text
