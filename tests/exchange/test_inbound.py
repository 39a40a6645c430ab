"""What is refused of every request, before anything is decided about it; and our own answers."""

from __future__ import annotations

from typing import Any

import pytest

from proxymw.errors import RequestRefused
from proxymw.exchange.inbound import ALLOW, NOT_FOUND, answer, check, inbound, refuse
from proxymw.rules.policy import Policy
from tests.client import call, environ, run

POLICY = Policy.modern()


def verdict(target: str = "/", **how: Any) -> int:
    """The status of the refusal; 0 when there is none."""
    try:
        check(environ(target, **how), POLICY)
    except RequestRefused as refusal:
        return refusal.status
    return 0


@pytest.mark.parametrize(
    "host", ["a", "a.b-c.d", "a:80", "A_b", "127.0.0.1:8000", "[::1]", "[::1]:80", "xn--bcher-kva.example", "a."]
)
def test_hosts_that_pass(host: str) -> None:
    assert verdict(host=host) == 0


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "a b", "a,b", "a, b", "good@evil", "a/b", "a\\b", "a?b", "a#b", "a%0d%0ab", "a:b", "a:99999999"),
        *("a:65536", "a:-1", "a:80:80", "[::1", "::1", "[::1]x", "[g::1]", "a\tb", "a\0b", "a\r\nb", "caf\xe9", "a:"),
        *("http://a", "a;b", "*", "<a>", '"a"', "x" * 300),
    ],
)
def test_hosts_that_do_not(host: str) -> None:
    assert verdict(host=host) == 400
    assert verdict(host=host) == 400


def test_a_missing_host_is_an_old_clients_right_only() -> None:
    request = environ("/")
    del request["HTTP_HOST"]
    with pytest.raises(RequestRefused):
        check(dict(request), POLICY)
    check({**request, "SERVER_PROTOCOL": "HTTP/1.0"}, POLICY)


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("GET", 0),
        ("PROPFIND", 0),
        ("get", 0),
        ("CONNECT", 501),
        ("TRACE", 405),
        ("G(E)T", 400),
        ("", 400),
        ("A\r\nB", 400),
    ],
)
def test_methods(method: str, status: int) -> None:
    assert verdict(method=method) == status


@pytest.mark.parametrize(
    ("length", "status"),
    [
        *[("0", 0), ("5", 0), ("0005", 0), ("1" * 18, 0), ("", 0)],
        *[
            (bad, 400)
            for bad in ("+5", "-5", "0x5", "5_0", "5.0", "5 5", "5, 5", "5;a", "five", "1" * 19, "\xb2", " 5", "5\n")
        ],
    ],
)
def test_lengths(length: str, status: int) -> None:
    assert verdict(method="POST", CONTENT_LENGTH=length) == status


@pytest.mark.parametrize(
    ("coding", "status"),
    [
        *[("chunked", 0), ("CHUNKED", 0), (" chunked", 0)],
        *[
            (bad, 501)
            for bad in ("gzip", "gzip, chunked", "chunked, chunked", "xchunked", "", "\x0bchunked", "chunked;q=1")
        ],
    ],
)
def test_transfer_codings(coding: str, status: int) -> None:
    keys = {"HTTP_TRANSFER_ENCODING": coding, "wsgi.input_terminated": True}
    assert verdict(method="POST", **keys) == status


def test_a_length_with_chunks_is_refused() -> None:
    keys = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "CONTENT_LENGTH": "5"}
    assert verdict(method="POST", **keys) == 400


def test_chunks_need_a_server_that_sees_their_end() -> None:
    assert verdict(method="POST", HTTP_TRANSFER_ENCODING="chunked") == 411
    keys = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "SERVER_PROTOCOL": "HTTP/1.0"}
    assert verdict(method="POST", **keys) == 400


@pytest.mark.parametrize(("value", "status"), [("100-continue", 0), ("100-Continue", 0), ("102-x", 417), ("", 417)])
def test_expectations(value: str, status: int) -> None:
    assert verdict(HTTP_EXPECT=value) == status


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("/p", 0),
        ("//evil/p", 0),
        ("http://ducklington.org/p", 0),
        ("HTTP://DUCKLINGTON.ORG:80/p", 0),
        ("http://ducklington.org", 0),
        ("http://evil.example/p", 400),
        ("http://ducklington.org:81/p", 400),
        ("http://ducklington.org@evil/p", 400),
        ("http://user@ducklington.org/p", 400),
        ("/p#frag", 400),
        ("p", 400),
        ("*", 400),
        (":80/x", 400),
        ("ftp://ducklington.org/", 400),
        ("unix:/tmp/x|http://ducklington.org/", 400),
        ("ducklington.org:80", 400),
    ],
)
@pytest.mark.parametrize("key", ["RAW_URI", "REQUEST_URI"])
def test_forms_of_the_target(raw: str, status: int, key: str) -> None:
    assert verdict("/p", raw_uri=False, **{key: raw}) == status


def test_options_of_the_server_is_answered_here() -> None:
    request = environ("/", method="OPTIONS", RAW_URI="*", PATH_INFO="*")
    with pytest.raises(RequestRefused) as caught:
        inbound(request, POLICY)
    reply = run(lambda env, start: refuse(env, start, caught.value), request)
    assert (reply.status, reply.header("Allow"), reply.body) == (204, ALLOW, b"")


def test_the_path_is_worked_out_once_and_again_when_it_changed() -> None:
    request = environ("/a/./b")
    first = inbound(request, POLICY)
    assert first.path == "/a/b"
    assert inbound(request, POLICY) is first
    request["PATH_INFO"] = "/c"
    assert inbound(request, POLICY).path == "/c"
    request.update(SCRIPT_NAME="/c", PATH_INFO="/d")
    assert inbound(request, POLICY).path == "/d"
    assert inbound(request, Policy.apache()) is not inbound(request, POLICY)


def test_a_refused_head_is_refused_again() -> None:
    request = environ("/", host="a b")
    for _ in range(2):
        with pytest.raises(RequestRefused):
            inbound(request, POLICY)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_our_pages_hold_nothing_of_the_request(method: str) -> None:
    reply = call(NOT_FOUND, "/<script>alert(1)</script>", method=method, host="<h>")
    assert reply.status == 404
    assert reply.body == (b"404 Not Found\n" if method == "GET" else b"")
    assert {name: reply.header(name) for name in ("Cache-Control", "X-Content-Type-Options", "Content-Type")} == {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Type": "text/plain; charset=utf-8",
    }
    assert reply.header("Content-Length") == "14"


def test_an_answer_of_ones_own() -> None:
    reply = call(lambda env, start: answer(env, start, 405, text="Only GET.", allow=["GET", "HEAD"]), method="POST")
    assert (reply.status, reply.text, reply.header("Allow")) == (405, "Only GET.\n", "GET, HEAD")


def test_good_hosts_that_clients_invent_do_not_pile_up() -> None:
    from proxymw.exchange import inbound as module

    for n in range(2 * module._GOOD_HOSTS_MOST):
        assert verdict(host=f"h{n}.example") == 0
    assert len(module._good_hosts) <= module._GOOD_HOSTS_MOST
