"""The writer: exactly which bytes an origin gets, and what never reaches one."""

from __future__ import annotations

from typing import Any

import pytest

from proxymw.errors import RequestRefused
from proxymw.exchange import request as module
from proxymw.exchange.request import FIELDS_MOST, Request, RequestWriter
from proxymw.rules.origins import Origin
from proxymw.rules.policy import Policy
from tests.client import environ

ORIGIN = Origin.parse("http://app:9001")
BARE = Policy.modern().but(forwarded=(), via="off")


def head(target: str = "/", *, policy: Policy = BARE, origin: Origin = ORIGIN, prefix: str = "", **how: Any) -> str:
    request = RequestWriter(policy).request(environ(target, **how), target, prefix=prefix)
    return request.head(origin).decode("latin-1")


def fields(policy: Policy = BARE, **how: Any) -> list[str]:
    lines = head(policy=policy, **how).split("\r\n")
    assert lines[-2:] == ["", ""]
    return lines[2:-2]


def test_the_head_byte_for_byte() -> None:
    sent = head("/a%2fb;p?q=%zz&x", headers=[("User-Agent", "u/1"), ("X-A", "caf\xe9")], policy=Policy.modern())
    assert sent == (
        "GET /a%2fb;p?q=%zz&x HTTP/1.1\r\nHost: app:9001\r\nUser-Agent: u/1\r\nX-A: caf\xe9\r\n"
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: ducklington.org\r\nX-Forwarded-Proto: http\r\n"
        "Via: 1.1 proxymw\r\n\r\n"
    )


def test_the_base_of_the_origin_goes_first() -> None:
    assert head("/x", origin=Origin.parse("http://app/base/y")).startswith("GET /base/y/x HTTP/1.1\r\nHost: app\r\n")


@pytest.mark.parametrize(
    "target",
    [
        "/a\r\nX-Injected: 1",
        "/a b",
        "/a\tb",
        "/a\0b",
        "/a\x0bb",
        "/a\x7fb",
        "/a#frag",
        "no-slash",
        "http://evil/",
        "",
        "*",
        "/a?b c",
        "/a?\nb",
        "/\u20ac",
    ],
)
def test_a_target_that_could_end_the_request_line_is_refused(target: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        RequestWriter(BARE).request(environ("/"), target).head(ORIGIN)
    assert caught.value.status == 400


def test_8_bit_bytes_of_a_target_are_encoded_and_the_rest_is_as_it_was() -> None:
    assert head("/\xe9\xff?\xfc=[1]{2}|%7e%7E").startswith("GET /%E9%FF?%FC=[1]{2}|%7e%7E HTTP/1.1\r\n")


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\r\nX-Injected: 1", "a\0b", "a\x0bb", "a\x7fb", "\u20ac", "a\r\n b"])
@pytest.mark.parametrize(
    "key", ["HTTP_X_A", "HTTP_VIA", "HTTP_COOKIE", "CONTENT_TYPE", "REMOTE_ADDR", "HTTP_X_FORWARDED_FOR"]
)
@pytest.mark.parametrize("policy", [Policy.modern(), Policy.apache()], ids=["modern", "apache"])
def test_a_control_in_a_value_reaches_no_origin(bad: str, key: str, policy: Policy) -> None:
    """Row 44: whatever the server let pass, there is no way out of a field."""
    if key == "HTTP_X_FORWARDED_FOR" and not policy.append_forwarded:
        assert bad not in head(policy=policy, **{key: bad})
        return
    if key == "HTTP_VIA" and policy.via == "off":
        key = "HTTP_X_OTHER"
    with pytest.raises(RequestRefused) as caught:
        head(policy=policy, **{key: bad})
    assert caught.value.status == 400


@pytest.mark.parametrize("key", ["HTTP_X A", "HTTP_X:", "HTTP_X\r\nY", "HTTP_\xe9", "HTTP_X(1)"])
def test_a_name_that_is_no_token_is_refused_every_time(key: str) -> None:
    writer = RequestWriter(BARE)
    for _ in range(2):
        with pytest.raises(RequestRefused):
            writer.request(environ("/", **{key: "1"}), "/")


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "Expect"),
        *("Proxy-Authorization", "Proxy-Authenticate", "Proxy"),
    ],
)
def test_fields_that_stay_here(name: str) -> None:
    assert fields(headers=[(name, "100-continue"), ("X-Kept", "1")]) == ["X-Kept: 1"]


@pytest.mark.parametrize(
    "name",
    [
        *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix"),
        *("X-Forwarded-Server", "X-Forwarded-Ssl", "X-Real-IP", "Forwarded", "X-Client-IP"),
    ],
)
def test_what_a_client_asserts_about_itself_is_dropped(name: str) -> None:
    assert not [line for line in fields(Policy.modern(), headers=[(name, "6.6.6.6")]) if "6.6.6.6" in line]


def test_apache_appends_to_what_the_client_sent() -> None:
    sent = fields(Policy.apache(), headers=[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https")])
    assert sent == [
        "X-Forwarded-Proto: https",
        "Connection: Keep-Alive",
        "X-Forwarded-For: 6.6.6.6, 127.0.0.1",
        "X-Forwarded-Host: ducklington.org",
        "X-Forwarded-Server: proxymw",
    ]


def test_connection_cannot_take_away_what_we_say() -> None:
    """Row 37: a client's Connection removes the client's own fields and never ours."""
    listed = "close, X-Forwarded-For, x-forwarded-host, Via, Host, Content-Length, X-Secret"
    sent = fields(
        Policy.modern(), headers=[("Connection", listed), ("X-Secret", "s"), ("Via", "1.0 fred")], body=b"abc"
    )
    assert sent == [
        "Content-Length: 3",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: ducklington.org",
        "X-Forwarded-Proto: http",
        "Via: 1.0 fred, 1.1 proxymw",
    ]


def test_connection_lists_whole_names() -> None:
    sent = fields(headers=[("Connection", "X-A"), ("X-A", "1"), ("X-A-B", "2")])
    assert sent == ["X-A-B: 2"]


def test_the_public_prefix_includes_the_mount() -> None:
    policy = BARE.but(forwarded=("X-Forwarded-Prefix",))
    assert fields(policy, prefix="/wiki", script_name="/front") == ["X-Forwarded-Prefix: /front/wiki"]


def test_a_loop_is_seen() -> None:
    fields(Policy.modern(), headers=[("Via", "1.1 proxymw")])
    with pytest.raises(RequestRefused) as caught:
        fields(Policy.modern(), headers=[("Via", "1.1 proxymw, 1.1 other, 1.0 proxymw (again)")])
    assert caught.value.status == 508


def test_too_many_and_too_large_fields_are_431() -> None:
    fields(headers=[(f"X-{n}", "1") for n in range(FIELDS_MOST)])
    for headers in ([(f"X-{n}", "1") for n in range(FIELDS_MOST + 1)], [("X-A", "x" * 66_000)]):
        with pytest.raises(RequestRefused) as caught:
            fields(headers=headers)
        assert caught.value.status == 431


def test_names_that_clients_invent_do_not_pile_up() -> None:
    writer = RequestWriter(BARE)
    for n in range(2 * module._LAYOUTS_MOST):
        sent = writer.request(environ("/", headers=[(f"X-Made-{n}", "1")]), "/").head(ORIGIN)
        assert f"\r\nX-Made-{n}: 1\r\n".encode() in sent
    assert len(writer._layouts) <= module._LAYOUTS_MOST


@pytest.mark.parametrize(("method", "value", "sent"), [("OPTIONS", "7", "6"), ("GET", "7", "7"), ("OPTIONS", "x", "x")])
def test_max_forwards_counts_down_for_options(method: str, value: str, sent: str) -> None:
    assert fields(method=method, headers=[("Max-Forwards", value)]) == [f"Max-Forwards: {sent}"]


def test_an_empty_body_that_was_declared_is_declared() -> None:
    assert fields(method="POST", body=b"") == ["Content-Length: 0"]
    assert fields(method="POST") == []


def test_a_small_body_is_whole_and_can_be_sent_again() -> None:
    request = RequestWriter(BARE).request(environ("/", method="PUT", body=b"x" * 16384), "/")
    assert request.replayable
    assert len(request.body) == 16384
    request = RequestWriter(BARE).request(environ("/", method="PUT", body=b"x" * 16385), "/")
    assert request.replayable
    assert request.stream is not None
    next(iter(request.stream))
    assert not request.replayable


def test_a_server_that_reads_in_bits_is_read_to_the_end() -> None:
    class Bits:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, size: int) -> bytes:
            part, self.data = self.data[: min(size, 7)], self.data[min(size, 7) :]
            return part

    request = RequestWriter(BARE).request(environ("/", CONTENT_LENGTH="100", **{"wsgi.input": Bits(b"y" * 150)}), "/")
    assert request.body == b"y" * 100


def test_pieces_grow_for_a_quick_client_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    asked: list[int] = []

    class Client:
        def read(self, size: int) -> bytes:
            asked.append(size)
            now[0] += 0.001 if len(asked) < 7 else 1.0
            return b"x" * size

    request = RequestWriter(BARE).request(environ("/", CONTENT_LENGTH=str(10**8), **{"wsgi.input": Client()}), "/")
    pieces = iter(request.stream or ())
    for _ in range(9):
        next(pieces)
    assert asked == [65536, 65536, 131072, 262144, 524288, 1048576, 1048576, 65536, 65536]


def test_a_request_can_be_made_by_hand() -> None:
    assert Request("GET", "/x").head(ORIGIN) == b"GET /x HTTP/1.1\r\nHost: app:9001\r\n\r\n"
