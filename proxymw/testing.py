"""Test a whole front without a socket: where requests go, and origins that answer from a script.

>>> from werkzeug.test import Client
>>> from proxymw import PrefixProxy
>>> from proxymw.testing import ScriptedTransport
>>> app = PrefixProxy(None, [("/wiki/", "http://application.ducklington.org/")])
>>> with ScriptedTransport() as origins:
...     reply = Client(app).get("/wiki/index.php?title=Ducks")
>>> reply.text
'GET http://application.ducklington.org/index.php?title=Ducks'
>>> origins.sent[0].header("X-Forwarded-Prefix")
'/wiki'
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from proxymw.errors import ConfigError, UpstreamError
from proxymw.exchange.response import Response
from proxymw.exchange.transport import replace_default
from proxymw.explain import explain
from proxymw.rules.origins import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from _typeshed.wsgi import WSGIApplication

    from proxymw.exchange.connection import Interim
    from proxymw.exchange.limits import Limits
    from proxymw.exchange.request import Request
    from proxymw.exchange.transport import Sender
    from proxymw.rules.headers import HeaderList

#: What an origin says: see ``ScriptedTransport``.
Answer: TypeAlias = Union[
    str,
    bytes,
    int,
    "tuple[int, Iterable[tuple[str, str]], bytes | str | Iterable[bytes]]",
    UpstreamError,
    type[UpstreamError],
    "Callable[[SentRequest], Answer]",
]


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request as its origin would have got it, byte for byte: the head was made by the code that makes real ones."""

    #: ``http://host[:port]``, without the path.
    origin: str
    method: str
    #: Path and query on the wire.
    target: str
    headers: HeaderList
    body: bytes = b""
    #: The clocks that were set for it, None where the transport's own apply.
    limits: Limits | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return self.origin + self.target

    def header(self, name: str) -> str | None:
        """The values of a field, joined by commas; None where it was not sent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


class ScriptedTransport:
    """Stands in for a ``Transport``: every origin answers from a script, and ``sent`` records what it was sent.

    ``answers`` maps origins (``"http://app1.ducklington.org"``) to answers. Without it every origin says the method and
    the URL that it was asked for, as plain text. An answer is

    - a text or bytes: the body of a 200;
    - a number: a status with an empty body;
    - ``(status, headers, body)``: the body text, bytes, or an iterable of pieces, which may raise an ``UpstreamError``;
    - an ``UpstreamError`` or a class of it: the exchange fails like that (``ConnectRefused``: nobody is there);
    - a function of the ``SentRequest`` that gives one of these;
    - a list of these: one after the other, the last for ever.

    Give it as ``transport=``, or use it in a ``with`` block: there it stands in for the transport of everything that
    was not given one, so that a front is tested as it is deployed.
    """

    def __init__(self, answers: Mapping[str, Answer | list[Answer]] | None = None) -> None:
        self.sent: list[SentRequest] = []
        self._scripts: dict[str, list[Answer]] | None = None
        if answers is not None:
            self._scripts = {}
            for url, given in answers.items():
                origin = Origin.parse(url, name="origin")
                if origin.base.strip("/"):
                    raise ConfigError(f"origin must be scheme and host without a path, got {url!r}")
                script = list(given) if isinstance(given, list) else [given]
                if not script:
                    raise ConfigError(f"answers of {url} must be at least one, got {given!r}")
                self._scripts[origin.url] = script
        self._lock = threading.Lock()
        self._before: list[Sender | None] = []

    def send(
        self,
        origin: Origin,
        request: Request,
        limits: Limits | None = None,
        *,
        interim: Interim | None = None,
        own: bool = True,
    ) -> Response:
        """What ``Sender`` asks for: record the request and answer it."""
        sent = _sent(origin, request, limits)
        with self._lock:
            self.sent.append(sent)
            answer = self._next(sent)
        while callable(answer) and not isinstance(answer, type):
            answer = answer(sent)
        if isinstance(answer, type):
            answer = answer("scripted")
        if isinstance(answer, UpstreamError):
            raise answer
        return _response(answer, sent.method, own)

    def _next(self, sent: SentRequest) -> Answer:
        if self._scripts is None:
            return f"{sent.method} {sent.url}"
        script = self._scripts.get(sent.origin)
        if script is None:
            raise LookupError(f"no answer is scripted for {sent.origin} (asked for {sent.method} {sent.target})")
        return script.pop(0) if len(script) > 1 else script[0]

    def __enter__(self) -> ScriptedTransport:
        self._before.append(replace_default(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        replace_default(self._before.pop())

    def __repr__(self) -> str:
        return f"<ScriptedTransport: {len(self.sent)} requests sent>"


def assert_routes(
    app: WSGIApplication,
    url: str,
    to: str | int,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
    client: str = "127.0.0.1",
) -> None:
    """Fail, and print why, unless a request for ``url`` (a path, or ``http://host/path``) goes to ``to``.

    Nothing is sent. ``to`` is the URL that is forwarded to (``balancer://name/path`` for a pool), the Location of a
    redirect, the end of a file's path, a status that is answered, or ``"manager"`` or ``"application"`` for what is
    mounted or behind.
    """
    found = explain(app, method, url, headers, client)
    here = found.outcome == "file" and isinstance(to, str) and found.target.endswith(to)
    if not here and to not in (found.target or None, found.status, found.outcome):
        raise AssertionError(f"{method} {url} goes elsewhere than to {to}:\n{found.text()}")


def _sent(origin: Origin, request: Request, limits: Limits | None) -> SentRequest:
    head = request.head(origin).decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:])]
    body = request.body if request.stream is None else b"".join(request.stream)
    return SentRequest(origin.url, method, target, headers, body, limits)


def _response(answer: Any, method: str, own: bool) -> Response:
    headers: HeaderList = []
    body: Any = b""
    match answer:
        case bool():
            raise TypeError(f"not an answer: {answer!r}")
        case int():
            status = answer
        case str() | bytes():
            status, body = 200, answer
            headers = [("Content-Type", "text/plain; charset=utf-8")] if isinstance(answer, str) else []
        case (int() as status, given, body):
            headers = list(given)
        case _:
            raise TypeError(f"not an answer: {answer!r}")
    if not own:
        headers = [pair for pair in headers if pair[0].lower() not in ("date", "server")]
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes):
        return _Pieces(status, headers, body)
    if status not in (204, 304) and not any(name.lower() == "content-length" for name, _ in headers):
        headers = [*headers, ("Content-Length", str(len(body)))]
    return Response(status, headers, b"" if method == "HEAD" else body)


class _Pieces(Response):
    """A body that comes in pieces, of which the forwarder learns as they come."""

    __slots__ = ("_pieces",)

    def __init__(self, status: int, headers: HeaderList, pieces: Iterable[bytes]) -> None:
        super().__init__(status, headers, None)
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.received += len(piece)
            yield piece
