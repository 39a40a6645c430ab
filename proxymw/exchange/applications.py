"""A member of a pool that is a WSGI application in this process."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from proxymw.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from proxymw.exchange.forwarder import Lease
    from proxymw.exchange.request import Request


def call_app(
    environ: WSGIEnvironment, start_response: StartResponse, lease: Lease, request: Request, prefix: str
) -> Iterable[bytes]:
    """Call the leased application with the request, mounted below ``prefix``; the lease ends with its body."""
    body = _AppBody(lease, request)
    try:
        assert lease.app is not None
        body.result = lease.app(_mounted(environ, request, prefix), body.watch(start_response))
    except BaseException:
        body.close(UpstreamError("the application raised"))
        raise
    return body


def _mounted(environ: WSGIEnvironment, request: Request, prefix: str) -> WSGIEnvironment:
    """The environ as the application would have it from a server: what was read of the body is put back."""
    path, _, query = request.target.partition("?")
    below = dict(environ)
    below["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
    below["PATH_INFO"] = unquote(path, "latin-1")
    below["QUERY_STRING"] = query
    if request.stream is not None:
        below["wsgi.input"] = io.BufferedReader(_Rest(request.stream.start(), environ["wsgi.input"].read))
    elif request.body:
        below["wsgi.input"] = io.BytesIO(request.body)
    return below


class _Rest(io.RawIOBase):
    """A body of which the first piece has been read already."""

    def __init__(self, first: bytes, read: Any) -> None:
        self._first = first
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        data, self._first = self._first[:size], self._first[size:]
        data = data or self._read(size)
        buffer[: len(data)] = data
        return len(data)


class _AppBody:
    """The application's body; ``close`` ends the lease, once."""

    def __init__(self, lease: Lease, request: Request) -> None:
        self.result: Iterable[bytes] = ()
        self._lease: Lease | None = lease
        self._began = time.monotonic()
        self._status = 0
        # As if it had gone over a wire: bytraffic counts the request and the answer.
        body = len(request.body) if request.stream is None else request.stream.length or 0
        self._sent = len(request.method) + len(request.target) + len(request.fields) + body
        self._received = 0

    def watch(self, start_response: StartResponse) -> StartResponse:
        """``start_response``, noting the status and adding the lease's own fields."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            self._status = int(status[:3])
            self._received = len("HTTP/1.1 ") + len(status)
            extra = self._lease.set_headers if self._lease is not None else []
            return start_response(status, [*headers, *extra], exc_info)

        return start

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.result:
            self._received += len(piece)
            yield piece

    def close(self, error: UpstreamError | None = None) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            getattr(self.result, "close", lambda: None)()
        finally:
            seconds = time.monotonic() - self._began
            lease.finish(error, status=self._status, sent=self._sent, received=self._received, seconds=seconds)

    def __del__(self) -> None:
        self.close()
