"""How tests ask: over a socket (`fetch`, `raw`) or in process (`call`); both give a `Reply`."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults

Pairs = list[tuple[str, str]]


@dataclass
class Reply:
    """An answer as it came: the headers are pairs, order and duplicates kept."""

    status: int
    reason: str
    headers: Pairs
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of the header `name`."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of the header `name` when it is there once, None when it is not there."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(
    port: int,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Pairs | dict[str, str] = (),  # type: ignore[assignment]
    body: bytes | Any = None,
    host: str | None = None,
    address: str = "127.0.0.1",
    source: str = "127.0.0.1",
    timeout: float = 20,
    connection: http.client.HTTPConnection | None = None,
) -> Reply:
    """One request on its own connection, or on the `connection` that is given and kept. `target` goes out as written;
    an iterable `body` is sent chunked; `source` is the client's address (127.0.0.2 is another one)."""
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    kept = connection
    if connection is None:
        origin = None if ":" in address else (source, 0)
        connection = http.client.HTTPConnection(address, port, timeout=timeout, source_address=origin)
    try:
        named = {key.lower() for key, _ in pairs}
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        if "host" not in named:
            connection.putheader("Host", host or f"{address}:{port}")
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None and "content-length" not in named:
            connection.putheader("Content-Length", str(len(body)))
        for key, value in pairs:
            connection.putheader(key, value)
        connection.endheaders(body, encode_chunked=chunked)
        answer = connection.getresponse()
        content = answer.read()
        return Reply(answer.status, answer.reason, answer.getheaders(), content)
    finally:
        if kept is None:
            connection.close()


def eventually(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """Wait until `condition()` is true and give it back; an AssertionError when it does not become so."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.005)
    return value


def raw(port: int, data: bytes, *, timeout: float = 5, address: str = "127.0.0.1", end: bool = False) -> bytes:
    """Send `data` as it is and give back every byte until the server closes or is silent for `timeout` seconds."""
    with socket.create_connection((address, port), timeout=timeout) as connection:
        received = b""
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except (TimeoutError, ConnectionError):
            pass
        return received


def environ(
    target: str = "/",
    *,
    method: str = "GET",
    headers: Pairs | dict[str, str] = (),  # type: ignore[assignment]
    body: bytes | None = None,
    script_name: str = "",
    host: str = "ducklington.org",
    raw_uri: bool = True,
    **extra: Any,
) -> dict[str, Any]:
    """A WSGI environ as gunicorn would make it from a request for `target`, an origin-form target as on the wire.

    With `script_name` the application is mounted there and `target` is what follows it. Keyword arguments are
    further keys; those with a dot in their name go in as ``**{"wsgi.url_scheme": "https"}``.
    """
    path, _, query = target.partition("?")
    made: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": script_name,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "HTTP_HOST": host,
        "SERVER_NAME": "front",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
    }
    if raw_uri:
        made["RAW_URI"] = script_name + target
    if body is not None:
        made["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers.items() if isinstance(headers, dict) else headers:
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        made[key] = f"{made[key]},{value}" if key in made and key not in ("HTTP_HOST", "CONTENT_LENGTH") else value
    made.update(extra)
    setup_testing_defaults(made)
    return made


def call(app: Any, target: str = "/", **options: Any) -> Reply:
    """Ask a WSGI application in process; the options are those of `environ`. The iterable is read and closed."""
    return run(app, environ(target, **options))


def run(app: Any, request: dict[str, Any]) -> Reply:
    """Ask a WSGI application with an environ of one's own."""
    started: list[tuple[str, Pairs]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Pairs, exc_info: Any = None) -> Any:
        if started and exc_info is None:
            raise AssertionError("start_response was called twice")
        started.append((status, list(headers)))
        return written.append

    answer = app(request, start_response)
    try:
        for part in answer:
            assert started, "a body came before start_response was called"
            written.append(part)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    status, headers = started[-1]
    code, _, reason = status.partition(" ")
    return Reply(int(code), reason, headers, b"".join(written))
