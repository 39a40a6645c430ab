"""Connections: made, shared, secured, limited, renewed, and never carried over a fork."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxymw.errors import (
    ConfigError,
    ConnectRefused,
    ConnectTimeout,
    NameUnresolved,
    OutOfFiles,
    PoolExhausted,
    TLSRefused,
)
from proxymw.exchange import connection
from proxymw.exchange.forwarder import Forwarder
from proxymw.exchange.limits import Limits
from proxymw.exchange.request import Request
from proxymw.exchange.transport import Transport, default_transport
from proxymw.rules.origins import Origin
from tests.client import eventually
from tests.exchange.asking import HELLO, ask
from tests.origins import READ_ALL, READ_HEAD, READ_REQUEST, Answer, dead_port

TLS = Path(__file__).parent / "tls"
GET = Request("GET", "/")


@pytest.fixture
def make() -> Iterator[Callable[..., Transport]]:
    made: list[Transport] = []

    def transport(**options: Any) -> Transport:
        made.append(Transport(**{"connect": 10, "first_byte": 10, "between_bytes": 10, **options}))
        return made[-1]

    yield transport
    for one in made:
        one.close()


def get(transport: Transport, url: str, limits: Limits | None = None) -> bytes:
    response = transport.send(Origin.parse(url), GET, limits)
    try:
        return b"".join(response)
    finally:
        response.close()


# -- where to -------------------------------------------------------------------------------------------------------


def test_over_a_unix_socket(make: Any, echo: Any, tmp_path: Path) -> None:
    origin = echo(unix=str(tmp_path / "app.sock"))
    transport = make()
    for _ in range(2):
        assert b'"origin": "origin"' in get(transport, origin.url)
    assert origin.connections == 1
    assert origin.requests[0].header("Host") == "localhost"
    with pytest.raises(ConnectRefused):
        get(transport, f"unix:{tmp_path}/none.sock|http://localhost/")


def test_over_ipv6(make: Any, echo: Any) -> None:
    try:
        origin = echo(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    get(make(), origin.url)
    assert origin.requests[0].header("Host") == f"[::1]:{origin.port}"


def test_two_forwarders_share_a_connection(make: Any, echo: Any) -> None:
    origin, transport = echo(), make()
    for forwarder in (Forwarder(transport=transport), Forwarder(transport=transport)):
        assert ask(forwarder, origin.url).status == 200
    assert origin.connections == 1


def test_one_transport_by_default() -> None:
    assert default_transport() is default_transport()
    assert Forwarder().transport is default_transport()


# -- what can go wrong ----------------------------------------------------------------------------------------------


def test_refused_is_not_a_timeout(make: Any) -> None:
    """urllib3's refusal is a timeout by class."""
    with pytest.raises(ConnectRefused):
        get(make(), f"http://127.0.0.1:{dead_port()}")


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no name"), NameUnresolved),
        (TimeoutError("slow"), ConnectTimeout),
        (OSError(errno.ETIMEDOUT, "slow"), ConnectTimeout),
        (OSError(errno.EHOSTUNREACH, "no route"), ConnectRefused),
        (OSError(errno.ENETUNREACH, "no net"), ConnectRefused),
        (OSError(errno.EMFILE, "no files"), OutOfFiles),
        (OSError(errno.ENFILE, "no files at all"), OutOfFiles),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), ConnectRefused),
    ],
)
def test_every_way_of_not_connecting(
    make: Any, monkeypatch: pytest.MonkeyPatch, raised: OSError, error: type[Exception]
) -> None:
    def create(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr("urllib3.util.connection.create_connection", create)
    with pytest.raises(error):
        get(make(), "http://origin.example")


def test_out_of_files_passes_when_there_are_some_again(make: Any, echo: Any) -> None:
    import resource

    origin, transport = echo(), make()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        asked = ask(Forwarder(transport=transport), origin.url)
        assert (asked.status, asked.header("Retry-After")) == (503, "1")
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ask(Forwarder(transport=transport), origin.url).status == 200


def test_a_handshake_that_hangs_is_a_timeout(make: Any, scripted: Any) -> None:
    origin = scripted([READ_ALL])
    began = time.monotonic()
    with pytest.raises(ConnectTimeout):
        get(make(connect=0.2, ca=str(TLS / "ca.pem")), f"https://localhost:{origin.port}")
    assert time.monotonic() - began < 2


# -- TLS ------------------------------------------------------------------------------------------------------------


def server(*, client_ca: bool = False, maximum: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(TLS / "ca.pem")
    if maximum is not None:
        context.maximum_version = maximum
    return context


def test_tls_is_verified_and_kept(make: Any, echo: Any) -> None:
    origin = echo(tls=server())
    transport = make(ca=str(TLS / "ca.pem"))
    for _ in range(3):
        assert b'"count"' in get(transport, f"https://localhost:{origin.port}")
    assert origin.connections == 1


def test_a_stranger_is_refused(make: Any, echo: Any) -> None:
    origin = echo(tls=server())
    asked = ask(Forwarder(transport=make()), f"https://localhost:{origin.port}")
    assert (asked.status, asked.header("Proxy-Status")) == (502, "proxymw; error=tls_certificate_error")
    assert origin.requests == []


def test_another_name_is_refused_unless_it_is_the_one_expected(make: Any, echo: Any) -> None:
    origin = echo(tls=server())
    url, ca = f"https://127.0.0.1:{origin.port}", str(TLS / "ca.pem")
    with pytest.raises(TLSRefused):
        get(make(ca=ca), url)
    assert get(make(ca=ca, server_hostname="origin.example"), url)


def test_the_configured_name_is_sent_as_sni(make: Any, echo: Any) -> None:
    context, seen = server(), []
    context.sni_callback = lambda sock, name, ctx: seen.append(name)  # type: ignore[assignment, return-value, misc]
    origin = echo(tls=context)
    get(make(ca=str(TLS / "ca.pem"), server_hostname="origin.example"), f"https://127.0.0.1:{origin.port}")
    assert seen == ["origin.example"]


def test_not_verifying_is_possible_and_said(make: Any, echo: Any, caplog: pytest.LogCaptureFixture) -> None:
    origin = echo(tls=server())
    transport = make(verify=False)
    assert "event=tls_unverified" in caplog.text
    assert get(transport, f"https://127.0.0.1:{origin.port}")


def test_a_certificate_of_our_own(make: Any, echo: Any) -> None:
    origin = echo(tls=server(client_ca=True))
    url, ca = f"https://localhost:{origin.port}", str(TLS / "ca.pem")
    assert get(make(ca=ca, certificate=str(TLS / "client.pem")), url)
    assert ask(Forwarder(transport=make(ca=ca)), url).status == 502


def test_an_old_tls_is_refused(make: Any, echo: Any) -> None:
    origin = echo(tls=server(maximum=ssl.TLSVersion.TLSv1_2))
    url, ca = f"https://localhost:{origin.port}", str(TLS / "ca.pem")
    assert get(make(ca=ca), url)
    with pytest.raises(TLSRefused):
        get(make(ca=ca, minimum_tls="1.3"), url)


def test_plain_text_where_tls_was_expected(make: Any, echo: Any) -> None:
    with pytest.raises(TLSRefused):
        get(make(), f"https://localhost:{echo().port}")


def test_large_bodies_both_ways_over_tls(make: Any, echo: Any) -> None:
    origin = echo(tls=server(), answer=lambda request: Answer(body=b"x" * request.length))
    forwarder = Forwarder(transport=make(ca=str(TLS / "ca.pem")))
    for _ in range(2):
        asked = ask(forwarder, f"https://localhost:{origin.port}", method="POST", body=b"y" * 3_000_000)
        assert len(asked.body) == 3_000_000
    assert origin.connections == 1


def test_a_tls_body_without_a_proper_end_was_cut(make: Any, scripted: Any) -> None:
    """Whoever can drop packets could shorten a body that ends with its connection."""

    def hang_up(sock: Any) -> None:
        os.close(sock.detach())

    origin = scripted([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", 0.05, hang_up], tls=server())
    asked = ask(Forwarder(transport=make(ca=str(TLS / "ca.pem"))), f"https://localhost:{origin.port}")
    assert asked.cut is not None


# -- reuse ----------------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_left_before_its_origin_closes_it(
    make: Any, echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, transport, now = echo(), make(ttl=4), [1000.0]
    monkeypatch.setattr(connection.time, "monotonic", lambda: now[0])
    get(transport, origin.url)
    now[0] += 3.9
    get(transport, origin.url)
    assert origin.connections == 1
    now[0] += 4.1
    get(transport, origin.url)
    assert origin.connections == 2


def test_an_old_connection_is_left_so_that_names_are_looked_up_again(
    make: Any, echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = echo("first"), echo("second")
    now, transport = [1000.0], make(max_age=300)
    monkeypatch.setattr(connection.time, "monotonic", lambda: now[0])
    address = [first.port]
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *more: Any, **options: Any) -> Any:
        return real("127.0.0.1", address[0], *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for _ in range(100):
        assert b"first" in get(transport, "http://name.example")
        now[0] += 3
    address[0] = second.port
    get(transport, "http://name.example")
    now[0] += 3
    assert b"second" in get(transport, "http://name.example")
    assert first.connections == 1


def test_more_connections_than_are_kept(make: Any, echo: Any) -> None:
    go = threading.Event()
    origin, transport = echo(delay=go), make(size=2, first_byte=20)
    threads = [threading.Thread(target=get, args=(transport, origin.url)) for _ in range(6)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(origin.requests) == 6)
    go.set()
    for thread in threads:
        thread.join()
    eventually(lambda: origin.open_connections == 2)


def test_a_maximum_is_kept_and_waiting_for_it_ends(make: Any, echo: Any) -> None:
    go = threading.Event()
    origin, transport = echo(delay=go), make(first_byte=20)
    limits = Limits(max=1, acquire=0.1)
    thread = threading.Thread(target=get, args=(transport, origin.url, limits))
    thread.start()
    eventually(lambda: len(origin.requests) == 1)
    with pytest.raises(PoolExhausted):
        get(transport, origin.url, limits)
    go.set()
    thread.join()
    for _ in range(3):
        get(transport, origin.url, limits)
    assert origin.connections == 1


@pytest.mark.parametrize(
    "script",
    [[READ_HEAD], [READ_HEAD, b"nonsense"], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"]],
    ids=["closed", "garbage", "cut"],
)
def test_a_place_in_a_limited_pool_comes_back_after_every_failure(make: Any, scripted: Any, script: list[Any]) -> None:
    origin, transport = scripted(script, script, script, [READ_REQUEST, HELLO]), make()
    for _ in range(3):
        with pytest.raises(Exception):  # noqa: B017
            get(transport, origin.url, Limits(max=1, acquire=0.1))
    assert get(transport, origin.url, Limits(max=1, acquire=0.1)) == b"hello"
    dead = f"http://127.0.0.1:{dead_port()}"
    for _ in range(3):
        with pytest.raises(ConnectRefused):
            get(transport, dead, Limits(max=1, acquire=0.1))


def test_closing_closes_what_is_unused(make: Any, echo: Any) -> None:
    origin, transport = echo(), make()
    get(transport, origin.url)
    transport.close()
    eventually(lambda: origin.open_connections == 0)
    get(transport, origin.url)
    assert origin.connections == 2


def test_a_child_process_has_connections_of_its_own(make: Any, echo: Any) -> None:
    """gunicorn --preload: two workers on one socket would read each other's answers."""
    origin, transport = echo(), make()
    get(transport, origin.url)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, get(transport, origin.url))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert b'"connection": 2' in pipe.read()
    assert b'"connection": 1' in get(transport, origin.url)


def test_answers_are_never_mixed_up_under_load(make: Any, echo: Any) -> None:
    origin, transport = echo(answer=lambda request: Answer(body=request.target.encode())), make()
    wrong: list[bytes] = []

    def work(worker: int) -> None:
        for n in range(100):
            target = f"/{worker}/{n}"
            response = transport.send(Origin.parse(origin.url), Request("GET", target))
            if (body := b"".join(response)) != target.encode():
                wrong.append(body)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert origin.connections <= 8


# -- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        *[{"connect": 0}, {"first_byte": -1}, {"total": "5"}, {"size": 0}, {"size": 1.5}, {"minimum_tls": "1.1"}],
        *[{"connect": None}, {"between_bytes": True}],
    ],
)
def test_bad_values(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^\w+ must be "):
        Transport(**bad)


def test_limits_say_what_they_say_over_others() -> None:
    assert Limits(connect=1).over(Limits(connect=2, total=3)) == Limits(connect=1, total=3)
    assert Limits().over(None) == Limits()


def test_the_pools_private_seams_are_still_there() -> None:
    """urllib3's _get_conn and _put_conn have been stable for years; this says so when they are not."""
    from urllib3 import HTTPConnectionPool

    pool = HTTPConnectionPool("127.0.0.1", 9, maxsize=1, block=True)
    conn = pool._get_conn(timeout=0.01)
    assert conn.sock is None
    pool._put_conn(conn)
    assert pool._get_conn(timeout=0.01) is conn
    logging.getLogger("urllib3").debug("seen")
