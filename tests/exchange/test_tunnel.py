"""Upgrades: what is asked for, when a 101 is believed, and the relay with its ends and clocks."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxymw.errors import ConfigError, ResponseMalformed
from proxymw.exchange import tunnel as module
from proxymw.exchange.clientside import client_watch, has_ended, server_slots
from proxymw.exchange.forwarder import Forwarder, ForwardOptions
from proxymw.exchange.transport import Transport
from proxymw.exchange.tunnel import Outcome, Tunnels, relay
from proxymw.rules.origins import Origin
from proxymw.rules.upgrades import Upgrade, asked_upgrade, websocket_accept
from tests.client import environ, eventually
from tests.exchange.asking import HELLO, FakeLease, FakePool, ask
from tests.origins import READ_ALL, READ_HEAD

TLS = Path(__file__).parent / "tls"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
HANDSHAKE = {"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY}


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport(connect=2, first_byte=1, between_bytes=1, ca=str(TLS / "ca.pem"))
    yield transport
    transport.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end of a client's TCP connection, and the client's."""
    with connected() as (ours, theirs):
        yield ours, theirs


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        theirs = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
        ours = stack.enter_context(listener.accept()[0])
        yield ours, theirs


def read_all(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(OSError):
        while part := sock.recv(65536):
            received += part
    return received


def exactly(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (part := sock.recv(size - len(received))):
        received += part
    return received


# -- what is asked for ----------------------------------------------------------------------------------------------


def asked(method: str = "GET", body: bytes | None = None, *others: str, **changes: str) -> Upgrade | None:
    headers = {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return asked_upgrade(environ(method=method, headers=headers, body=body), True, others)


def test_the_example_of_the_rfc() -> None:
    assert websocket_accept(KEY) == ACCEPT
    assert asked() == Upgrade("websocket", ACCEPT)


def test_one_of_several_tokens_and_any_case() -> None:
    assert asked(Upgrade="foo/2, WebSocket") == Upgrade("websocket", ACCEPT)
    assert asked(Connection="UPGRADE") == Upgrade("websocket", ACCEPT)


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": "keep-alive"},
        {"Upgrade": "h2c"},
        {"Upgrade": "tcp"},
        {"Upgrade": "websocket2"},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": f"{KEY},{KEY}"},
        {"Transfer-Encoding": "chunked"},
    ],
)
def test_what_is_no_handshake_is_an_ordinary_request(changes: dict[str, str]) -> None:
    assert asked(**changes) is None


def test_neither_post_nor_a_body_nor_http_1_0() -> None:
    assert asked("POST") is None
    assert asked("GET", b"x") is None
    assert asked_upgrade(environ(headers=HANDSHAKE, SERVER_PROTOCOL="HTTP/1.0"), True) is None
    assert asked_upgrade(environ(headers=HANDSHAKE, SERVER_PROTOCOL="HTTP/2"), True) is None


def test_other_tokens_only_where_they_are_named() -> None:
    assert asked("POST", None, "tcp", Upgrade="TCP") == Upgrade("TCP")
    assert asked("GET", None, "spdy/3.1", Upgrade="SPDY/3.1") == Upgrade("SPDY/3.1")


@pytest.mark.parametrize(
    "bad",
    [
        {"upgrades": ("h2c",)},
        {"upgrades": ("H2C",)},
        {"upgrades": ("HTTP/2.0",)},
        {"upgrades": ("TLS/1.0",)},
        {"upgrades": ("a b",)},
        {"upgrades": "tcp"},
        {"idle": 0},
        {"idle": None},
        {"total": -1},
        {"grace": -1},
        {"most": -1},
        {"most": 1.5},
    ],
)
def test_options_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Tunnels(**bad)


def test_options_of_a_rule() -> None:
    with pytest.raises(ConfigError, match="websocket must be"):
        ForwardOptions(websocket="yes")  # type: ignore[arg-type]
    assert ForwardOptions(websocket=False).tunnels is None
    assert ForwardOptions().tunnels == Tunnels()
    assert Tunnels(websocket=False, upgrades=("TCP", "WebSocket")) == Tunnels(upgrades=("tcp",))


# -- when a 101 is believed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT, "another Upgrade"),
        ("Connection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT, "another Upgrade"),
        ("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT, "another Upgrade"),
        ("Upgrade: websocket\r\nSec-WebSocket-Accept: " + ACCEPT, "without Connection"),
        ("Upgrade: websocket\r\nConnection: Upgrade", "Sec-WebSocket-Accept"),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x", "Sec-WebSocket-Accept"),
        (f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\nContent-Length: 3", "body"),
        (f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\nTransfer-Encoding: chunked",
         "body"),
    ],
)  # fmt: skip
def test_a_101_that_does_not_answer_the_question_is_502(
    fields: str, why: str, transport: Transport, scripted: Any, pair: Any
) -> None:
    client, browser = pair
    origin = scripted([READ_HEAD, f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\nsecret".encode()])
    lease = FakeLease(Origin.parse(origin.url))
    answer = ask(Forwarder(transport=transport), FakePool(lease), headers=HANDSHAKE, **{"gunicorn.socket": client})
    assert answer.status == 502
    assert isinstance(lease.end["error"], ResponseMalformed)
    assert why in str(lease.end["error"])
    client.close()
    assert read_all(browser) == b""


def test_a_101_to_a_request_that_asked_for_none_is_502(transport: Transport, scripted: Any, pair: Any) -> None:
    origin = scripted(SWITCH)
    assert ask(Forwarder(transport=transport), origin.url, **{"gunicorn.socket": pair[0]}).status == 502


@pytest.mark.parametrize("headers", [HANDSHAKE, {**HANDSHAKE, "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}])
def test_without_a_switch_no_byte_of_the_upgrade_passes(
    headers: dict[str, str], transport: Transport, echo: Any, pair: Any
) -> None:
    """h2c is never asked for; a WebSocket where the rule has it off neither."""
    origin = echo()
    options = ForwardOptions(websocket=headers["Upgrade"] == "h2c")
    answer = ask(
        Forwarder(transport=transport), origin.url, options=options, headers=headers, **{"gunicorn.socket": pair[0]}
    )
    assert answer.status == 200
    for name in ("Upgrade", "Connection", "HTTP2-Settings"):
        assert origin.requests[0].header(name) is None


# -- a whole tunnel -------------------------------------------------------------------------------------------------


class Asking:
    """A tunnel through a forwarder, in a thread, with a browser at its other end."""

    def __init__(
        self, forwarder: Forwarder, url: str, client: socket.socket, options: ForwardOptions, **how: Any
    ) -> None:
        self.lease = FakeLease(Origin.parse(url), set_headers=[("Set-Cookie", "route=a")])
        self.answer: Any = None

        def run() -> None:
            how.setdefault("headers", HANDSHAKE)
            pool = FakePool(self.lease)
            self.answer = ask(forwarder, pool, options=options, **{"gunicorn.socket": client, **how})

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self) -> Any:
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.answer


def open_tunnel(
    transport: Transport, url: str, client: socket.socket, options: ForwardOptions | None = None, **how: Any
) -> Asking:
    return Asking(Forwarder(transport=transport), url, client, options or ForwardOptions(), **how)


def head_of(browser: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = browser.recv(1)
        assert part, head
        head += part
    return head


def echoing(sock: socket.socket) -> None:
    while part := sock.recv(65536):
        sock.sendall(part)


def test_the_lease_lasts_as_long_as_the_tunnel_and_counts_its_bytes(
    transport: Transport, scripted: Any, pair: Any
) -> None:
    client, browser = pair
    origin = scripted([READ_HEAD, SWITCH, echoing])
    asking = open_tunnel(transport, origin.url, client)
    head = head_of(browser)
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    assert f"\r\nSec-WebSocket-Accept: {ACCEPT}\r\n".encode() in head
    assert b"\r\nSet-Cookie: route=a\r\n" in head
    browser.sendall(b"12345")
    assert browser.recv(100) == b"12345"
    assert asking.lease.finished == []
    browser.shutdown(socket.SHUT_WR)
    assert read_all(browser) == b""
    answer = asking.end()
    assert (answer.status, answer.pieces) == (101, [])
    sent = len(bytes(origin.received[0]))
    assert asking.lease.end["error"] is None
    assert asking.lease.end["status"] == 101
    assert asking.lease.end["sent"] == sent + 5
    assert asking.lease.end["received"] == len(b"HTTP/1.1 101 Switching Protocols") + 5
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in origin.received[0]


def test_over_tls_to_the_origin(transport: Transport, scripted: Any, pair: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    origin = scripted([READ_HEAD, SWITCH + b"first", echoing], tls=context)
    client, browser = pair
    asking = open_tunnel(transport, f"https://localhost:{origin.port}", client)
    head_of(browser)
    assert exactly(browser, 5) == b"first"
    data = bytes(range(256)) * 4096
    threading.Thread(target=browser.sendall, args=(data,), daemon=True).start()
    assert exactly(browser, len(data)) == data
    browser.close()
    assert asking.end().status == 101


def test_another_token_where_the_rule_names_it(transport: Transport, scripted: Any, pair: Any) -> None:
    client, browser = pair
    switch = b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nX-Y: z\r\n\r\n"
    origin = scripted(["read the head and the body it declares", switch, echoing])
    options = ForwardOptions(websocket=Tunnels(upgrades=("tcp",)))
    how = {"headers": {"Connection": "Upgrade", "Upgrade": "tcp"}, "method": "POST", "body": b"{}"}
    asking = open_tunnel(transport, origin.url, client, options, **how)
    assert b"\r\nX-Y: z\r\n" in head_of(browser)
    browser.sendall(b"raw")
    assert browser.recv(10) == b"raw"
    browser.close()
    assert asking.end().status == 101
    assert origin.received[0].endswith(b"\r\n\r\n{}")


def test_a_server_without_a_socket_says_which_have_one(transport: Transport, echo: Any) -> None:
    origin = echo()
    answer = ask(Forwarder(transport=transport), origin.url, headers=HANDSHAKE)
    assert answer.status == 501
    for name in (b"gthread", b"gevent", b"sync", b"werkzeug"):
        assert name in answer.body
    assert origin.requests == []


def test_tunnels_past_the_cap_are_503(transport: Transport, scripted: Any, pair: Any) -> None:
    client, browser = pair
    origin = scripted([READ_HEAD, SWITCH, echoing])
    options = ForwardOptions(websocket=Tunnels(most=1))
    first = open_tunnel(transport, origin.url, client, options)
    head_of(browser)
    with connected() as (other, _):
        second = ask(
            Forwarder(transport=transport), origin.url, options=options, headers=HANDSHAKE, **{"gunicorn.socket": other}
        )
    assert (second.status, second.header("Retry-After")) == (503, "1")
    assert origin.connections == 1
    browser.close()
    first.end()
    assert module._open.count() == 0


def test_half_of_what_a_gunicorn_worker_serves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Config:
        threads, worker_connections = 8, 1000

    class Threads:
        cfg = Config

    class Greenlets(Threads):
        def timeout_ctx(self) -> None: ...

    assert server_slots(Threads()) == 8
    assert server_slots(Greenlets()) == 1000
    for worker, limit in ((Threads(), 4), (Greenlets(), 500), (None, module.MOST_ELSEWHERE)):
        monkeypatch.setattr(module, "gunicorn_worker", lambda worker=worker: worker)
        assert Tunnels().limit() == limit
    Config.threads = 1
    monkeypatch.setattr(module, "gunicorn_worker", Threads)
    assert Tunnels().limit() == 1
    assert Tunnels(most=0).limit() == 0


def test_a_tunnel_that_nobody_iterates_ends_all_the_same(transport: Transport, scripted: Any, pair: Any) -> None:
    client, browser = pair
    origin = scripted([READ_HEAD, SWITCH, echoing])
    lease = FakeLease(Origin.parse(origin.url))
    made = environ(headers=HANDSHAKE, **{"gunicorn.socket": client})
    body = Forwarder(transport=transport)(made, lambda *_: None, FakePool(lease), "/", ForwardOptions())  # type: ignore[arg-type, return-value]
    body.close()  # type: ignore[attr-defined]
    assert lease.end["status"] == 101
    assert read_all(browser) == b""
    assert module._open.count() == 0
    assert list(body) == []


# -- the relay ------------------------------------------------------------------------------------------------------


class Relaying:
    """``relay`` in a thread between two connections; ``left`` and ``right`` are the far ends."""

    def __init__(self, **how: Any) -> None:
        self._stack = contextlib.ExitStack()
        client, self.left = self._stack.enter_context(connected())
        origin, self.right = self._stack.enter_context(connected())
        self.outcome: Outcome | None = None
        how.setdefault("idle", 5)

        def run() -> None:
            self.outcome = relay(client, origin, **how)
            client.close()
            origin.close()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self) -> Outcome:
        self.thread.join(10)
        assert self.outcome is not None
        return self.outcome

    def close(self) -> None:
        self.left.close()
        self.right.close()
        self.thread.join(10)
        self._stack.close()


@pytest.fixture
def relaying() -> Iterator[Callable[..., Relaying]]:
    with contextlib.ExitStack() as stack:

        def make(**how: Any) -> Relaying:
            made = Relaying(**how)
            stack.callback(made.close)
            return made

        yield make


def test_each_side_ends_by_itself(relaying: Any) -> None:
    both = relaying(up=b"early ", down=b"first ")
    both.left.sendall(b"request")
    both.left.shutdown(socket.SHUT_WR)
    assert read_all(both.right) == b"early request"
    both.right.sendall(b"answer")
    both.right.shutdown(socket.SHUT_WR)
    assert read_all(both.left) == b"first answer"
    assert both.end() == Outcome("closed", 13, 12)


def test_a_side_that_does_not_read_holds_the_other_back_and_no_more_than_a_piece(relaying: Any) -> None:
    both = relaying()
    both.left.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 200_000_000:
            sent += both.left.send(b"x" * 65536)
    assert sent < 50_000_000
    both.left.settimeout(10)
    both.right.sendall(b"the other way goes on")
    assert both.left.recv(100) == b"the other way goes on"
    received = 0
    both.left.shutdown(socket.SHUT_WR)
    while part := both.right.recv(1 << 20):
        received += len(part)
    assert received == sent


def test_a_reset_ends_both(relaying: Any) -> None:
    both = relaying()
    both.left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    both.left.close()
    assert both.right.recv(10) == b""
    assert both.end().why == "reset"


def test_what_was_sent_before_a_close_still_arrives(relaying: Any) -> None:
    """The origin says its last and closes while the client keeps on sending."""
    both = relaying()
    both.right.sendall(b"bye" * 100_000)
    both.right.shutdown(socket.SHUT_WR)
    both.left.sendall(b"x")
    assert exactly(both.left, 300_000) == b"bye" * 100_000
    assert both.left.recv(1) == b""


def test_idle_counts_from_the_last_byte_either_way(relaying: Any) -> None:
    both = relaying(idle=0.4)
    began = time.monotonic()
    for _ in range(4):
        time.sleep(0.2)
        both.right.sendall(b"x")
    assert both.end().why == "idle"
    assert 1.1 < time.monotonic() - began < 3


def test_total_counts_however_busy(relaying: Any) -> None:
    both = relaying(total=0.5)
    began = time.monotonic()
    while both.outcome is None:
        with contextlib.suppress(OSError):
            both.left.sendall(b"x")
        time.sleep(0.02)
    assert both.end().why == "total"
    assert 0.4 < time.monotonic() - began < 2


def test_a_half_closed_tunnel_does_not_linger(relaying: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALF_CLOSED", 0.2)
    both = relaying(idle=60)
    both.left.shutdown(socket.SHUT_WR)
    assert both.end().why == "idle"


def test_a_server_that_stops_ends_it(relaying: Any) -> None:
    stop = threading.Event()
    both = relaying(stopping=stop.is_set)
    both.left.sendall(b"x")
    assert both.right.recv(1) == b"x"
    stop.set()
    assert both.end().why == "stopped"


# -- whether a client has gone --------------------------------------------------------------------------------------


def test_a_client_is_seen_to_go(pair: Any) -> None:
    ours, theirs = pair
    gone = client_watch({"gunicorn.socket": ours})
    assert gone is not None
    assert not gone()
    theirs.sendall(b"another request")
    assert not gone()
    theirs.close()
    eventually(gone)


def test_over_a_unix_socket_too() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        assert not has_ended(ours)
        theirs.sendall(b"x")
        assert not has_ended(ours)
        assert ours.recv(1) == b"x"
        assert ours.gettimeout() is None
        theirs.close()
        assert has_ended(ours)


def test_servers_that_tell_in_their_own_way() -> None:
    assert client_watch({}) is None
    assert client_watch({"waitress.client_disconnected": lambda: True})()  # type: ignore[misc]


@pytest.mark.parametrize("where", ["before the head", "in the body"])
def test_an_exchange_nobody_waits_for_ends_within_a_second(
    where: str, transport: Transport, scripted: Any, pair: Any
) -> None:
    client, browser = pair
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"
    origin = scripted([READ_HEAD, *([begun] if where == "in the body" else []), READ_ALL])
    transport.limits = Transport(first_byte=20, between_bytes=20).limits
    lease = FakeLease(Origin.parse(origin.url))
    began = time.monotonic()
    threading.Timer(0.2, browser.close).start()
    ask(Forwarder(transport=transport), FakePool(lease), **{"gunicorn.socket": client})
    assert time.monotonic() - began < 1.3
    assert type(lease.end["error"]).__name__ == "ClientAborted"


def test_a_client_that_stays_is_waited_for(transport: Transport, scripted: Any, pair: Any) -> None:
    origin = scripted([READ_HEAD, 0.9, HELLO])
    assert ask(Forwarder(transport=transport), origin.url, **{"gunicorn.socket": pair[0]}).body == b"hello"


def test_a_silent_origin_is_a_timeout_all_the_same(transport: Transport, scripted: Any, pair: Any) -> None:
    origin = scripted([READ_HEAD, READ_ALL])
    began = time.monotonic()
    assert ask(Forwarder(transport=transport), origin.url, **{"gunicorn.socket": pair[0]}).status == 504
    assert 0.9 < time.monotonic() - began < 1.5
