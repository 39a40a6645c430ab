"""Call a WSGI application as a strict server would."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Answer:
    status: str
    headers: list[tuple[str, str]]
    body: bytes
    environ: dict[str, Any]

    @property
    def code(self) -> int:
        return int(self.status[:3])

    def __getitem__(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


def request(path: str = "/", method: str = "GET", **extra: Any) -> dict[str, Any]:
    """An environ as gunicorn makes one."""
    path, mark, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": path + mark + query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "front.example",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **extra,
    }
    return {key: value for key, value in environ.items() if value is not None}


def call(app: Callable[..., Any], path: str = "/", method: str = "GET", **extra: Any) -> Answer:
    """The whole answer of ``app``, with ``wsgiref.validate`` in between. ``HTTP_HOST=None`` leaves a key out."""
    environ = request(path, method, **extra)
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        head[:] = [status, headers]
        return written.append

    written: list[bytes] = []
    body = validator(app)(environ, start_response)
    try:
        written.extend(iter(body))
    finally:
        body.close()
    return Answer(head[0], head[1], b"".join(written), environ)


def echo_environ(seen: list[dict[str, Any]], status: str = "200 OK", **headers: str) -> Callable[..., list[bytes]]:
    """A validated application that keeps the environ it got."""

    @validator
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ)
        fields = [("Content-Type", "text/plain"), *((k.replace("_", "-"), v) for k, v in headers.items())]
        start_response(status, fields)
        return [b"ok"]

    return app  # type: ignore[no-any-return]
