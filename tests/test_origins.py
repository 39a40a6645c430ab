"""The servers that the other tests lean on do what they say."""

from __future__ import annotations

import hashlib
import threading

import pytest

from tests.client import call, fetch, raw
from tests.origins import RESET, Answer, dead_port


def test_echo_answers_its_name_and_what_it_received(echo):
    origin = echo("app1", headers=[("X-A", "1"), ("X-A", "2")])
    reply = fetch(origin.port, "/a%2Fb?c=%20", method="POST", headers=[("X-B", "1"), ("x-b", "2")], body=b"hello")
    shown = reply.json()
    assert (shown["origin"], shown["method"], shown["target"]) == ("app1", "POST", "/a%2Fb?c=%20")
    assert [pair for pair in shown["headers"] if pair[0].lower() == "x-b"] == [["X-B", "1"], ["x-b", "2"]]
    assert (shown["length"], shown["sha256"]) == (5, hashlib.sha256(b"hello").hexdigest())
    assert reply.all("X-A") == ["1", "2"]
    assert origin.requests[0].body == b"hello"


def test_echo_reads_chunked_requests(echo):
    shown = fetch(echo().port, method="PUT", body=iter([b"ab", b"c"])).json()
    assert shown["length"] == 3


def test_echo_keeps_connections_and_counts_them(echo):
    origin = echo()
    data = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert raw(origin.port, data).count(b"200 Fine") == 2
    assert (origin.connections, len(origin.requests)) == (1, 2)


@pytest.mark.parametrize("framing", [{}, {"chunked": True}, {"until_close": True}])
def test_echo_frames_its_answers(echo, framing):
    origin = echo(answer=lambda request: Answer(201, [("X", "y")], [b"one", b"two"], **framing))
    reply = fetch(origin.port)
    assert (reply.status, reply.body, reply.header("X")) == (201, b"onetwo", "y")


def test_scripted_plays_one_script_for_each_connection(scripted):
    origin = scripted(b"HTTP/1.0 200 OK\r\n\r\nfirst", [b"HTTP/1.0 200 OK\r\n\r\nsecond"])
    assert [fetch(origin.port).body for _ in range(3)] == [b"first", b"second", b"second"]
    assert origin.received[0].startswith(b"GET / HTTP/1.1\r\n")


def test_scripted_resets(scripted):
    with pytest.raises(ConnectionResetError):
        fetch(scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", 0.05, RESET]).port)


def test_scripted_waits_for_an_event(scripted):
    go = threading.Event()
    origin = scripted([b"HTTP/1.0 200 OK\r\n\r\n", go, b"after"])
    threading.Timer(0.05, go.set).start()
    assert fetch(origin.port).body == b"after"


def test_dead_port_refuses():
    with pytest.raises(ConnectionRefusedError):
        fetch(dead_port())


def test_call_runs_an_application_in_process():
    def app(environ, start_response):
        start_response("200 OK", [("A", environ["PATH_INFO"])])
        return [environ["wsgi.input"].read(), environ["HTTP_X_Y"].encode()]

    reply = call(app, "/a%20b?c", method="POST", headers={"X-Y": "z"}, body=b"data")
    assert (reply.status, reply.header("A"), reply.body) == (200, "/a b", b"dataz")


@pytest.mark.live
def test_front_serves_source_text(front):
    server = front("""
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["PATH_INFO"].encode()]
    """)
    assert server.get("/here").body == b"/here"
    assert len(server.worker_pids) == 1


@pytest.mark.live
def test_front_that_cannot_start_shows_its_log(front):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        front("app = 1 / 0")
