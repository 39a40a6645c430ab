"""Answers of an origin, damaged by chance: refused, cut or delivered, and never anything else.

Short in the suite; ``PROXYMW_LONG=fuzz`` makes it a matter of minutes. A failure prints the answer and how it was
delivered: put it into ``FOUND``, where it stays.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from proxymw.exchange.chunked import LINE_MOST
from proxymw.exchange.forwarder import Forwarder
from proxymw.exchange.transport import Transport
from proxymw.rules.retrying import RetryPolicy
from tests.exchange.asking import ask

pytestmark = pytest.mark.fuzz

ROUNDS = 200_000 if os.environ.get("PROXYMW_LONG") == "fuzz" else 2_000
URL = "http://origin.example"

GOOD = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 11:02:11 GMT\r\nContent-Type: text/html\r\nContent-Length: 11\r\n"
    b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nConnection: keep-alive\r\n\r\nhello world",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 11\r\n\r\n',
    b"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 11\r\n\r\nhello world",
    b"HTTP/1.1 302 Found\r\nLocation: http://origin.example/there\r\nContent-Length: 0\r\n\r\n",
]
#: Answers that were once treated wrongly, and the size of the pieces in which they came.
FOUND: list[tuple[bytes, int]] = []
TRICKS = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b"-", b"+", b"0x", b"\xff", b"\x7f", b";"]


class Socket:
    """What an answer looks like to a connection: so many bytes at a time, then the end."""

    def __init__(self, answer: bytes, step: int) -> None:
        self.rest, self.step = answer, step

    def recv(self, size: int) -> bytes:
        part = self.rest[: min(size, self.step)]
        self.rest = self.rest[len(part) :]
        return part

    def sendall(self, data: bytes) -> None: ...
    def settimeout(self, seconds: float | None) -> None: ...
    def close(self) -> None: ...


class Fed(Transport):
    """A transport whose every connection has the next answer in it."""

    answer, step = b"", 1

    def _connect(self, conn: Any, limits: Any) -> None:
        conn.sock = Socket(self.answer, self.step)


def damaged(chance: random.Random) -> bytes:
    answer = bytearray(chance.choice(GOOD))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(answer) + 1)
        kind = chance.randrange(6)
        if kind == 0:
            answer[at:at] = chance.choice(TRICKS)
        elif kind == 1:
            del answer[at : at + chance.choice((1, 2, 8))]
        elif kind == 2 and at < len(answer):
            answer[at] = chance.randrange(256)
        elif kind == 3:
            del answer[at:]
        elif kind == 4:
            answer += chance.choice(GOOD)
        else:
            lines = bytes(answer).split(b"\r\n")
            lines.insert(chance.randrange(len(lines)), chance.choice(lines))
            answer = bytearray(b"\r\n".join(lines))
    return bytes(answer)


def cases() -> Iterator[tuple[bytes, int]]:
    yield from FOUND
    for answer in GOOD:
        for at in range(len(answer)):
            for byte in (0, 10, 13, 32, 48, 127, 255):
                yield answer[:at] + bytes((byte,)) + answer[at + 1 :], 7
    chance = random.Random(os.environ.get("PROXYMW_SEED", "proxymw"))
    for _ in range(ROUNDS):
        yield damaged(chance), chance.choice((1, 2, 5, 17, 1000, LINE_MOST, 65536))


def test_a_damaged_answer_is_refused_cut_or_delivered() -> None:
    transport = Fed(ttl=0)
    forwarder = Forwarder(transport=transport, retry=RetryPolicy(replays=0))
    for transport.answer, transport.step in cases():
        told = f"answer {transport.answer!r} in pieces of {transport.step}"
        asked = ask(forwarder, URL)
        assert 200 <= asked.status <= 599, told
        assert asked.status != 500 or b" 500" in transport.answer, told
        for name, value in asked.headers:
            assert name.isascii(), told
            assert not set(name + value) & set("\r\n\0\x7f"), told
        length = asked.header("Content-Length")
        if asked.cut is None and length is not None and asked.status not in (304, 204):
            assert int(length) == len(asked.body), told
        if asked.header("Proxy-Status") is None and asked.status != 304:
            # Whatever was delivered was in the answer, in this order.
            at = 0
            for byte in asked.body:
                at = transport.answer.index(byte, at) + 1
    transport.close()
