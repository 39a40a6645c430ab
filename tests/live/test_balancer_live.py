"""A pool behind real workers: one sequence, one truth, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client import fetch
from tests.origins import dead_port

pytestmark = pytest.mark.live

APP = """
import json, os
from proxymw import BalancerPool, Member
pool = BalancerPool({members}, name="cluster", {options})

def app(environ, start_response):
    if environ["PATH_INFO"] == "/-/status":
        pool.join(environ)
        shot = pool.snapshot()
        body = json.dumps(dict(
            state=shot.state, workers=shot.workers, pid=os.getpid(),
            members={{m.id: [m.requests, m.in_flight, m.health, m.asked] for m in shot.members}},
        )).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    if environ["PATH_INFO"] == "/-/drain":
        pool.join(environ)
        pool.change(environ["QUERY_STRING"], state="drain", by="test")
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]
    return pool(environ, start_response)
"""


def pool_app(members: str, options: str = "") -> str:
    return APP.format(members=members, options=options)


def status(server) -> dict:
    return server.get("/-/status").json()


def ask_many(server, count: int, threads: int = 16, target: str = "/x") -> Counter:
    """How often each member answered ``count`` concurrent requests."""

    def some(share: int) -> Counter:
        found: Counter = Counter()
        for _ in range(share):
            reply = fetch(server.port, target)
            found[reply.json()["origin"] if reply.status == 200 else reply.status] += 1
        return found

    with ThreadPoolExecutor(threads) as executor:
        return sum(executor.map(some, [count // threads] * threads), Counter())


def test_four_workers_share_one_sequence(echo, front) -> None:
    a, b, c = echo("a"), echo("b"), echo("c")
    members = f"[Member({a.url!r}, loadfactor=3), Member({b.url!r}, loadfactor=2), {c.url!r}]"
    server = front(pool_app(members), workers=4)
    assert ask_many(server, 1200) == {"a": 600, "b": 400, "c": 200}
    shown = status(server)
    assert shown["state"] == "shared"
    assert [shown["members"][o.url][:2] for o in (a, b, c)] == [[600, 0], [400, 0], [200, 0]]


def test_every_worker_obeys_a_change_with_its_next_request(echo, front) -> None:
    a, b = echo("a"), echo("b")
    server = front(pool_app(f"[{a.url!r}, {b.url!r}]"), workers=4)
    ask_many(server, 64)
    server.get(f"/-/drain?{a.url}")
    assert ask_many(server, 64) == {"b": 64}


def test_a_dead_member_is_dead_for_all_workers_and_costs_nobody_an_answer(echo, front) -> None:
    a = echo("a")
    gone = f"http://127.0.0.1:{dead_port()}"
    server = front(pool_app(f"[{gone!r}, {a.url!r}]"), workers=4)
    assert ask_many(server, 160) == {"a": 160}
    shown = status(server)["members"]
    assert shown[gone][2] == "down"
    assert shown[gone][0] <= 16  # once, or once for each request that was on its way at that moment


def test_a_killed_worker_gives_back_what_it_held(echo, front) -> None:
    free = threading.Event()
    free.set()
    origin = echo("a", delay=free)
    server = front(pool_app(f"[{origin.url!r}]"), workers=2)
    ask_many(server, 16)
    free.clear()
    threads = [threading.Thread(target=_ignore, args=(server, "/hold")) for _ in range(6)]
    for thread in threads:
        thread.start()
    _until(lambda: status(server)["members"][origin.url][:2] == [22, 6], lambda: (status(server), server.log))
    for pid in server.worker_pids:
        os.kill(pid, signal.SIGKILL)
    _until(lambda: _status_or_none(server) and status(server)["members"][origin.url][1] == 0)
    free.set()
    for thread in threads:
        thread.join()
    assert status(server)["members"][origin.url][0] == 22


def _ignore(server, target: str) -> None:
    try:
        fetch(server.port, target)
    except (OSError, ValueError):
        return


def _status_or_none(server):
    try:
        return status(server)
    except (OSError, ValueError, json.JSONDecodeError):
        return None


def _until(condition, shown=lambda: "", seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not come true in time: {shown()}"
        time.sleep(0.02)


def test_a_reload_with_other_members_keeps_the_counters_and_loses_no_request(echo, front, tmp_path) -> None:
    a, b, c = echo("a"), echo("b"), echo("c")
    listed = tmp_path / "members"
    listed.write_text(f"{a.url} {b.url}")
    server = front(pool_app(f"open({str(listed)!r}).read().split()"), workers=2)
    assert ask_many(server, 80, threads=8) == {"a": 40, "b": 40}
    server.get(f"/-/drain?{b.url}")
    listed.write_text(f"{c.url} {b.url} {a.url}")
    before = set(server.worker_pids)
    found: list[Counter] = []
    asking = threading.Thread(target=lambda: found.append(ask_many(server, 160, threads=4)))
    asking.start()
    server.process.send_signal(signal.SIGHUP)
    asking.join()
    _until(lambda: len(set(server.worker_pids) - before) == 2)
    _until(lambda: set(status(server)["members"]) == {a.url, b.url, c.url})
    assert sum(found[0].values()) == 160
    assert set(found[0]) <= {"a", "c"}
    shown = status(server)["members"]
    assert shown[b.url] == [40, 0, "up", "drain"]
    assert shown[a.url][0] + shown[c.url][0] == 40 + 160


def test_a_preloaded_application_shares_one_table(echo, front) -> None:
    a, b = echo("a"), echo("b")
    server = front(pool_app(f"[{a.url!r}, {b.url!r}]"), workers=3, args=["--preload"])
    assert ask_many(server, 128) == {"a": 64, "b": 64}
    shown = status(server)
    assert shown["state"] == "shared"
    assert [row[1] for row in shown["members"].values()] == [0, 0]


def test_the_choice_of_the_table_is_logged_once(echo, front) -> None:
    origin = echo("a")
    log = "import logging; logging.basicConfig(level=logging.INFO)\n"
    server = front(log + pool_app(f"[{origin.url!r}]"), workers=3)
    ask_many(server, 64)
    assert server.log.count("event=state_shared") == 1
