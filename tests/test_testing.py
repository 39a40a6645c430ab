"""The testing kit: a whole front, pools included, with no socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from werkzeug.test import Client

from proxymw import (
    BalancerManagerApp,
    BalancerPool,
    ConfigError,
    IPAllowlist,
    Member,
    PrefixProxy,
    Redirects,
    RewriteProxy,
    StaticOrPass,
    VirtualHosts,
)
from proxymw.errors import BodyTruncated, ConnectionReset, ConnectRefused, FirstByteTimeout
from proxymw.testing import ScriptedTransport, assert_routes


@pytest.fixture(autouse=True)
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a socket was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


APP1, APP2 = "http://app1.ducklington.org", "http://app2.ducklington.org"


def test_without_a_script_an_origin_tells_what_it_was_asked_for() -> None:
    origins = ScriptedTransport()
    app = PrefixProxy(None, [("/media", "http://media.ducklington.org")], transport=origins)
    reply = Client(app).get(
        "/media/a%2Fb?c", headers={"X-Forwarded-For": "6.6.6.6"}, environ_base={"REMOTE_ADDR": "10.1.2.3"}
    )
    assert reply.text == "GET http://media.ducklington.org/a%2Fb?c"
    (sent,) = origins.sent
    assert (sent.origin, sent.target) == ("http://media.ducklington.org", "/a%2Fb?c")
    assert sent.header("host") == "media.ducklington.org"
    assert sent.header("X-Forwarded-For") == "10.1.2.3"
    assert sent.header("X-Nothing") is None


@pytest.mark.parametrize("size", [3, 100_000])
def test_bodies_of_requests_are_recorded(size: int) -> None:
    origins = ScriptedTransport()
    app = PrefixProxy(None, [("/", f"{APP1}/")], transport=origins)
    Client(app).post("/form", data=b"x" * size)
    assert origins.sent[0].method == "POST"
    assert origins.sent[0].body == b"x" * size


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        ("hello", 200, b"hello"),
        (b"\x00\xff", 200, b"\x00\xff"),
        (404, 404, b""),
        (204, 204, b""),
        ((201, [("X-A", "b")], "made"), 201, b"made"),
        ((200, [], iter([b"one ", b"two"])), 200, b"one two"),
        (lambda sent: sent.target, 200, b"/x"),
        (lambda sent: ConnectionReset("gone"), 502, b"502 Bad Gateway\n"),
        (ConnectRefused, 503, b"503 Service Unavailable\n"),
        (FirstByteTimeout("slow"), 504, b"504 Gateway Timeout\n"),
    ],
)
def test_answers(answer: object, status: int, body: bytes) -> None:
    app = PrefixProxy(None, [("/", f"{APP1}/")], transport=ScriptedTransport({APP1: answer}))
    reply = Client(app).get("/x")
    assert (reply.status_code, reply.data) == (status, body)


def test_answers_in_a_list_come_one_after_the_other() -> None:
    app = PrefixProxy(None, [("/", f"{APP1}/")], transport=ScriptedTransport({APP1: ["one", 500, "last"]}))
    assert [Client(app).get("/").status_code for _ in range(4)] == [200, 500, 200, 200]


def test_a_head_request_has_the_length_and_no_body() -> None:
    app = PrefixProxy(None, [("/", f"{APP1}/")], transport=ScriptedTransport({APP1: "hello"}))
    reply = Client(app).head("/")
    assert (reply.headers["Content-Length"], reply.data) == ("5", b"")


def test_a_body_that_breaks_off_is_seen_as_cut() -> None:
    def body() -> Iterator[bytes]:
        yield b"half"
        raise BodyTruncated("scripted")

    app = PrefixProxy(None, [("/", f"{APP1}/")], transport=ScriptedTransport({APP1: (200, [], body())}))
    with pytest.raises(ConnectionResetError, match="cut"):
        Client(app).get("/", buffered=True)


def test_failover_of_a_pool() -> None:
    pool = BalancerPool([APP1, APP2], name="cluster")
    app = PrefixProxy(None, [("/", pool)])
    with ScriptedTransport({APP1: ConnectRefused, APP2: "app2"}) as origins:
        replies = [Client(app).get("/").text for _ in range(3)]
    assert replies == ["app2", "app2", "app2"]
    assert [sent.origin for sent in origins.sent] == [APP1, APP2, APP2, APP2]
    assert [member.health for member in pool.snapshot().members] == ["down", "up"]


def test_the_block_stands_in_for_every_transport_that_was_not_given() -> None:
    from proxymw.exchange.transport import default_transport

    app = RewriteProxy(None, [(r"^/(.*)$", f"{APP1}/$1")])
    with ScriptedTransport({APP1: "outer"}) as outer:
        with ScriptedTransport({APP1: "inner"}) as inner:
            assert Client(app).get("/a").text == "inner"
        assert Client(app).get("/b").text == "outer"
        assert default_transport() is outer
    assert default_transport() is not outer
    assert [len(outer.sent), len(inner.sent)] == [1, 1]
    assert repr(outer) == "<ScriptedTransport: 1 requests sent>"


def test_an_application_as_member_and_as_target() -> None:
    def wiki(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]

    pool = BalancerPool([Member(wiki, name="wiki")], name="wikis")
    app = PrefixProxy(None, [("/wiki/", wiki), ("/pool/", pool)])
    assert Client(app).get("/wiki/a").text == "/wiki /a"
    assert Client(app).get("/pool/a").text == "/pool /a"
    assert pool.snapshot().member("wsgi:wiki").requests == 1


def test_an_origin_without_a_script_is_a_mistake_of_the_test() -> None:
    app = PrefixProxy(None, [("/", f"{APP1}/")], transport=ScriptedTransport({APP2: "hello"}))
    with pytest.raises(LookupError, match=r"no answer is scripted for http://app1\.ducklington\.org"):
        Client(app).get("/")


@pytest.mark.parametrize("given", [True, None, 1.5, (200, [])])
def test_what_is_no_answer(given: object) -> None:
    app = PrefixProxy(None, [("/", f"{APP1}/")], transport=ScriptedTransport({APP1: given}))
    with pytest.raises(TypeError, match="not an answer"):
        Client(app).get("/")


def test_wrong_scripts() -> None:
    with pytest.raises(ConfigError, match="origin must be scheme and host without a path, got 'http://a/b'"):
        ScriptedTransport({"http://a/b": "x"})
    with pytest.raises(ConfigError, match="answers of http://a must be at least one"):
        ScriptedTransport({"http://a": []})


def test_assert_routes(tmp_path) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>")
    pool = BalancerPool([APP1], name="cluster")
    manager = IPAllowlist(BalancerManagerApp([pool]), allow=["10.0.0.1"])
    app = PrefixProxy(
        StaticOrPass(None, tmp_path),
        [("/balancer-manager", manager), ("/wiki/static/", "!"), ("/wiki/", f"{APP2}/"), ("/app/", pool)],
    )
    app = VirtualHosts({"ducklington.org": Redirects(app, [("/old", "/wiki/old")])}, default=None)
    for path, to in [
        ("/wiki/a%2Fb?c", f"{APP2}/a%2Fb?c"),
        ("/wiki/static/x", 404),
        ("/app/x", "balancer://cluster/x"),
        ("/logo.svg", "/logo.svg"),
        ("/old", "/wiki/old"),
        ("/balancer-manager/", 403),
        ("/../x", 400),
    ]:
        assert_routes(app, f"http://ducklington.org{path}", to=to)
    assert_routes(app, "http://ducklington.org/balancer-manager/", to="manager", client="10.0.0.1")
    with pytest.raises(AssertionError) as failed:
        assert_routes(app, "http://ducklington.org/wiki/x", to=f"{APP1}/x")
    told = str(failed.value)
    assert told.startswith("GET http://ducklington.org/wiki/x goes elsewhere than to http://app1.ducklington.org/x:\n")
    assert "/wiki/ -> http://app2.ducklington.org/: matches" in told
    assert f"=> forward {APP2}/x" in told
