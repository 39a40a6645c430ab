"""The table of threats names tests that exist, and what no other file asks: that nothing but the path steers."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxymw import IPAllowlist, PrefixProxy, ProxyRule
from proxymw.exchange.transport import Transport
from tests.client import call
from tests.origins import EchoOrigin, ScriptedOrigin

TESTS = Path(__file__).parent.parent
TABLE = TESTS.parent / "docs" / "explanation" / "threat-model.md"
BOMB = gzip.compress(bytes(1_000_000))


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def test_every_threat_is_there_and_every_test_it_names_exists() -> None:
    text = TABLE.read_text()
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.M)]
    assert numbers == list(range(1, 123))
    named = set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", text))
    assert len(named) > 100
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (TESTS / file).read_text()]
    assert missing == []
    unanswered = re.findall(r"^\| (.+?) \|.*\| — \|$", text, re.M)
    assert unanswered == ["55", "120", "Client never reads", "Log sink blocks", "Huge folder, stalled disk"]


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/open/x", {"X-Original-URL": "/closed/x"}),
        ("GET", "/open/x", {"X-Rewrite-URL": "/closed/x"}),
        ("GET", "/open/x", {"X-Forwarded-Path": "/closed/x"}),
        ("GET", "/open/x", {"X-Forwarded-Prefix": "/closed"}),
        ("GET", "/open/x", {"X-Accel-Redirect": "/closed/x"}),
        ("POST", "/open/x", {"X-HTTP-Method-Override": "DELETE"}),
        ("GET", "/open/x?/closed/x", {}),
        ("GET", "/open/CLOSED/x", {}),
    ],
)
def test_nothing_but_the_path_steers(
    method: str, target: str, headers: dict[str, str], transport: Transport, echo: Callable[..., EchoOrigin]
) -> None:
    """Threats 7 and 25."""
    origin = echo()
    closed = IPAllowlist(PrefixProxy(None, [("/", origin.url + "/secret/")], transport=transport), ["192.0.2.1"])
    app = PrefixProxy(None, [("/closed/", closed), ("/open/", origin.url + "/")], transport=transport)
    assert call(app, target, method=method, headers=headers).status == 200
    seen = origin.requests[-1]
    assert (seen.method, seen.target) == (method, target.removeprefix("/open"))
    assert call(app, "/closed/x", method=method, headers=headers).status == 403
    assert call(app, "/CLOSED/x").status == 404
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("302 Found\r\nLocation: http://elsewhere.invalid/", b""),
        ("307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/", b"moved"),
        ("200 OK\r\nContent-Encoding: gzip", BOMB),
        ("200 OK\r\nContent-Encoding: " + ", ".join(["gzip"] * 50), b"is not"),
        ("200 OK\r\nVary: Cookie", b"no Cache-Control"),
        ("401 Unauthorized\r\nWWW-Authenticate: Basic", b"who"),
        ("425 Too Early\r\nRetry-After: 0", b"again"),
    ],
)
def test_what_an_origin_says_is_passed_on_and_not_obeyed(
    head: str, body: bytes, transport: Transport, scripted: Callable[..., ScriptedOrigin]
) -> None:
    """Threats 85, 86, 94, 97: one request, the same bytes, and no field that was not said, except Date."""
    origin = scripted(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    reply = call(PrefixProxy(None, [ProxyRule("/", origin.url + "/")], transport=transport), "/x")
    status, _, fields = head.partition("\r\n")
    assert reply.status == int(status[:3])
    assert reply.body == body
    said = [tuple(field.split(": ", 1)) for field in fields.split("\r\n")]
    got: list[Any] = [pair for pair in reply.headers if pair[0] not in ("Date", "Content-Length")]
    assert got == said
    assert len(origin.received) == 1
