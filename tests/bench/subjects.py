"""What is measured, each as a name and a call without arguments."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from werkzeug.middleware.http_proxy import ProxyMiddleware

from proxymw import (
    AccessLog,
    BalancerPool,
    IPAllowlist,
    PrefixProxy,
    PrefixTable,
    RewriteProxy,
    RewriteRule,
    StaticOrPass,
    VirtualHosts,
)

Row = tuple[str, Callable[[], object]]
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class NoBody:
    def read(self, size: int = -1) -> bytes:
        return b""


#: What gunicorn makes of a browser's request.
ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/p/json",
    "QUERY_STRING": "",
    "RAW_URI": "/p/json",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_SOFTWARE": "gunicorn/27",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "50000",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd",
    "HTTP_CONNECTION": "keep-alive",
    "HTTP_COOKIE": "session=0123456789abcdef",
    "HTTP_REFERER": "http://127.0.0.1:8000/",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": None,
    "wsgi.input": NoBody(),
    "wsgi.input_terminated": True,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    "wsgi.file_wrapper": None,
}


def called(app: App, path: str = "/p/json", status: str = "200", size: int | None = None) -> Callable[[], object]:
    """A call of ``app`` as a server makes it, body read and closed; anything but ``status`` stops the bench."""

    def call() -> None:
        environ = {**ENVIRON, "PATH_INFO": path, "RAW_URI": path}
        got: list[str] = []
        body = app(environ, lambda line, headers, exc_info=None: got.append(line))
        length = sum(map(len, body))
        if hasattr(body, "close"):
            body.close()
        assert got[0].startswith(status), got
        assert size is None or length == size, length

    return call


def proxies(url: str) -> list[Row]:
    """One proxied request: ours, the cheapest that a socket allows, and what Python has otherwise."""
    rows: list[Row] = [
        ("raw sockets", called(raw_sockets(url))),
        ("PrefixProxy", called(PrefixProxy(None, [("/p/", f"{url}/")]))),
        ("PoolManager.urlopen, streamed", called(pool_manager(url))),
        ("werkzeug ProxyMiddleware", called(ProxyMiddleware(not_found, {"/p/": {"target": url}}))),
    ]
    try:
        from wsgiproxy import HostProxy
    except ImportError:
        print("WSGIProxy2 is not installed: left out")
    else:
        rows.append(("WSGIProxy2, urllib3 client", called(HostProxy(url, client="urllib3"))))
    return rows


def stacks(url: str) -> list[Row]:
    """PrefixProxy alone, and under everything the guide puts around it."""
    pool = BalancerPool([url, f"{url}/b", f"{url}/c", f"{url}/d", f"{url}/e"], name="bench")
    whole: Any = StaticOrPass(None, Path(__file__).parent)
    whole = PrefixProxy(whole, [("/wiki/static/", "!"), ("/p/", pool)])
    whole = RewriteProxy(whole, [(r"^/blog/(.*)\.php$", f"{url}/$1.php"), (r"^/old/(.*)$", f"{url}/$1")])
    whole = VirtualHosts({("127.0.0.1", "ducklington.org"): IPAllowlist(whole, ["127.0.0.1"])})
    return [
        ("PrefixProxy", called(PrefixProxy(None, [("/p/", f"{url}/")]))),
        ("five members behind it", called(PrefixProxy(None, [("/p/", pool)]))),
        ("all of the guide around it", called(whole)),
        ("and an access log", called(AccessLog(whole, os.devnull))),
    ]


def routers() -> list[Row]:
    """The last of many rules."""
    names = [f"/service{n}/" for n in range(10_000)]
    one = {name: name for name in names}
    ten, many = PrefixTable([(name, name) for name in names[:10]]), PrefixTable([(name, name) for name in names])
    rules = [RewriteRule(rf"^/legacy{n}/(.*)\.php$", f"http://127.0.0.1/{n}/$1.php") for n in range(1000)]
    rewrite = RewriteProxy(None, rules)
    deep = {**ENVIRON, "PATH_INFO": "/legacy999/a.php", "RAW_URI": "/legacy999/a.php"}
    return [
        ("one dict lookup", lambda: one["/service9999/"]),
        ("10 prefixes", lambda: ten.match("/service9/page")),
        ("10,000 prefixes", lambda: many.match("/service9999/page")),
        ("10,000 prefixes, none matches", lambda: many.match("/elsewhere/page")),
        ("1,000 rewrite rules", lambda: rewrite.rewrite(deep)),
    ]


def files(folder: str) -> list[Row]:
    front = StaticOrPass(not_found, folder)
    missing = os.path.join(folder, "missing.html")

    def stat() -> None:
        with contextlib.suppress(OSError):
            os.stat(missing)

    return [
        ("os.stat of a missing file", stat),
        ("a call of the app behind", called(not_found, "/missing.html", "404")),
        ("a miss, passed to the app", called(front, "/missing.html", "404")),
        ("a hit of 1 KB", called(front, "/page.html", "200", 1024)),
    ]


def elections(folder: str) -> list[Row]:
    def pool(count: int, **how: Any) -> BalancerPool:
        return BalancerPool([f"http://127.0.0.1:{9000 + n}" for n in range(count)], name=f"bench{count}", **how)

    def elect(pool: BalancerPool) -> Callable[[], object]:
        return lambda: pool.lease(ENVIRON, ()).finish()

    shared = os.path.join(folder, "state")
    return [
        ("5 members, in the process", elect(pool(5))),
        ("5 members, mapped file", elect(pool(5, state=shared + "5"))),
        ("50 members, mapped file", elect(pool(50, state=shared + "50"))),
        ("500 members, mapped file", elect(pool(500, state=shared + "500"))),
    ]


def not_found(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return [b""]


def raw_sockets(url: str) -> App:
    """The floor: one send and one recv on a kept connection, the head cut off and passed on."""
    where = urlsplit(url)
    kept = threading.local()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        sock = getattr(kept, "sock", None)
        if sock is None:
            sock = kept.sock = socket.create_connection((where.hostname, where.port))
        sock.sendall(f"GET {environ['RAW_URI']} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode("latin-1"))
        answer = sock.recv(65536)
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "1024")])
        return [answer[answer.index(b"\r\n\r\n") + 4 :]]

    return app


def pool_manager(url: str) -> App:
    """urllib3 as its documentation shows it, streaming and with nothing added but the client's fields."""
    manager = urllib3.PoolManager()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {key[5:].replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}
        response = manager.urlopen(
            environ["REQUEST_METHOD"],
            url + environ["RAW_URI"],
            headers=headers,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        start_response(f"{response.status} {response.reason}", list(response.headers.items()))
        yield from response.stream(65536)
        response.release_conn()

    return app
