"""Members and workers are killed under constant load, and no client that could be served is let down.

A few seconds in the suite; ``PROXYMW_LONG=soak`` makes it 30 seconds at 200 requests/s, which is what is promised.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import pytest

from tests.client import eventually
from tests.soak.cluster import Load, Member

pytestmark = [pytest.mark.live, pytest.mark.soak]
LONG = os.environ.get("PROXYMW_LONG") == "soak"
SECONDS, RATE = (30.0, 200.0) if LONG else (6.0, 100.0)

APP = """
import json
from proxymw import BalancerPool, Health, Member
pool = BalancerPool({members}, {options})

def app(environ, start_response):
    if environ["PATH_INFO"] == "/-/status":
        pool.join(environ)
        shot = pool.snapshot()
        rows = [[m.id, m.requests, m.in_flight, m.finished, m.health, list(m.again)] for m in shot.members]
        body = json.dumps([shot.state, shot.workers, rows]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return pool(environ, start_response)
"""


@pytest.fixture
def five(tmp_path):
    members = [Member(f"{number}", tmp_path) for number in range(1, 6)]
    yield members
    for member in members:
        member.kill()


def serve(front, five, options: str, retry: float = 1.0, workers: int = 4):
    members = ", ".join(f"Member({member.url!r}, retry={retry})" for member in five)
    return front(APP.format(members=f"[{members}]", options=options), workers=workers)


def while_loaded(load: Load, disturb) -> None:
    """Run the load, and ``disturb`` every two seconds of it."""
    over = threading.Event()

    def disturber() -> None:
        number = 0
        while not over.wait(2.0):
            disturb(number)
            number += 1

    thread = threading.Thread(target=disturber)
    thread.start()
    try:
        load.run()
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("options", ["", "health=Health(failures=2, eject=1.0)"], ids=["as Apache", "ejecting"])
def test_killed_members_cost_no_client_an_answer(front, five, options, record_property) -> None:
    site = serve(front, five, options)
    load = Load(site.port, RATE, SECONDS)

    def kill_and_restart(number: int) -> None:
        member = five[number % 5]
        member.kill()
        time.sleep(0.7)
        member.start()

    while_loaded(load, kill_and_restart)
    record_property("figures", load.told())
    print(load.told())
    assert [problem for method, problem in load.failed if method == "GET"] == []
    received = Counter(nonce for member in five for nonce in member.nonces("POST"))
    assert [nonce for nonce, count in received.items() if count > 1] == []
    # A POST whose member died while it worked cannot be given to another: it fails, once for each that was on its way.
    assert all("502" in problem for method, problem in load.failed if method == "POST")
    state, _, rows = eventually(lambda: _settled(site))
    assert state == "shared"
    assert sum(row[1] for row in rows) >= sum(load.done.values())


def _settled(site):
    shown = site.get("/-/status").json()
    return shown if all(row[2] == 0 for row in shown[2]) else None


def test_killed_workers_leave_a_whole_table(front, five, record_property) -> None:
    site = serve(front, five, "")
    load = Load(site.port, RATE, SECONDS)
    killed: list[int] = []

    def kill_a_worker(number: int) -> None:
        living = [pid for pid in site.worker_pids if pid not in killed]
        killed.append(living[0])
        os.kill(living[0], signal.SIGKILL)

    while_loaded(load, kill_a_worker)
    record_property("figures", load.told())
    print(load.told())
    # Only what the dead workers had in their hands is lost.
    assert len(load.failed) <= 10 * len(killed)
    state, workers, rows = eventually(lambda: _settled(site))
    assert state == "shared"
    assert workers <= 4
    shares = [row[1] for row in rows]
    assert max(shares) - min(shares) <= 5 + 2 * len(killed)


def test_six_thousand_requests_over_four_workers_keep_the_weights(front, echo) -> None:
    from tests.live.test_balancer_live import ask_many, pool_app

    a, b, c = echo("a"), echo("b"), echo("c")
    members = f"[Member({a.url!r}, loadfactor=3), Member({b.url!r}, loadfactor=2), {c.url!r}]"
    site = front(pool_app(members), workers=4)
    count = 6000 if LONG else 600
    found = ask_many(site, count, threads=24)
    print(dict(found))
    for name, share in (("a", 1 / 2), ("b", 1 / 3), ("c", 1 / 6)):
        assert abs(found[name] - count * share) <= count * 0.005
