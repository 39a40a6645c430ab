"""The hosts behind the demo's front: real HTTP servers on loopback, each a few lines of the standard library.

Every answer says who gave it and what arrived there (``X-Origin``, ``X-Origin-Target``), so that the proxying can be
seen. ``python3 -m demo`` starts each in a process of its own and announces it; without the launcher they live in the
process of the front.
"""

from __future__ import annotations

import json
import mimetypes
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FILES = Path(__file__).resolve().parent / "files"
APPS = tuple(f"app{number}.ducklington.org" for number in range(1, 6))
Answer = tuple[int, list[tuple[str, str]], bytes]


class Origin(BaseHTTPRequestHandler):
    """One request to one of the hosts; the server's `site` answers it."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    body = b""

    def answer(self) -> None:
        self.body = self._read_body()
        status, headers, content = self.server.site(self)
        self.send_response(status)
        self.send_header("X-Origin", self.server.name)
        self.send_header("X-Origin-Target", self.path)
        for name, value in headers:
            self.send_header(name, value)
        if self.protocol_version == "HTTP/1.1":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = answer

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def log_message(self, *_: Any) -> None:
        """Origins are silent: the front's access log is the one to read."""


class OldOrigin(Origin):
    """An origin of the old days: it answers HTTP/1.0, without a length, and ends a page by closing the connection."""

    protocol_version = "HTTP/1.0"


def page(title: str, text: str, *headers: tuple[str, str], status: int = 200, charset: str = "utf-8") -> Answer:
    content = f"<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n{text}\n".encode(charset)
    return status, [("Content-Type", f"text/html; charset={charset}"), *headers], content


def file_host(asked: Origin) -> Answer:
    """``static.`` and ``media.``: what lies in ``demo/files`` under their name."""
    path = asked.path.partition("?")[0]
    found = (FILES / asked.server.name / path.lstrip("/")).resolve()
    if not found.is_file() or FILES not in found.parents:
        return page("Not found", f"<p>{asked.server.name} has no such file.", status=404)
    kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
    return 200, [("Content-Type", kind), ("Cache-Control", "max-age=60")], found.read_bytes()


def wiki(asked: Origin) -> Answer:
    """``application.``: a wiki that knows every page and takes every edit."""
    name = asked.path.partition("?")[0].strip("/") or "start"
    if asked.command == "POST":
        return page("Saved", f"<p>{len(asked.body)} bytes.", ("Location", f"/{name}"), status=303)
    return page(f"Wiki: {escape(name)}", '<p>See also <a href="ducks">ducks</a>.')


_visits: dict[str, int] = {}


def legacy(asked: Origin) -> Answer:
    """``app.``: behaves like old PHP, with a session cookie and absolute redirects to the host it believes it is."""
    path = asked.path.partition("?")[0]
    host = asked.headers.get("Host", "")
    if path.endswith("/login.php"):
        return page("Found", "", ("Location", f"http://{host}{path.replace('login', 'index')}"), status=302)
    cookies = dict(part.strip().partition("=")[::2] for part in asked.headers.get("Cookie", "").split(";"))
    session = cookies.get("PHPSESSID", "")
    headers = [("X-Powered-By", "PHP/4.4.9")]
    if session not in _visits:
        session = secrets.token_hex(13)
        headers.append(("Set-Cookie", f"PHPSESSID={session}; path=/"))
    _visits[session] = _visits.get(session, 0) + 1
    text = f"<p>Visit {_visits[session]} of yours. {len(asked.body)} bytes came with a {asked.command}."
    return page(f"app: {escape(path)}", text, *headers, charset="iso-8859-1")


def member(asked: Origin) -> Answer:
    """``app1.`` to ``app5.``: the cluster. ``?wait=0.5`` keeps one busy for half a second (ten at most)."""
    _, _, wait = asked.path.partition("?wait=")
    if wait.replace(".", "", 1).isdigit():
        time.sleep(min(float(wait), 10))
    name = asked.server.name.partition(".")[0]
    return page(name, f"<p>{name} answers. Reload, and the next one does.")


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


SITES: dict[str, Callable[[Origin], Answer]] = {
    "static.ducklington.org": file_host,
    "media.ducklington.org": file_host,
    "application.ducklington.org": wiki,
    "app.ducklington.org": legacy,
    **dict.fromkeys(APPS, member),
}


def listener() -> socket.socket:
    """A listening socket on a free port of loopback."""
    made = socket.create_server(("127.0.0.1", 0), backlog=128)
    made.set_inheritable(True)
    return made


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name: str, listening: socket.socket) -> None:
        self.name = name
        self.site = SITES[name]
        super().__init__(listening.getsockname(), OldOrigin if self.site is legacy else Origin, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, *_: Any) -> None:
        """A client that left is nothing to tell."""


_own: list[_Server] = []
_serving = [0]
_starting = threading.Lock()


def url(name: str) -> str:
    """Where the host `name` really listens: as announced by ``python3 -m demo``, else on a port of this process."""
    announced = json.loads(os.environ.get("DEMO_ORIGINS", "{}"))
    if name in announced:
        return announced[name]
    _own.append(_Server(name, listener()))
    return "http://127.0.0.1:{1}".format(*_own[-1].server_address)


def awake(app: Any) -> Any:
    """`app`, with this process's origins serving from the first request on.

    Not from the import on: threads would not live through the fork of ``gunicorn --preload``.
    """

    def first(environ: Any, start_response: Any) -> Any:
        if _serving[0] != os.getpid():
            with _starting:
                if _serving[0] != os.getpid():
                    for server in _own:
                        threading.Thread(target=server.serve_forever, daemon=True).start()
                    _serving[0] = os.getpid()
        return app(environ, start_response)

    return first if _own else app


if __name__ == "__main__":  # python3 -m demo.origins NAME DESCRIPTOR: the launcher's way to start one
    _Server(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))).serve_forever()
