"""The faults of members, one by one, with a healthy member beside: what clients get and what the pool makes of it."""

from __future__ import annotations

import os
import resource
import threading
import time

import pytest

from proxymw.balancer import BalancerPool, Health
from proxymw.errors import ConnectionReset, ConnectRefused
from proxymw.exchange.transport import Transport
from proxymw.rules.members import Member
from proxymw.rules.retrying import RetryPolicy
from tests.client import call
from tests.origins import READ_HEAD, READ_REQUEST, RESET, Answer, dead_port

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def transport():
    transport = Transport(connect=1, first_byte=0.3, between_bytes=0.3)
    yield transport
    transport.close()


def pool_of(transport, *urls: str, **options) -> BalancerPool:
    return BalancerPool(list(urls), transport=transport, **options)


def ask(pool, method: str = "GET", **options):
    """The status and body, or what cut it."""
    body = b"abc" if method == "POST" else b""
    try:
        reply = call(pool, "/x", method=method, body=body, **options)
    except ConnectionResetError:
        return "cut", b""
    return reply.status, reply.body


def states(pool) -> str:
    return "".join(view.health[0] for view in pool.snapshot().members)


# The script of the sick member; what a GET and a POST get that fall on it.
FAULTS = {
    "reset before anything": ([0.05, RESET], 200, 502),
    "reset after the head": ([READ_HEAD, RESET], 200, 502),
    "reset after the request": ([READ_REQUEST, RESET], 200, 502),
    "closed without a word": ([READ_REQUEST], 200, 502),
    "silent": ([READ_REQUEST, 1], 504, 504),
    "reset inside the head": ([READ_REQUEST, HEAD[:20], RESET], 502, 502),
    "slow inside the head": ([READ_REQUEST, HEAD[:20], 1], 504, 504),
    "garbage": ([READ_REQUEST, b"\x16\x03\x01 garbage\r\n\r\n"], 502, 502),
    "reset inside the body": ([READ_REQUEST, HEAD, b"he", 0.05, RESET], "cut", "cut"),
    "closed inside the body": ([READ_REQUEST, HEAD, b"he"], "cut", "cut"),
    "slow inside the body": ([READ_REQUEST, HEAD, b"he", 1], "cut", "cut"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_member(echo, scripted, transport, fault) -> None:
    script, get, post = FAULTS[fault]
    sick, well = scripted(script), echo("well")
    pool = pool_of(transport, sick.url, well.url, attempts=1)
    assert ask(pool)[0] == get
    assert states(pool) == "uu"  # it could be connected to: Apache's rule keeps it
    pool.change(sick.url, state="ready")
    while pool.eligible()[0][0].id != sick.url:
        ask(pool)
    served = len(well.requests)
    turn = [ask(pool, "POST")[0] for _ in range(2)]
    assert sorted(map(str, turn)) == sorted(["200", str(post)])
    assert sum(request.method == "POST" for request in well.requests[served:]) == 1  # nothing was sent twice
    assert [view.in_flight for view in pool.snapshot().members] == [0, 0]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_moves_on_whatever_the_method(echo, transport, method) -> None:
    well = echo("well")
    gone = f"http://127.0.0.1:{dead_port()}"
    pool = pool_of(transport, gone, well.url)
    began = time.monotonic()
    assert [ask(pool, method)[0] for _ in range(4)] == [200] * 4
    assert time.monotonic() - began < 2
    assert (states(pool), len(well.requests)) == ("du", 4)
    assert pool.snapshot().member(gone).requests == 1


def test_the_first_true_error_is_the_one_reported(scripted, transport) -> None:
    pool = pool_of(transport, scripted([READ_REQUEST, RESET]).url, f"http://127.0.0.1:{dead_port()}")
    assert ask(pool)[0] == 502


def test_all_refused_is_503_at_once(transport) -> None:
    pool = pool_of(transport, *(f"http://127.0.0.1:{dead_port()}" for _ in range(3)))
    reply = call(pool, "/x")
    assert reply.status == 503
    assert "connection_refused" in (reply.header("Proxy-Status") or "")


def test_one_member_alone_is_tried_again_at_once(echo, transport) -> None:
    """Forced back: an error never keeps the only member from being tried."""
    origin = echo("a")
    pool = pool_of(transport, origin.url)
    lease = pool.lease({"PATH_INFO": "/", "wsgi.multiprocess": False})
    lease.finish(ConnectRefused("x"))
    assert states(pool) == "d"
    assert ask(pool)[0] == 200


def test_a_flapping_member_is_ejected_longer_each_time(transport) -> None:
    now = [1000.0]
    health = Health(failures=1, eject=10, eject_max=40, share=1)
    pool = pool_of(transport, "http://flapping", "http://well", health=health, clock=lambda: now[0])
    times = []
    for _ in range(4):
        while states(pool) == "uu":
            lease = pool.lease({"PATH_INFO": "/", "wsgi.multiprocess": False})
            lease.finish(ConnectionReset("x") if lease.name == "http://flapping" else None)
        times.append(round(pool.snapshot().members[0].retry_in or 0))
        now[0] += times[-1]
        # Its time is over: it is up again with the first election.
        lease = pool.lease({"PATH_INFO": "/", "wsgi.multiprocess": False})
        lease.finish(ConnectionReset("x") if lease.name == "http://flapping" else None)
    assert times == [10, 20, 40, 40]


def test_a_slow_member_does_not_slow_the_others(echo, transport) -> None:
    hold = threading.Event()
    slow, quick = echo("slow", delay=hold), echo("quick")
    transport = Transport(first_byte=20)
    pool = pool_of(transport, slow.url, quick.url, method="bybusyness")
    stuck = threading.Thread(target=lambda: ask(pool))
    stuck.start()
    while pool.snapshot().member(slow.url).in_flight != 1:
        time.sleep(0.002)
    began = time.monotonic()
    assert {ask(pool)[0] for _ in range(10)} == {200}
    assert time.monotonic() - began < 1
    assert len(quick.requests) == 10
    hold.set()
    stuck.join()
    transport.close()


def test_running_out_of_files_is_503_and_passes(echo, transport) -> None:
    origin = echo("a")
    pool = pool_of(transport, origin.url)
    pool.join({"wsgi.multiprocess": False})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        status = ask(pool)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert status == 503
    assert states(pool) == "u"  # not the member's fault
    assert ask(pool)[0] == 200


def test_a_wall_clock_that_jumps_ejects_and_frees_nobody(echo, transport, monkeypatch) -> None:
    well = echo("well")
    gone = f"http://127.0.0.1:{dead_port()}"
    pool = pool_of(transport, gone, well.url)
    assert ask(pool)[0] == 200
    wall, wall_ns = time.time, time.time_ns
    for day in (86_400, -86_400):
        monkeypatch.setattr(time, "time", lambda day=day: wall() + day)
        monkeypatch.setattr(time, "time_ns", lambda day=day: wall_ns() + day * 10**9)
        assert {ask(pool)[0] for _ in range(4)} == {200}
        assert states(pool) == "du"
        assert 50 < pool.snapshot().member(gone).retry_in <= 60


def test_a_wsgi_application_is_a_member_like_any_other(echo, transport) -> None:
    def local(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"local"]

    remote = echo("remote")
    pool = BalancerPool([Member(local, name="local"), remote.url], transport=transport, sticky=True)
    bodies = [call(pool, "/x").body for _ in range(4)]
    assert bodies[0] == bodies[2] == b"local"
    assert len(remote.requests) == 2
    assert [view.in_flight for view in pool.snapshot().members] == [0, 0]


def test_an_application_that_raises_gives_its_place_back(transport) -> None:
    def broken(environ, start_response):
        raise RuntimeError("broken")

    pool = BalancerPool([Member(broken, name="broken")], transport=transport)
    with pytest.raises(RuntimeError):
        call(pool, "/x")
    assert pool.snapshot().members[0].in_flight == 0


def test_the_fallback_answers_over_http_semantics(transport) -> None:
    def sorry(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"sorry"]

    pool = pool_of(transport, f"http://127.0.0.1:{dead_port()}", fallback=sorry)
    assert call(pool, "/x").body == b"sorry"


def test_the_sticky_cookie_reaches_the_client(echo, transport) -> None:
    pool = pool_of(transport, echo("a").url, echo("b").url, sticky=True)
    first = call(pool, "/x")
    cookie = (first.header("Set-Cookie") or "").partition(";")[0]
    assert cookie.startswith("proxymw_route=")
    for _ in range(3):
        again = call(pool, "/x", headers={"Cookie": cookie})
        assert again.json()["origin"] == first.json()["origin"]
        assert again.header("Set-Cookie") is None


def test_a_status_may_be_made_retryable(echo, transport) -> None:
    sick = echo("sick", answer=lambda request: Answer(status=503, body=b"busy"))
    well = echo("well")
    retry = RetryPolicy(statuses=frozenset({503}))
    pool = pool_of(transport, sick.url, well.url, retry=retry)
    assert [ask(pool)[0] for _ in range(4)] == [200] * 4
    assert len(sick.requests) == 2
    assert [ask(pool, "POST")[0] for _ in range(2)] == [503, 200]  # nothing that may have run is sent twice
    assert [view.in_flight for view in pool.snapshot().members] == [0, 0]


@pytest.mark.parametrize("other", ["busy", "gone", "none"])
def test_a_retryable_answer_stands_where_no_better_comes(echo, transport, other) -> None:
    busy = echo("one", answer=lambda request: Answer(status=503, body=b"first"))
    urls = {
        "busy": [echo("two", answer=lambda request: Answer(status=503, body=b"second")).url],
        "gone": [f"http://127.0.0.1:{dead_port()}"],
        "none": [],
    }[other]
    pool = pool_of(transport, busy.url, *urls, retry=RetryPolicy(statuses=frozenset({503})))
    assert ask(pool) == (503, b"second" if other == "busy" else b"first")
    assert {view.in_flight for view in pool.snapshot().members} == {0}
