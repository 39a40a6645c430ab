"""Whole exchanges against origins of every kind: answers, faults, retries, and that everything ends once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxymw.errors import (
    BodyTruncated,
    ClientAborted,
    ConnectionReset,
    ConnectRefused,
    FirstByteTimeout,
    ResponseMalformed,
)
from proxymw.exchange.forwarder import Forwarder, ForwardOptions
from proxymw.exchange.limits import Limits
from proxymw.exchange.response import Response
from proxymw.exchange.transport import Transport
from proxymw.rules.policy import Policy
from proxymw.rules.retrying import RetryPolicy
from tests.client import environ, eventually
from tests.exchange.asking import HELLO, FakePool, ask, pool_of
from tests.origins import READ_ALL, READ_HEAD, READ_REQUEST, RESET, Answer, dead_port

CHUNKED_HELLO = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport(connect=10, first_byte=10, between_bytes=10)
    yield transport
    transport.close()


@pytest.fixture
def forwarder(transport: Transport) -> Forwarder:
    return Forwarder(transport=transport)


@pytest.fixture
def hasty() -> Iterator[Forwarder]:
    """One that does not wait long for a silent origin."""
    transport = Transport(connect=10, first_byte=0.4, between_bytes=0.4)
    yield Forwarder(transport=transport)
    transport.close()


# -- answers that pass ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get"])
def test_methods_arrive_as_they_are(forwarder: Forwarder, echo: Any, method: str) -> None:
    asked = ask(forwarder, echo().url, "/a%2Fb?x=%zz&y", method=method)
    assert asked.status == 200
    assert f'"method": "{method}"'.encode() in asked.body
    assert b'"target": "/a%2Fb?x=%zz&y"' in asked.body


def test_head_has_the_length_and_no_body(forwarder: Forwarder, echo: Any) -> None:
    origin = echo(answer=lambda request: Answer(body=b"x" * 1234))
    for _ in range(2):
        asked = ask(forwarder, origin.url, method="HEAD")
        assert (asked.status, asked.header("Content-Length"), asked.body) == (200, "1234", b"")
    assert origin.connections == 1


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(forwarder: Forwarder, scripted: Any, status: int) -> None:
    origin = scripted([f"HTTP/1.1 {status} X\r\nContent-Length: 77\r\n\r\n".encode(), READ_REQUEST, HELLO])
    asked = ask(forwarder, origin.url)
    assert (asked.status, asked.body) == (status, b"")
    assert asked.header("Content-Length") == (None if status == 204 else "77")
    assert ask(forwarder, origin.url).body == b"hello"
    assert origin.connections == 1


def test_a_whole_answer_frees_its_connection_before_it_is_delivered(forwarder: Forwarder, echo: Any) -> None:
    origin = echo()
    for _ in range(5):
        assert ask(forwarder, origin.url).status == 200
    assert origin.connections == 1


def test_chunks_at_hand_become_a_whole_answer(forwarder: Forwarder, scripted: Any) -> None:
    asked = ask(forwarder, scripted(CHUNKED_HELLO).url)
    assert (asked.pieces, asked.header("Content-Length")) == ([b"hello"], "5")
    assert asked.header("Transfer-Encoding") is None


def test_the_head_goes_out_before_the_body_has_come(forwarder: Forwarder, scripted: Any) -> None:
    more = threading.Event()
    origin = scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", more, b"hello"])
    started: list[str] = []
    pool = pool_of(origin.url)
    body: Any = forwarder(environ("/"), lambda s, h, e=None: started.append(s), pool, "/")  # type: ignore[arg-type, return-value, misc]
    assert started == ["200 OK"]
    assert next(body) == b""
    more.set()
    assert next(body) == b"hello"
    body.close()
    assert pool.leases[0].end["error"] is None


def test_the_phrase_is_ours(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted(b"HTTP/1.1 404 <script>\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    started: list[str] = []
    forwarder(environ("/"), lambda s, h, e=None: started.append(s), pool_of(origin.url), "/")  # type: ignore[arg-type, return-value, misc]
    assert started == ["404 Not Found"]


def test_date_is_added_where_it_is_missing_but_not_for_gunicorn(forwarder: Forwarder, scripted: Any) -> None:
    dated = b"HTTP/1.1 200 OK\r\nDate: then\r\nServer: it\r\nContent-Length: 0\r\n\r\n"
    origin = scripted([HELLO, READ_REQUEST, dated, READ_REQUEST, dated, READ_REQUEST, HELLO])
    assert (ask(forwarder, origin.url).header("Date") or "").endswith(" GMT")
    asked = ask(forwarder, origin.url)
    assert (asked.header("Date"), asked.header("Server")) == ("then", "it")
    asked = ask(forwarder, origin.url, SERVER_SOFTWARE="gunicorn/27.0.1")
    assert (asked.header("Date"), asked.header("Server")) == (None, None)
    assert ask(forwarder, origin.url, SERVER_SOFTWARE="gunicorn/27.0.1").header("Date") is None


def test_what_the_access_log_wants_is_in_the_environ(forwarder: Forwarder, echo: Any) -> None:
    pool = pool_of(f"http://127.0.0.1:{dead_port()}", echo().url)
    asked = ask(forwarder, pool)
    assert {key: asked.environ[f"proxymw.{key}"] for key in ("pool", "member", "attempts")} == {
        "pool": "pool",
        "member": "m1",
        "attempts": 2,
    }
    assert 0 < asked.environ["proxymw.upstream_ms"] < 5000


def test_a_lease_hears_what_was_sent_and_received(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted(HELLO)
    pool = pool_of(origin.url)
    ask(forwarder, pool, method="POST", body=b"abc")
    end = pool.leases[0].end
    assert end["sent"] == len(origin.received[0])
    assert end["received"] == len("HTTP/1.1 200 OK") + 5
    assert (end["error"], end["status"]) == (None, 200)
    assert end["seconds"] > 0


def test_fields_of_the_lease_are_added(forwarder: Forwarder, echo: Any) -> None:
    pool = pool_of(echo().url)
    pool.leases[0].set_headers.append(("Set-Cookie", "ROUTEID=.a; Path=/"))
    assert ask(forwarder, pool).header("Set-Cookie") == "ROUTEID=.a; Path=/"


def test_any_sender_will_do() -> None:
    class Scripted:
        def send(self, origin: Any, request: Any, limits: Any = None, **_: Any) -> Response:
            return Response(418, [("X-Target", request.target)], b"short")

    asked = ask(Forwarder(transport=Scripted()), "http://nowhere.invalid", "/pot")
    assert (asked.status, asked.header("X-Target"), asked.body) == (418, "/pot", b"short")


# -- Host -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "host"),
    [
        (ForwardOptions(), None),
        (ForwardOptions(preserve_host=True), "ducklington.org"),
        (ForwardOptions(host="other.example:81"), "other.example:81"),
    ],
)
def test_the_host_that_is_sent(forwarder: Forwarder, echo: Any, options: ForwardOptions, host: str | None) -> None:
    origin = echo()
    ask(forwarder, origin.url, options=options)
    assert origin.requests[0].header("Host") == (host or f"127.0.0.1:{origin.port}")


# -- faults before the head: a status -------------------------------------------------------------------------------

FAULTS: dict[str, tuple[list[Any], int, type[Exception], str]] = {
    "closed before the head": ([READ_HEAD], 502, ConnectionReset, "connection_terminated"),
    "reset before the head": ([READ_HEAD, RESET], 502, ConnectionReset, "connection_terminated"),
    "closed after the status line": ([b"HTTP/1.1 200 OK\r\n"], 502, ConnectionReset, "connection_terminated"),
    "closed inside the head": ([b"HTTP/1.1 200 OK\r\nX: y"], 502, ConnectionReset, "connection_terminated"),
    "reset inside the head": ([b"HTTP/1.1 200 OK\r\nX: y", RESET], 502, ConnectionReset, "connection_terminated"),
    "silent": ([READ_HEAD, READ_ALL], 504, FirstByteTimeout, "http_response_timeout"),
    "silent inside the head": ([b"HTTP/1.1 200 OK\r\nX: y", READ_ALL], 504, FirstByteTimeout, "http_response_timeout"),
    "dripping": (
        [b"HTTP/1.1 200 OK\r\nX: ", *[b"y", 0.1] * 10, READ_ALL],
        504,
        FirstByteTimeout,
        "http_response_timeout",
    ),
    "endless interim, in time": (
        [*[b"HTTP/1.1 100 C\r\n\r\n"] * 9, READ_ALL],
        502,
        ResponseMalformed,
        "http_protocol_error",
    ),
    "dripping interim": (
        [*[b"HTTP/1.1 102 P\r\n\r\n", 0.1] * 8, READ_ALL],
        504,
        FirstByteTimeout,
        "http_response_timeout",
    ),
    "garbage": ([b"what?", READ_ALL], 502, ResponseMalformed, "http_protocol_error"),
    "HTTP/0.9": ([b"<html>hello</html>"], 502, ResponseMalformed, "http_protocol_error"),
    "bare LF": ([b"HTTP/1.1 200 OK\nX: y\n\n", READ_ALL], 502, ResponseMalformed, "http_protocol_error"),
    "unasked 101": (
        [b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nRAW", READ_ALL],
        502,
        ResponseMalformed,
        "http_protocol_error",
    ),
    "endless head": (
        [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000, READ_ALL],
        502,
        ResponseMalformed,
        "http_response_header_section_size",
    ),
    "endless field": (
        [b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000, READ_ALL],
        502,
        ResponseMalformed,
        "http_response_header_section_size",
    ),
    "bad chunk at hand": (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n", READ_ALL],
        502,
        ResponseMalformed,
        "http_protocol_error",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_before_the_head_is_a_status(
    hasty: Forwarder, scripted: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    script, status, error, proxy_status = FAULTS[fault]
    origin = scripted(script)
    pool = pool_of(origin.url)
    asked = ask(hasty, pool, "/x", method="POST", body=b"pay=1")
    assert asked.status == status
    assert asked.header("Proxy-Status") == f"proxymw; error={proxy_status}"
    assert asked.header("Cache-Control") == "no-store"
    assert isinstance(pool.leases[0].end["error"], error)
    assert origin.connections == 1, "a POST is never sent twice"
    assert [record.name for record in caplog.records] == ["proxymw.upstream"]
    assert f"event={error.event} " in caplog.messages[0] or "head_too_large" in caplog.messages[0]  # type: ignore[attr-defined]
    eventually(lambda: origin.open_connections == 0)


def test_nobody_listens(forwarder: Forwarder) -> None:
    pool = pool_of(f"http://127.0.0.1:{dead_port()}")
    asked = ask(forwarder, pool)
    assert (asked.status, asked.header("Proxy-Status")) == (503, "proxymw; error=connection_refused")
    assert isinstance(pool.leases[0].end["error"], ConnectRefused)


def test_no_member_is_503_with_retry_after(forwarder: Forwarder) -> None:
    asked = ask(forwarder, FakePool())
    assert (asked.status, asked.header("Retry-After")) == (503, "1")
    assert asked.header("Proxy-Status") == "proxymw; error=destination_unavailable"


@pytest.mark.parametrize(
    ("policy", "silent", "unknown"),
    [(Policy.modern(), 504, 502), (Policy.apache(), 502, 500)],
    ids=["modern", "apache"],
)
def test_statuses_in_which_the_dialects_differ(
    transport: Transport, scripted: Any, policy: Policy, silent: int, unknown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarder = Forwarder(transport=transport, policy=policy)
    quick = ForwardOptions(first_byte=0.3)
    assert ask(forwarder, scripted([READ_HEAD, READ_ALL]).url, options=quick).status == silent

    def unresolved(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    asked = ask(forwarder, "http://nowhere.invalid")
    assert (asked.status, asked.header("Proxy-Status")) == (unknown, "proxymw; error=dns_error")


# -- faults after the head: a cut -----------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CUTS: dict[str, list[Any]] = {
    "closed": [HEAD, 0.02, b"hello"],
    "reset": [HEAD, 0.02, b"hello", 0.02, RESET],
    "silent": [HEAD, 0.02, b"hello", READ_ALL],
    "closed inside a chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0.02, b"9\r\nhello"],
    "no last chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0.02],
    "bad chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0.05, b"x\r\n", READ_ALL],
    "no CRLF at the end": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"],
    "reset before an end that is the connection's": [b"HTTP/1.1 200 OK\r\n\r\nhello", 0.05, RESET],
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_body_that_breaks_off_looks_cut(hasty: Forwarder, scripted: Any, cut: str) -> None:
    origin = scripted(CUTS[cut])
    pool = pool_of(origin.url)
    asked = ask(hasty, pool)
    assert asked.status == 200
    assert isinstance(asked.cut, ConnectionResetError)
    assert b"hello".startswith(asked.body)
    assert pool.leases[0].end["error"] is not None
    eventually(lambda: origin.open_connections == 0)


GOOD = {
    "length": b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 11\r\n\r\nhello world",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: u\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
}


@pytest.mark.parametrize("good", GOOD)
def test_a_good_answer_cut_at_any_byte_is_never_whole(good: str, scripted: Any) -> None:
    """No client may take a part for the whole, whatever byte the origin dies at."""
    answer = GOOD[good]
    transport = Transport(first_byte=5, between_bytes=5)
    forwarder = Forwarder(transport=transport, retry=RetryPolicy(replays=0))
    origin = scripted(*[[READ_HEAD, answer[:cut]] for cut in range(len(answer))], answer)
    for cut in range(len(answer)):
        asked = ask(forwarder, origin.url)
        assert asked.cut is not None or asked.status == 502, (cut, asked)
        assert b"hello world".startswith(asked.body) or asked.status == 502
    assert ask(forwarder, origin.url).body == b"hello world"
    transport.close()


# -- reuse: only what is provably clean -----------------------------------------------------------------------------

UNCLEAN: dict[str, list[Any]] = {
    "says close": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"],
    "HTTP/1.0": [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    "bytes behind the body": [HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"],
    "late bytes behind the body": [HELLO, 0.02, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"],
    "bytes behind the last chunk": [CHUNKED_HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"],
    "a body for 304": [b"HTTP/1.1 304 N\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"],
    "a late 103": [HELLO, 0.02, b"HTTP/1.1 103 E\r\n\r\n"],
    "two answers to one request": [HELLO + HELLO.replace(b"hello", b"wrong")],
}


@pytest.mark.parametrize("unclean", UNCLEAN)
def test_a_connection_in_doubt_is_not_used_again(forwarder: Forwarder, scripted: Any, unclean: str) -> None:
    origin = scripted([*UNCLEAN[unclean], sent := threading.Event(), READ_ALL], [READ_REQUEST, HELLO, READ_ALL])
    ask(forwarder, origin.url)
    sent.set()
    time.sleep(0.05)
    assert ask(forwarder, origin.url).body == b"hello"
    assert origin.connections == 2
    eventually(lambda: origin.open_connections == 1)


def test_a_103_is_not_the_answer_of_this_request_nor_of_the_next(forwarder: Forwarder, scripted: Any) -> None:
    """The founding fault of plain urllib3: a late 103 hands one client's answer to the next."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    mine, yours = (HELLO.replace(b"hello", word) for word in (b"mine.", b"yours"))
    origin = scripted([READ_REQUEST, early, 0.03, mine, READ_REQUEST, early, 0.03, yours])
    assert ask(forwarder, origin.url).body == b"mine."
    assert ask(forwarder, origin.url).body == b"yours"
    assert origin.connections == 1


def test_early_hints_are_handed_to_a_server_that_takes_them(transport: Transport, scripted: Any) -> None:
    early = b"HTTP/1.1 103 E\r\nLink: </a>\r\nSet-Cookie: no=1\r\n\r\n"
    hints: list[Any] = []
    keys = {"wsgi.early_hints": hints.append}
    asked = ask(Forwarder(transport=transport), scripted(early + HELLO).url, **keys)
    assert (asked.body, hints) == (b"hello", [[("Link", "</a>")]])
    assert ask(Forwarder(transport=transport, early_hints=False), scripted(early + HELLO).url, **keys).body == b"hello"
    assert len(hints) == 1


def test_an_answer_left_unread_closes_its_connection(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", READ_ALL], HELLO)
    pool = pool_of(origin.url)
    body = forwarder(environ("/"), lambda s, h, e=None: None, pool, "/")  # type: ignore[arg-type, return-value, misc]
    body.close()  # type: ignore[attr-defined]
    assert pool.leases[0].end["error"] is None
    eventually(lambda: origin.open_connections == 0)
    assert ask(forwarder, origin.url).body == b"hello"


def test_an_answer_that_nobody_closes_still_ends(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", READ_ALL])
    pool = pool_of(origin.url)
    body = forwarder(environ("/"), lambda s, h, e=None: None, pool, "/")  # type: ignore[arg-type, return-value, misc]
    next(iter(body))
    del body
    assert pool.leases[0].end["status"] == 200
    eventually(lambda: origin.open_connections == 0)


@pytest.mark.parametrize(
    "answer", [HELLO, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["whole", "streamed"]
)
def test_a_start_response_that_raises_ends_everything(forwarder: Forwarder, scripted: Any, answer: bytes) -> None:
    pool = pool_of(scripted([answer, READ_ALL]).url)

    def start_response(*_: Any) -> Any:
        raise ValueError("a header that the server does not like")

    with pytest.raises(ValueError, match="does not like"):
        forwarder(environ("/"), start_response, pool, "/")
    assert pool.leases[0].end["status"] == 200


def test_a_worker_that_is_stopped_ends_the_lease(forwarder: Forwarder) -> None:
    class Stopping:
        def send(self, *_: Any, **__: Any) -> Response:
            raise SystemExit(1)

    pool = pool_of("http://127.0.0.1:9")
    with pytest.raises(SystemExit):
        ask(Forwarder(transport=Stopping()), pool)
    assert isinstance(pool.leases[0].end["error"], ClientAborted)


# -- again, but never twice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_stale_connection_is_replaced_unseen(forwarder: Forwarder, scripted: Any, method: str) -> None:
    """The origin closed a kept connection just as the next request went out."""
    answer = HELLO if method != "HEAD" else HELLO[:-5]
    origin = scripted([READ_REQUEST, answer, READ_HEAD, RESET], answer)
    for _ in range(2):
        assert ask(forwarder, origin.url, method=method).status == 200
    assert origin.connections == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "PROPFIND", "LOCK"])
def test_a_request_that_may_have_run_is_not_sent_again(forwarder: Forwarder, scripted: Any, method: str) -> None:
    origin = scripted([READ_REQUEST, HELLO, READ_HEAD, RESET], HELLO)
    assert ask(forwarder, origin.url, method=method).status == 200
    assert ask(forwarder, origin.url, method=method).status == 502
    assert origin.connections == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_idempotent_writes_are_sent_again_unless_told_not_to(transport: Transport, scripted: Any, method: str) -> None:
    for allowed, status, connections in ((True, 200, 2), (False, 502, 1)):
        origin = scripted([READ_REQUEST], HELLO)
        forwarder = Forwarder(transport=transport, retry=RetryPolicy(idempotent_writes=allowed))
        assert ask(forwarder, origin.url, method=method, body=b"x").status == status
        assert origin.connections == connections


def test_a_closed_connection_is_seen_before_a_post_is_written(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted([READ_REQUEST, HELLO], HELLO)
    ask(forwarder, origin.url)
    eventually(lambda: origin.open_connections == 0)
    assert ask(forwarder, origin.url, method="POST", body=b"pay=1").status == 200
    assert [bytes(seen).count(b"pay=1") for seen in origin.received] == [0, 1]


def test_a_safe_request_without_an_answer_is_repeated_once(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted([READ_HEAD], [READ_HEAD], HELLO)
    assert ask(forwarder, origin.url).status == 502
    assert origin.connections == 2
    assert ask(forwarder, origin.url).status == 200


def test_a_part_of_an_answer_is_an_answer(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted([b"HTTP/1.1 2"], HELLO)
    assert ask(forwarder, origin.url).status == 502
    assert origin.connections == 1


def test_a_timeout_is_not_repeated(hasty: Forwarder, scripted: Any) -> None:
    origin = scripted([READ_HEAD, READ_ALL], HELLO)
    assert ask(hasty, origin.url).status == 504
    assert origin.connections == 1


def test_repeats_have_a_budget(transport: Transport, scripted: Any) -> None:
    origin = scripted([READ_HEAD])
    forwarder = Forwarder(transport=transport, retry=RetryPolicy(budget=0.2))
    for _ in range(60):
        assert ask(forwarder, origin.url).status == 502
    assert 60 + 10 <= origin.connections <= 60 + 10 + 12


def test_a_member_that_refuses_costs_nobody_anything(forwarder: Forwarder, echo: Any) -> None:
    pool = pool_of(*[f"http://127.0.0.1:{dead_port()}"] * 2, echo().url)
    asked = ask(forwarder, pool, method="POST", body=b"pay=1")
    assert asked.status == 200
    assert [type(lease.end["error"]) for lease in pool.leases] == [ConnectRefused, ConnectRefused, type(None)]
    assert [len(tried) for tried in pool.tried] == [0, 1, 2]


def test_a_large_upload_moves_on_too_while_nothing_of_it_was_sent(forwarder: Forwarder, echo: Any) -> None:
    origin = echo()
    pool = pool_of(f"http://127.0.0.1:{dead_port()}", origin.url)
    assert ask(forwarder, pool, method="POST", body=b"x" * 300_000).status == 200
    assert origin.requests[0].length == 300_000


def test_the_first_true_error_is_the_one_reported(forwarder: Forwarder, scripted: Any) -> None:
    pool = pool_of(scripted([READ_HEAD]).url, f"http://127.0.0.1:{dead_port()}")
    asked = ask(forwarder, pool)
    assert (asked.status, asked.header("Proxy-Status")) == (502, "proxymw; error=connection_terminated")


def test_an_origin_that_restarts_all_the_time_loses_no_get(transport: Transport, scripted: Any) -> None:
    origin = scripted([READ_REQUEST, HELLO, READ_HEAD, RESET])
    forwarder = Forwarder(transport=transport)
    assert {ask(forwarder, origin.url).status for _ in range(100)} == {200}


# -- request bodies -------------------------------------------------------------------------------------------------


def _chunked(body: bytes) -> dict[str, Any]:
    return {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "wsgi.input": io.BytesIO(body)}


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 65536, 65537, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_arrive_whole(forwarder: Forwarder, echo: Any, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    origin = echo()
    asked = ask(forwarder, origin.url, method="POST", **(_chunked(body) if chunked else {"body": body}))
    assert asked.status == 200
    [request] = origin.requests
    assert (request.length, request.sha256) == (size, hashlib.sha256(body).hexdigest())
    small = size <= 16384
    assert request.header("Content-Length") == (str(size) if small or not chunked else None)
    assert request.header("Transfer-Encoding") == (None if small or not chunked else "chunked")


@pytest.mark.parametrize("sent", [0, 3, 20_000, 100_000])
def test_a_client_that_dies_in_its_body_leaves_no_finished_request(
    forwarder: Forwarder, scripted: Any, sent: int
) -> None:
    origin = scripted([READ_REQUEST, HELLO])
    pool = pool_of(origin.url)
    asked = ask(forwarder, pool, method="POST", body=b"x" * sent, CONTENT_LENGTH="200000")
    assert asked.status == 400
    eventually(lambda: origin.open_connections == 0)
    if pool.leases[0].finished:
        assert isinstance(pool.leases[0].end["error"], ClientAborted)
    if sent < 64 * 1024 and origin.received:
        assert len(origin.received[0]) < 200_000


def test_a_broken_chunk_of_the_client_leaves_no_finished_request(forwarder: Forwarder, scripted: Any) -> None:
    class Broken:
        left = 3

        def read(self, size: int) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise ValueError("bad chunk")
            return b"x" * size

    origin = scripted([READ_REQUEST, HELLO])
    how = {**_chunked(b""), "wsgi.input": Broken()}
    assert ask(forwarder, origin.url, method="POST", **how).status == 400
    eventually(lambda: origin.open_connections == 0)
    assert not any(bytes(seen).endswith(b"0\r\n\r\n") for seen in origin.received)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1001, 50_000, 500_000])
def test_a_body_over_the_cap_is_413(transport: Transport, scripted: Any, chunked: bool, size: int) -> None:
    cap = 1000 if size < 500_000 else 300_000
    forwarder = Forwarder(transport=transport, max_body=cap)
    how = _chunked(b"x" * size) if chunked else {"body": b"x" * size}
    assert ask(forwarder, scripted([READ_ALL]).url, method="POST", **how).status == 413


@pytest.mark.parametrize("then", [[READ_ALL], [0.2], [0.05, RESET]], ids=["reads on", "closes", "resets"])
def test_an_answer_during_the_upload_is_delivered(forwarder: Forwarder, scripted: Any, then: list[Any]) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno\n"
    origin = scripted([READ_HEAD, refusal, *then], HELLO)
    asked = ask(forwarder, origin.url, method="POST", body=b"x" * 8_000_000)
    assert (asked.status, asked.body) == (413, b"no\n")
    assert ask(forwarder, origin.url).body == b"hello"
    assert origin.connections == 2


def test_a_100_during_the_upload_is_no_answer(forwarder: Forwarder, scripted: Any) -> None:
    def rest(connection: Any) -> None:
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while connection.recv(65536):
                pass

    origin = scripted([READ_HEAD, b"HTTP/1.1 100 Continue\r\n\r\n", rest, HELLO])
    assert ask(forwarder, origin.url, method="POST", body=b"x" * 500_000).body == b"hello"


def test_an_origin_that_takes_nothing_is_504(hasty: Forwarder, scripted: Any) -> None:
    origin = scripted([READ_HEAD, 2.0])
    asked = ask(hasty, origin.url, method="POST", body=b"x" * 30_000_000)
    assert asked.status == 504


# -- limits ---------------------------------------------------------------------------------------------------------


def test_the_total_ends_a_body_that_keeps_dripping(forwarder: Forwarder, scripted: Any) -> None:
    origin = scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *[b"x", 0.05] * 100])
    asked = ask(forwarder, origin.url, options=ForwardOptions(total=0.3))
    assert isinstance(asked.cut, ConnectionResetError)
    assert 1 <= len(asked.body) < 20


def test_a_rule_goes_before_a_member_and_a_member_before_the_transport(hasty: Forwarder, scripted: Any) -> None:
    late = [READ_HEAD, 0.7, HELLO]
    assert ask(hasty, pool_of(scripted(late).url)).status == 504
    pool = pool_of(scripted(late).url)
    pool.leases[0].limits = Limits(first_byte=10)
    assert ask(hasty, pool).status == 200
    pool = pool_of(scripted(late).url)
    pool.leases[0].limits = Limits(first_byte=10)
    assert ask(hasty, pool, options=ForwardOptions(first_byte=0.2)).status == 504


# -- applications as members ----------------------------------------------------------------------------------------


def test_a_member_that_is_an_application_is_called(forwarder: Forwarder) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("201 Created", [("X-Path", environ["SCRIPT_NAME"] + "|" + environ["PATH_INFO"])])
        return [environ["QUERY_STRING"].encode(), b" ", environ["wsgi.input"].read()]

    pool = pool_of("http://127.0.0.1:9")
    pool.leases[0].app = app
    pool.leases[0].set_headers.append(("Set-Cookie", "ROUTEID=.a"))
    asked = ask(forwarder, pool, "/a%20b?q=1", options=ForwardOptions(prefix="/p"), method="POST", body=b"abc")
    assert (asked.status, asked.body) == (201, b"q=1 abc")
    assert asked.headers == [("X-Path", "/p|/a b"), ("Set-Cookie", "ROUTEID=.a")]
    end = pool.leases[0].end
    # bytraffic once gave every request to the first of two applications: nothing was counted but their bodies.
    assert (end["status"], end["received"]) == (201, len("HTTP/1.1 201 Created") + 7)
    assert end["sent"] > len("POST /a%20b?q=1") + 3


def test_an_application_gets_the_whole_of_a_large_body(forwarder: Forwarder) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [str(len(environ["wsgi.input"].read())).encode()]

    pool = pool_of("http://127.0.0.1:9")
    pool.leases[0].app = app
    assert ask(forwarder, pool, method="POST", body=b"x" * 200_000).body == b"200000"


def test_an_application_that_raises_ends_its_lease(forwarder: Forwarder) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise KeyError("its own fault")

    pool = pool_of("http://127.0.0.1:9")
    pool.leases[0].app = app
    with pytest.raises(KeyError):
        ask(forwarder, pool)
    assert pool.leases[0].end["error"] is not None


# -- what is logged -------------------------------------------------------------------------------------------------


def test_one_line_with_nothing_that_could_forge_another(forwarder: Forwarder, caplog: pytest.LogCaptureFixture) -> None:
    request = environ("/a", PATH_INFO="/a\r\nevent=forged \x1b[31m", REMOTE_ADDR="10.0.0.1")
    ask(forwarder, f"http://127.0.0.1:{dead_port()}", request=request)
    [line] = caplog.messages
    assert line.isprintable()
    assert "path=/a\\x0d\\x0aevent=forged\\x20\\x1b[31m" in line
    assert line.startswith("event=upstream_refused status=503 client=10.0.0.1 method=GET ")


def test_a_cut_and_a_retry_are_logged(forwarder: Forwarder, scripted: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "proxymw.upstream")
    ask(forwarder, scripted([READ_HEAD], [HEAD, 0.02, b"hello"]).url)
    assert [message.split()[0] for message in caplog.messages] == ["event=upstream_reset", "event=upstream_truncated"]
    assert "retried=yes" in caplog.messages[0]
    assert BodyTruncated.event in caplog.messages[1]
    assert "bytes=" in caplog.messages[1]
