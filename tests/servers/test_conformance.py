"""The same questions to every server: the same answers, or a row that says what differs and why."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client import eventually, fetch
from tests.origins import READ_HEAD, READ_REQUEST, ROOT, Answer, EchoOrigin, ScriptedOrigin
from tests.servers.running import SERVERS, Served

pytestmark = pytest.mark.live

#: What a server does otherwise. The reasons are rows of docs/reference/servers.md, word for word.
_CLOSES = "closes the connection after each answer"
_NO_HINTS = "offers no way to send a 103: it is dropped"
_NO_SOCKET = "does not show the client's socket: WebSockets are answered with 501"
DIFFERENCES: dict[str, dict[str, str]] = {
    "gunicorn-sync": {"keep_alive": _CLOSES, "pipelined": _CLOSES},
    "waitress": {
        "early_hints": _NO_HINTS,
        "websockets": _NO_SOCKET,
        "the_head_at_once": "sends the head of an answer with the first bytes of its body",
        "body_as_it_comes": "takes in the whole body of a request before the application hears of it",
        "refused_folded_field": "joins a folded field with its line, and passes that on",
        "refused_length_and_chunks": "drops the length of a request that has chunks too; the body it read is passed on",
    },
    "uwsgi": {
        "early_hints": _NO_HINTS,
        "websockets": _NO_SOCKET,
        "keep_alive": _CLOSES,
        "pipelined": _CLOSES,
        "expect_continue": "sends no 100: a client that waits for it goes on after its own timeout",
        "body_in_chunks": "gives applications no chunked body: 411",
        "forwarded": "takes the scheme from the client's X-Forwarded-Proto: have a front server set it",
        "a_cut_in_chunks": "sends what has no length until it closes: a cut is not seen",
    },
    "granian": {
        "early_hints": _NO_HINTS,
        "websockets": _NO_SOCKET,
        "a_client_that_leaves": "does not show that a client has left: it is noticed when something is sent",
        "a_cut_in_chunks": "ends a body in chunks as if it were whole when the application fails: a cut is not seen",
        "spelling": "does not give the target as sent: paths are decoded and encoded anew, %2F becomes a slash",
        "empty_query": "does not tell an empty query from none",
        "latin_1": "reads and writes fields as UTF-8",
        "refused_fragment": "cuts a fragment off the target",
        "refused_length_and_chunks": "drops the length of a request that has chunks too; the body it read is passed on",
        "refused_another_authority": "drops the authority of an absolute target; Host counts",
        "refused_bare_line_feed": "takes a bare line feed as a line's end",
    },
    "werkzeug": {
        "early_hints": _NO_HINTS,
        "keep_alive": _CLOSES,
        "pipelined": _CLOSES,
        "old_clients": "sends chunks to an HTTP/1.0 client too",
        "refused_two_lengths": "takes the last of several lengths",
        "refused_bare_line_feed": "takes a bare line feed as a line's end",
        "refused_another_authority": "takes an absolute target's authority as the Host",
        "refused_folded_field": "joins a folded field with its line, and passes that on",
        "refused_blank_before_colon": "ends the fields at one with a blank before its colon",
    },
}

DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHECKS: dict[str, Callable[..., None]] = {}


def check(function: Callable[..., None]) -> Callable[..., None]:
    CHECKS[function.__name__] = function
    return function


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    kind = SERVERS[request.param]
    if kind.missing:
        pytest.skip(f"not installed: {kind.missing}")
    with Served(kind) as served:
        yield served


class Asker:
    """Makes origins for one check, and asks for them through the server."""

    def __init__(self, served: Served, stack: contextlib.ExitStack) -> None:
        self.served = served
        self._stack = stack

    def echo(self, **options: Any) -> EchoOrigin:
        return self._stack.enter_context(EchoOrigin(**options))  # type: ignore[no-any-return]

    def scripted(self, *scripts: Any) -> ScriptedOrigin:
        return self._stack.enter_context(ScriptedOrigin(*scripts))  # type: ignore[no-any-return]

    def get(self, origin: Any, target: str = "/", **options: Any) -> Any:
        return self.served.get(f"/{origin.port}{target}", **options)

    def open(self, origin: Any, target: str = "/", *, version: str = "1.1", head: str = "") -> socket.socket:
        sock = self._stack.enter_context(self.served.connect())
        sock.sendall(f"GET /{origin.port}{target} HTTP/{version}\r\nHost: front\r\n{head}\r\n".encode())
        return sock


# -- the way of a request -------------------------------------------------------------------------------------------


@check
def spelling(ask: Asker) -> None:
    """The client's spelling of the path arrives."""
    origin = ask.echo()
    assert ask.get(origin, "/a%2Fb/%7e;x=1/[c]?q=%zz&r").status == 200
    assert origin.requests[0].target == "/a%2Fb/%7e;x=1/[c]?q=%zz&r"


@check
def empty_query(ask: Asker) -> None:
    """A lone question mark stays."""
    origin = ask.echo()
    ask.get(origin, "/a?")
    assert origin.requests[0].target == "/a?"


@check
def methods(ask: Asker) -> None:
    """Any method passes, with a body or without."""
    origin = ask.echo()
    for method, body in (("PATCH", b"x"), ("DELETE", b"y"), ("PROPFIND", None), ("OPTIONS", None)):
        assert ask.get(origin, method=method, body=body).status == 200
        assert (origin.requests[-1].method, origin.requests[-1].body) == (method, body or b"")


@check
def head(ask: Asker) -> None:
    """HEAD has the length and no body."""
    origin = ask.echo(answer=lambda request: Answer(body=b"x" * 1234))
    reply = ask.get(origin, method="HEAD")
    assert (reply.status, reply.header("Content-Length"), reply.body) == (200, "1234", b"")


@check
def no_content(ask: Asker) -> None:
    """204 and 304 have no body, and the connection goes on."""
    origin = ask.echo(answer=lambda request: Answer(int(request.target[1:])))
    for status in (204, 304):
        reply = ask.get(origin, f"/{status}")
        assert (reply.status, reply.body, reply.header("Transfer-Encoding")) == (status, b"", None)


@check
def body_with_length(ask: Asker) -> None:
    """A megabyte with its length."""
    origin, body = ask.echo(), os.urandom(1_000_000)
    assert ask.get(origin, method="POST", body=body).json()["sha256"] == hashlib.sha256(body).hexdigest()


@check
def body_in_chunks(ask: Asker) -> None:
    """An upload without a length."""
    origin = ask.echo()
    reply = ask.get(origin, method="PUT", body=iter([b"x" * 70_000, b"y" * 10, b"z" * 70_000]))
    assert reply.status == 200
    assert reply.json()["length"] == 140_010


@check
def body_as_it_comes(ask: Asker) -> None:
    """An upload is passed on while it comes."""
    origin = ask.scripted([READ_HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
    with ask.served.connect() as sock:
        sock.sendall(b"POST /%d/ HTTP/1.1\r\nHost: f\r\nContent-Length: 200000\r\n\r\n" % origin.port + b"x" * 100_000)
        eventually(lambda: len(origin.received) > 0 and b"\r\n\r\n" in origin.received[0], 3)


@check
def expect_continue(ask: Asker) -> None:
    """The server answers Expect itself; it is not passed on."""
    origin = ask.echo()
    with ask.served.connect() as sock:
        sock.sendall(
            b"POST /%d/ HTTP/1.1\r\nHost: f\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n" % origin.port
        )
        # Werkzeug's server sends it twice, waitress once it reads.
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abc")
        answer = b""
        while b'"length": 3' not in answer:
            part = sock.recv(65536)
            assert part, answer
            answer += part
    assert origin.requests[0].header("Expect") is None


@check
def hop_by_hop(ask: Asker) -> None:
    """Fields of one hop end here, also those that Connection lists."""
    origin = ask.echo()
    sent = [("Connection", "close, X-Secret"), ("X-Secret", "1"), ("Keep-Alive", "5"), ("TE", "trailers")]
    ask.get(origin, headers=[*sent, ("Upgrade", "h2c"), ("Proxy", "x")])
    got = {name.lower() for name, _ in origin.requests[0].headers}
    assert not got & {"connection", "x-secret", "keep-alive", "te", "upgrade", "proxy"}


@check
def forwarded(ask: Asker) -> None:
    """What the client says about itself is replaced, under any spelling."""
    origin = ask.echo()
    ask.get(
        origin, headers=[("X-Forwarded-For", "6.6.6.6"), ("X_Forwarded_For", "7.7.7.7"), ("X-Forwarded-Proto", "x")]
    )
    request = origin.requests[0]
    assert request.header("X-Forwarded-For") == "127.0.0.1"
    assert request.header("X-Forwarded-Proto") == "http"
    assert request.header("X-Forwarded-Prefix") == f"/{origin.port}"
    assert not any("_" in name for name, _ in request.headers)


@check
def repeated_fields(ask: Asker) -> None:
    """Repeated fields arrive as one list."""
    origin = ask.echo()
    ask.get(origin, headers=[("X-A", "1"), ("X-A", "2")])
    assert [value.replace(" ", "") for value in origin.requests[0].all("X-A")] == ["1,2"]


@check
def latin_1(ask: Asker) -> None:
    """Bytes above 127 in a field pass both ways."""
    origin = ask.echo(headers=[("X-B", "é")])
    assert ask.get(origin, headers=[("X-A", "é")]).header("X-B") == "é"
    assert origin.requests[0].header("X-A") == "é"


# -- the way of an answer -------------------------------------------------------------------------------------------


@check
def cookies(ask: Asker) -> None:
    """Two Set-Cookie stay two."""
    origin = ask.echo(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert ask.get(origin).all("Set-Cookie") == ["a=1", "b=2"]


@check
def date_and_server(ask: Asker) -> None:
    """One Date; at most one Server."""
    origin = ask.echo(headers=[("Date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("Server", "origin")])
    reply = ask.get(origin)
    assert len(reply.all("Date")) == 1
    assert len(reply.all("Server")) <= 1


@check
def date_is_added(ask: Asker) -> None:
    """A Date is there also where the origin has none."""
    assert len(ask.get(ask.scripted(DONE)).all("Date")) == 1


@check
def redirects(ask: Asker) -> None:
    """Locations are mapped back."""
    origin = ask.echo(answer=lambda request: Answer(302, [("Location", f"http://{request.header('Host')}/next")]))
    assert ask.get(origin).header("Location") == f"/{origin.port}/next"


@check
def any_status(ask: Asker) -> None:
    """Statuses that nobody knows pass, with a phrase."""
    origin = ask.echo(answer=lambda request: Answer(int(request.target[1:]), reason=""))
    for status in (299, 418, 451, 599):
        reply = ask.get(origin, f"/{status}")
        assert reply.status == status
        assert reply.reason


@check
def keep_alive(ask: Asker) -> None:
    """The client's connection is kept."""
    origin = ask.echo()
    connection = http.client.HTTPConnection("127.0.0.1", ask.served.port, timeout=5)
    with contextlib.closing(connection):
        fetch(ask.served.port, f"/{origin.port}/", connection=connection)
        kept = connection.sock
        assert kept is not None
        fetch(ask.served.port, f"/{origin.port}/", connection=connection)
        assert connection.sock is kept


@check
def pipelined(ask: Asker) -> None:
    """Two requests in one go get two answers, in order."""
    origin = ask.echo()
    request = b"GET /%d/%d HTTP/1.1\r\nHost: f\r\n%b\r\n"
    both = request % (origin.port, 1, b"") + request % (origin.port, 2, b"Connection: close\r\n")
    assert re.findall(rb'"target": "/(\d)"', ask.served.raw(both)) == [b"1", b"2"]


@check
def old_clients(ask: Asker) -> None:
    """An HTTP/1.0 client gets no chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    origin = ask.scripted([READ_HEAD, head + b"1\r\na\r\n", 0.1, b"1\r\nb\r\n0\r\n\r\n"])
    reply = ask.served.raw(b"GET /%d/ HTTP/1.0\r\nHost: f\r\n\r\n" % origin.port)
    assert reply.partition(b"\r\n\r\n")[2] == b"ab"


@check
def large_answers(ask: Asker) -> None:
    """Ten megabytes, with a length and in chunks."""
    body = os.urandom(1 << 20) * 10
    for chunked in (False, True):
        origin = ask.echo(answer=lambda request, c=chunked: Answer(body=[body], chunked=c))
        assert hashlib.sha256(ask.get(origin).body).digest() == hashlib.sha256(body).digest()


def _cut(ask: Asker, head: bytes) -> None:
    origin = ask.scripted([READ_REQUEST, b"HTTP/1.1 200 OK\r\n" + head])
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask.get(origin)


@check
def a_cut_by_length(ask: Asker) -> None:
    """A body that ends before its length looks cut."""
    _cut(ask, b"Content-Length: 100\r\n\r\nx")


@check
def a_cut_in_chunks(ask: Asker) -> None:
    """A body that ends before its last chunk looks cut."""
    _cut(ask, b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")


@check
def an_event_at_once(ask: Asker) -> None:
    """An event reaches the client within 20 ms."""

    def events(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            time.sleep(0.06)
            sock.sendall(b"15\r\n%021.9f\r\n" % time.monotonic())
        sock.sendall(b"0\r\n\r\n")

    for _ in range(3):
        delays = []
        origin = ask.scripted([READ_HEAD, events])
        with ask.open(origin) as sock:
            while len(delays) < 5:
                part = sock.recv(65536)
                assert part
                delays += [time.monotonic() - float(stamp) for stamp in re.findall(rb"\d{11}\.\d{9}", part)]
        if statistics.median(delays) < 0.02:
            return
    raise AssertionError(delays)


@check
def the_head_at_once(ask: Asker) -> None:
    """The head of an answer does not wait for its body."""
    go = threading.Event()
    origin = ask.scripted([READ_HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", go, b"ok"])
    try:
        with ask.open(origin) as sock:
            sock.settimeout(1)
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    finally:
        go.set()


@check
def a_client_that_leaves(ask: Asker) -> None:
    """Within a second the origin's request is ended, though nothing is being sent."""
    started, gone = threading.Event(), threading.Event()

    def wait(sock: socket.socket) -> None:
        started.set()
        with contextlib.suppress(OSError):
            while sock.recv(100):
                pass
        gone.set()

    with ask.open(ask.scripted([READ_HEAD, wait])):
        assert started.wait(5)
    assert gone.wait(1.2)


@check
def early_hints(ask: Asker) -> None:
    """A 103 is relayed."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    with ask.open(ask.scripted([READ_HEAD, hint, 0.1, DONE]), head="Connection: close\r\n") as sock:
        received = b""
        while part := sock.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")


@check
def websockets(ask: Asker) -> None:
    """A WebSocket is tunnelled."""
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello"
    )
    handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with ask.open(ask.scripted([READ_HEAD, switch, 0.2]), head=handshake) as sock:
        received = b""
        sock.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while part := sock.recv(65536):
                received += part
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.endswith(b"\r\n\r\nhello")


@check
def no_socket_says_so(ask: Asker) -> None:
    """Where it cannot be, the answer names the servers that can."""
    handshake = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    reply = ask.get(ask.echo(), headers=handshake)
    assert reply.status == 200 or (reply.status == 501 and b"gunicorn" in reply.body)


# -- files ----------------------------------------------------------------------------------------------------------


@check
def files(ask: Asker) -> None:
    """A large file whole, a part of it, and not again when it is known."""
    whole = (ask.served.root / "large.bin").read_bytes()
    reply = ask.served.get("/static/large.bin")
    assert reply.body == whole
    part = ask.served.get("/static/large.bin", headers=[("Range", "bytes=1000-1999")])
    assert (part.status, part.body) == (206, whole[1000:2000])
    etag = reply.header("ETag")
    assert etag
    assert ask.served.get("/static/large.bin", headers=[("If-None-Match", etag)]).status == 304
    assert ask.served.get("/static/large.bin", method="HEAD").header("Content-Length") == "3000000"


# -- what is refused ------------------------------------------------------------------------------------------------


@check
def denied(ask: Asker) -> None:
    """Another address than the allowed one."""
    origin = ask.echo()
    assert ask.get(origin, source="127.0.0.2").status == 403
    assert origin.requests == []


@check
def nothing_listens(ask: Asker) -> None:
    """503 when the origin is not there."""
    origin = ask.echo()
    origin.stop()
    reply = ask.get(origin)
    assert (reply.status, reply.header("Proxy-Status")) == (503, "proxymw; error=connection_refused")


REFUSED = {
    "length_and_chunks": (
        "POST {path} HTTP/1.1\r\nHost: f\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "unknown_coding": "POST {path} HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "odd_coding": "POST {path} HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "signed_length": "POST {path} HTTP/1.1\r\nHost: f\r\nContent-Length: +3\r\n\r\nabc",
    "two_lengths": "POST {path} HTTP/1.1\r\nHost: f\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two_hosts": "GET {path} HTTP/1.1\r\nHost: f\r\nHost: g\r\n\r\n",
    "no_host": "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n",
    "bad_host": "GET {path} HTTP/1.1\r\nHost: a/b@c\r\nConnection: close\r\n\r\n",
    "another_authority": "GET http://evil{path} HTTP/1.1\r\nHost: f\r\n\r\n",
    "trace": "TRACE {path} HTTP/1.1\r\nHost: f\r\n\r\n",
    "connect": "CONNECT f:80 HTTP/1.1\r\nHost: f:80\r\n\r\n",
    "above_the_root": "GET {path}/../../../etc HTTP/1.1\r\nHost: f\r\n\r\n",
    "encoded_nul": "GET {path}/%00 HTTP/1.1\r\nHost: f\r\n\r\n",
    "encoded_newline": "GET {path}/%0d%0a HTTP/1.1\r\nHost: f\r\n\r\n",
    "fragment": "GET {path}/#x HTTP/1.1\r\nHost: f\r\n\r\n",
    "blank_before_colon": "GET {path} HTTP/1.1\r\nHost: f\r\nTransfer-Encoding : chunked\r\n\r\n",
    "folded_field": "GET {path} HTTP/1.1\r\nHost: f\r\nX-A: b\r\n c\r\n\r\n",
    "control_in_field": "GET {path} HTTP/1.1\r\nHost: f\r\nX-A: b\x01c\r\n\r\n",
    "bare_line_feed": "GET {path} HTTP/1.1\nHost: g\nConnection: close\n\n",
    "too_many_bytes": "GET {path} HTTP/1.1\r\nHost: f\r\nX-A: " + "b" * 200_000 + "\r\n\r\n",
}


def _refused(name: str, text: str) -> None:
    def refuse(ask: Asker) -> None:
        origin = ask.echo()
        text_sent = text.replace("{path}", f"/{origin.port}").replace("Host: f", "Connection: close\r\nHost: f", 1)
        reply = ask.served.raw(text_sent.encode("latin-1"), timeout=2)
        assert re.match(rb"HTTP/1\.[01] [45]\d\d ", reply) or reply == b"", reply[:200]
        assert origin.requests == [], origin.requests

    refuse.__doc__ = f"Refused, and no origin hears of it: {name.replace('_', ' ')}."
    CHECKS[f"refused_{name}"] = refuse


for _name, _text in REFUSED.items():
    _refused(_name, _text)


def test_conformance() -> None:
    """Every difference is of a server and a check that exist."""
    for server, checks in DIFFERENCES.items():
        assert server in SERVERS
        assert checks.keys() <= CHECKS.keys()


@pytest.mark.parametrize("name", CHECKS)
def test_check(served: Served, name: str) -> None:
    reason = DIFFERENCES.get(served.kind.name, {}).get(name)
    with contextlib.ExitStack() as stack:
        ask = Asker(served, stack)
        if reason is None:
            CHECKS[name](ask)
        else:
            with pytest.raises((AssertionError, OSError, http.client.HTTPException, pytest.fail.Exception)):
                CHECKS[name](ask)


def test_every_difference_is_a_row_of_the_documentation() -> None:
    page = ROOT / "docs" / "reference" / "servers.md"
    text = page.read_text()
    missing = [f"{server}: {why}" for server, rows in DIFFERENCES.items() for why in rows.values() if why not in text]
    assert missing == []
