"""Active checks against real origins on loopback: what passes, who asks, what it does to elections."""

from __future__ import annotations

import os
import signal
import time

import pytest

from proxymw.balancer import BalancerPool, Probe
from proxymw.errors import ConnectRefused
from proxymw.exchange.transport import Transport
from proxymw.prober import Prober, ask
from proxymw.rules.origins import Origin
from tests.origins import READ_REQUEST, RESET, Answer, dead_port

# From Python 3.12 on a fork beside threads is warned of; these children only touch the table.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
ONE = {"PATH_INFO": "/", "wsgi.multiprocess": False}
SEVERAL = {"PATH_INFO": "/", "wsgi.multiprocess": True}


@pytest.fixture
def pools():
    made = []

    def make(members, **options):
        pool = BalancerPool(members, **options)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close()


def until(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.01)


def health(pool) -> str:
    return "".join(view.health[0] for view in pool.snapshot().members)


@pytest.mark.parametrize(
    ("answer", "probe", "problem"),
    [
        (Answer(body=b"fine"), {}, ""),
        (Answer(status=302), {}, ""),
        (Answer(status=404), {}, "status 404"),
        (Answer(status=404), {"status": (404,)}, ""),
        (Answer(status=500), {}, "status 500"),
        (Answer(body=b"all is well"), {"body": b"well"}, ""),
        (Answer(body=b"help"), {"body": b"well"}, "body without what is expected"),
        (Answer(), {"method": "HEAD"}, ""),
    ],
)
def test_what_passes(echo, answer, probe, problem) -> None:
    origin = echo("a", answer=lambda request: answer)
    assert ask(Probe(**probe), Origin.parse(origin.url), Transport()) == problem


def test_what_is_asked(echo) -> None:
    origin = echo("a")
    assert ask(Probe(path="/health?x=1", host="shop.example"), Origin.parse(origin.url), Transport()) == ""
    (request,) = origin.requests
    assert (request.method, request.target) == ("GET", "/health?x=1")
    assert request.header("Host") == "shop.example"
    assert request.header("User-Agent") == "proxymw-probe"
    assert request.header("X-Forwarded-For") is None


def test_broken_origins_fail(scripted) -> None:
    probe = Probe(timeout=0.2)
    assert ask(probe, Origin.parse(f"http://127.0.0.1:{dead_port()}"), Transport()) == "upstream_refused"
    assert ask(probe, Origin.parse(scripted([READ_REQUEST, RESET]).url), Transport()) == "upstream_reset"
    assert ask(probe, Origin.parse(scripted([READ_REQUEST, 1]).url), Transport()) == "upstream_timeout"
    assert ask(probe, Origin.parse(scripted([b"garbage\r\n\r\n"]).url), Transport()) == "upstream_malformed"


def test_a_member_goes_down_and_comes_up_by_its_checks(echo, pools) -> None:
    sick: list[bool] = []
    a = echo("a", answer=lambda request: Answer(status=500) if sick else None)
    b = echo("b")
    pool = pools([a.url, b.url], probe=Probe(interval=0.05, rise=2, fall=2, jitter=0))
    pool.lease(ONE).finish(status=200)
    until(lambda: len(a.requests) > 2)
    assert health(pool) == "uu"
    sick.append(True)
    until(lambda: health(pool) == "du")
    view = pool.snapshot().members[0]
    assert (view.reason, view.letters) == ("health check failed", "Init HcFl")
    assert {pool.lease(ONE).name for _ in range(4)} == {b.url}
    sick.clear()
    until(lambda: health(pool) == "uu")
    assert [event["event"] for event in pool.events()] == ["member_down", "member_up"]


def test_members_that_begin_down_wait_for_their_checks(echo, pools) -> None:
    a = echo("a")
    pool = pools([a.url], probe=Probe(interval=0.05, rise=2, initial="down"), timeout=5)
    pool.lease(ONE).finish(status=200)  # waits until the member is up
    assert health(pool) == "u"


def test_checks_end_an_error_before_its_retry(echo, pools) -> None:
    a, b = echo("a"), echo("b")
    pool = pools([a.url, b.url], probe=Probe(interval=0.05, rise=2))
    pool.lease(ONE).finish(ConnectRefused("x"))
    until(lambda: health(pool) == "uu")


def test_one_process_of_a_host_asks(echo, pools, tmp_path) -> None:
    """Two workers share a table: probes come at the rate of one."""
    a = echo("a")
    pool = pools([a.url], probe=Probe(interval=0.1, jitter=0), state=tmp_path / "t")
    pool.lease(SEVERAL).finish(status=200)
    pid = os.fork()
    if pid == 0:
        try:
            pool.lease(SEVERAL).finish(status=200)
            time.sleep(1.2)
        finally:
            os._exit(0)
    time.sleep(1.0)
    seen = len(a.requests)
    os.waitpid(pid, 0)
    assert 5 <= seen <= 13


def test_another_process_takes_over(echo, pools, tmp_path) -> None:
    a = echo("a")
    pool = pools([a.url], probe=Probe(interval=0.1, timeout=0.1, jitter=0), state=tmp_path / "t")
    pid = os.fork()
    if pid == 0:
        pool.lease(SEVERAL).finish(status=200)
        time.sleep(30)
        os._exit(0)
    until(lambda: len(a.requests) > 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    before = len(a.requests)
    pool.lease(SEVERAL).finish(status=200)
    until(lambda: len(a.requests) > before + 1)


def test_a_member_that_left_does_not_keep_the_prober_awake(echo, pools) -> None:
    one, two = echo("one"), echo("two")
    pool = pools([one.url, two.url], probe=Probe(interval=30.0, jitter=0.0))
    prober = Prober(pool, pool.probe)
    prober._step()
    for slot in prober._due:
        prober._due[slot] -= 100.0
    pool.remove(two.url)
    assert prober._step() > 1
