"""WebSockets through real servers, with a real client and a real origin."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import eventually, fetch
from tests.origins import ROOT, EchoOrigin, Front, ScriptedOrigin

pytest.importorskip("websockets", reason="websockets is not installed")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

pytestmark = pytest.mark.live

WORKERS = ("gthread", "sync", "gevent")


class WebSocketOrigin:
    """An origin that answers each message with itself, until it is told ``close CODE``; the path /no is 403."""

    def __init__(self, name: str = "ws") -> None:
        self.name = name
        self.seen: list[Any] = []
        self.server = serve(self._talk, "127.0.0.1", 0, process_request=self._admit, max_size=None, compression=None)
        self.port = self.server.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        self.seen.append(request)
        return connection.respond(403, "not for you\n") if request.path == "/no" else None

    def _talk(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                if message == "name":
                    connection.send(self.name)
                elif isinstance(message, str) and message.startswith("close "):
                    connection.close(int(message[6:]), "as you wish")
                elif message == "pieces":
                    connection.send(iter(["a", "b", "c"]))
                else:
                    connection.send(message)

    def __enter__(self) -> WebSocketOrigin:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join(5)


@pytest.fixture(scope="module")
def origin() -> Iterator[WebSocketOrigin]:
    with WebSocketOrigin() as origin:
        yield origin


def source(rules: str, **names: Any) -> str:
    lines = ["from proxymw import *", *(f"{name} = {value!r}" for name, value in names.items())]
    return "\n".join([*lines, textwrap.dedent(rules)]) + "\n"


class Werkzeug:
    """werkzeug's development server with a front."""

    def __init__(self, text: str, tmp_path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        run = f"\nfrom werkzeug.serving import run_simple\nrun_simple('127.0.0.1', {self.port}, app, threaded=True)\n"
        (tmp_path / "dev.py").write_text(text + run)
        self._log = open(tmp_path / "log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(tmp_path / "dev.py")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=self._log,
            stderr=self._log,
        )

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        eventually(listens)

    def __enter__(self) -> Werkzeug:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(5)
        self._log.close()


@pytest.fixture(scope="module", params=[*WORKERS, "werkzeug"])
def port(request: pytest.FixtureRequest, origin: WebSocketOrigin, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A front under each server that can."""
    text = source("app = PrefixProxy(None, [('/ws', ORIGIN)])", ORIGIN=origin.url)
    if request.param == "werkzeug":
        with Werkzeug(text, tmp_path_factory.mktemp("werkzeug")) as server:
            yield server.port
        return
    if request.param == "gevent":
        pytest.importorskip("gevent", reason="gevent is not installed")
    with Front(text, worker_class=request.param) as front:
        yield front.port
        assert "Traceback" not in front.log


def talk(port: int, target: str = "/ws", **options: Any) -> Any:
    return connect(f"ws://127.0.0.1:{port}{target}", max_size=None, compression=None, **options)


def test_text_binary_fragments_ping_and_close_codes(port: int) -> None:
    with talk(port) as ws:
        ws.send("grüße")
        assert ws.recv(timeout=5) == "grüße"
        ws.send(bytes(range(256)))
        assert ws.recv(timeout=5) == bytes(range(256))
        ws.send(iter(["in ", "three ", "parts"]))
        assert ws.recv(timeout=5) == "in three parts"
        ws.send("pieces")
        assert [piece for piece in ws.recv_streaming() if piece] == ["a", "b", "c"]
        assert ws.ping().wait(5)
        ws.send("close 4321")
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=5)
    assert closed.value.rcvd == Close(4321, "as you wish")


def test_ten_megabytes_there_and_back(port: int) -> None:
    message = os.urandom(10 * 1024 * 1024)
    with talk(port) as ws:
        ws.send(message)
        assert ws.recv(timeout=30) == message


def test_the_origin_sees_the_handshake_and_the_client_its_answer(port: int, origin: WebSocketOrigin) -> None:
    with talk(port, "/ws/chat?room=1", subprotocols=None, origin="http://front.example") as ws:
        ws.send("name")
        assert ws.recv(timeout=5) == "ws"
        assert ws.response.headers["Upgrade"] == "websocket"
    seen = origin.seen[-1]
    assert seen.path == "/chat?room=1"
    assert seen.headers["Connection"] == "Upgrade"
    assert seen.headers["Origin"] == "http://front.example"
    assert seen.headers["X-Forwarded-For"] == "127.0.0.1"


def test_a_refused_upgrade_is_an_ordinary_answer(port: int) -> None:
    with pytest.raises(InvalidStatus) as refused, talk(port, "/ws/no"):
        pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"not for you\n"


def test_after_a_tunnel_the_server_goes_on(port: int) -> None:
    for _ in range(3):
        with talk(port) as ws:
            ws.send("x")
            assert ws.recv(timeout=5) == "x"
    assert fetch(port, "/elsewhere").status == 404


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def until_closed(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            received += part
    return received


def upto(sock: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        part = sock.recv(1)
        assert part, received
        received += part
    return received


@pytest.mark.parametrize("worker", WORKERS)
def test_bytes_and_ends_cross_as_they_are(worker: str, front: Callable[..., Front]) -> None:
    """Half-close: the origin goes on sending after the client has ended; nothing follows the tunnel's bytes."""

    def backwards(sock: socket.socket) -> None:
        sock.sendall(until_closed(sock)[::-1])

    with ScriptedOrigin(["read the head", SWITCH + b"hello", backwards]) as scripted:
        server = front(source("app = PrefixProxy(None, [('/ws', ORIGIN)])", ORIGIN=scripted.url), worker_class=worker)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(HANDSHAKE)
            head = upto(sock, b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
            assert upto(sock, b"hello") == b"hello"
            sock.sendall(b"abc")
            sock.shutdown(socket.SHUT_WR)
            assert until_closed(sock) == b"cba"
        assert "Traceback" not in server.log


@pytest.mark.parametrize("worker", WORKERS)
def test_what_was_sent_too_early_reaches_the_origin_only_behind_its_101(
    worker: str, front: Callable[..., Front]
) -> None:
    smuggled = b"GET /ws/secret HTTP/1.1\r\nHost: front\r\n\r\n"
    before: list[bytes] = []

    def look(sock: socket.socket) -> None:
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            before.append(sock.recv(100))
        sock.settimeout(10)

    with ScriptedOrigin(["read the head", look, SWITCH, "read to the client's end"]) as scripted:
        server = front(source("app = PrefixProxy(None, [('/ws', ORIGIN)])", ORIGIN=scripted.url), worker_class=worker)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(HANDSHAKE + smuggled)
            assert upto(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
            sock.shutdown(socket.SHUT_WR)
            assert until_closed(sock) == b""
        assert before == []
        eventually(lambda: scripted.received[0].endswith(smuggled))


@pytest.mark.parametrize("worker", WORKERS)
def test_what_was_sent_too_early_is_no_request_when_the_upgrade_is_refused(
    worker: str, front: Callable[..., Front], echo: Callable[..., EchoOrigin]
) -> None:
    origin = echo("plain")
    server = front(source("app = PrefixProxy(None, [('/ws', ORIGIN)])", ORIGIN=origin.url), worker_class=worker)
    answer = server.raw(HANDSHAKE + b"GET /ws/secret HTTP/1.1\r\nHost: front\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 200")
    assert [request.target for request in origin.requests] == ["/"]


@pytest.mark.parametrize(
    ("script", "options", "status"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "True", b"502"),
        (b"nonsense\r\n\r\n", "True", b"502"),
        (b"", "True", b"502"),
        (b"never asked", "Tunnels(most=0)", b"503"),
    ],
)
def test_what_was_sent_too_early_is_no_request_when_the_upgrade_fails(
    script: bytes, options: str, status: bytes, front: Callable[..., Front]
) -> None:
    with ScriptedOrigin(["read the head", script]) as scripted:
        rules = f"app = PrefixProxy(None, [ProxyRule('/ws', ORIGIN, websocket={options})])"
        server = front(source(rules, ORIGIN=scripted.url))
        answer = server.raw(HANDSHAKE + b"GET /ws/secret HTTP/1.1\r\nHost: front\r\n\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert not any(b"secret" in received for received in scripted.received)


def test_through_a_pool_with_sticky_and_through_a_rewrite_rule(front: Callable[..., Front]) -> None:
    rules = """
    pool = BalancerPool([Member(URLS[0], route="one"), Member(URLS[1], route="two")], name="ws", sticky=True)
    app = PrefixProxy(RewriteProxy(None, [(r"^/rw/(.*)$", URLS[1] + "/$1")]), [("/pool", pool)])
    """
    with WebSocketOrigin("one") as one, WebSocketOrigin("two") as two:
        server = front(source(rules, URLS=[one.url, two.url]))
        names = set()
        for _ in range(2):
            with talk(server.port, "/pool") as ws:
                ws.send("name")
                name = ws.recv(timeout=5)
                cookie = ws.response.headers["Set-Cookie"].split(";")[0]
            names.add(name)
            for _ in range(3):
                with talk(server.port, "/pool", additional_headers={"Cookie": cookie}) as ws:
                    ws.send("name")
                    assert ws.recv(timeout=5) == name
        assert names == {"one", "two"}
        with talk(server.port, "/rw/x") as ws:
            ws.send("name")
            assert ws.recv(timeout=5) == "two"
        assert two.seen[-1].path == "/x"


def test_a_tunnel_is_in_flight_until_both_ends_have_closed(
    front: Callable[..., Front], origin: WebSocketOrigin
) -> None:
    rules = """
    pool = BalancerPool([URL], name="ws")
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/busy":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(pool.snapshot().members[0].in_flight).encode()]
        return proxy(environ, start_response)
    proxy = PrefixProxy(None, [("/", pool)])
    """
    server = front(source(rules, URL=origin.url))
    with talk(server.port, "/") as ws:
        ws.send("x")
        assert ws.recv(timeout=5) == "x"
        assert server.get("/busy").text == "1"
    eventually(lambda: server.get("/busy").text == "0")


def test_tunnels_past_the_cap_are_503_and_the_rest_of_the_server_answers(
    front: Callable[..., Front], origin: WebSocketOrigin
) -> None:
    server = front(source("app = PrefixProxy(None, [('/ws', ORIGIN)])", ORIGIN=origin.url), threads=6)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(talk(server.port))
        with pytest.raises(InvalidStatus) as refused:
            talk(server.port)
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "1"
        assert server.get("/elsewhere").status == 404

    def free() -> bool:
        try:
            with talk(server.port):
                return True
        except InvalidStatus:
            return False

    eventually(free)


@pytest.mark.parametrize("worker", WORKERS)
def test_a_stopping_worker_closes_its_tunnels_after_the_grace(
    worker: str, front: Callable[..., Front], origin: WebSocketOrigin
) -> None:
    rules = "app = PrefixProxy(None, [('/ws', ORIGIN)], websocket=Tunnels(grace=1))"
    server = front(source(rules, ORIGIN=origin.url), worker_class=worker)
    with talk(server.port) as ws:
        ws.send("x")
        assert ws.recv(timeout=5) == "x"
        began = time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        time.sleep(0.3)
        ws.send("still here")
        assert ws.recv(timeout=5) == "still here"
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=10)
        assert 0.9 <= time.monotonic() - began < 2.9
    assert server.process.wait(5) == 0


def test_a_sync_worker_lives_on_past_its_timeout(front: Callable[..., Front], origin: WebSocketOrigin) -> None:
    server = front(
        source("app = PrefixProxy(None, [('/ws', ORIGIN)])", ORIGIN=origin.url),
        worker_class="sync",
        args=["--timeout", "1"],
    )
    with talk(server.port) as ws:
        time.sleep(2.8)
        ws.send("x")
        assert ws.recv(timeout=5) == "x"


def test_switched_off_it_is_an_ordinary_request(front: Callable[..., Front], echo: Callable[..., EchoOrigin]) -> None:
    origin = echo("plain")
    server = front(source("app = PrefixProxy(None, [('/ws', ORIGIN)], websocket=False)", ORIGIN=origin.url))
    with pytest.raises(InvalidStatus) as refused:
        talk(server.port)
    assert refused.value.response.status_code == 200
    assert origin.requests[0].header("Upgrade") is None
    assert origin.requests[0].header("Connection") is None
