"""What hosts agree on through a real Redis, and that nothing depends on it."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import time

import pytest

from proxymw.balancer import BalancerPool
from proxymw.errors import ConfigError, ConnectRefused
from proxymw.rules.members import Member
from proxymw.state import redis as redis_state
from tests.origins import dead_port

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server"),
]
pytest.importorskip("redis")
ONE = {"PATH_INFO": "/", "wsgi.multiprocess": False}


class RedisServer:
    """A redis-server of this test, in memory only."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: _answers(self.port))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def until(condition, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = RedisServer(port)
    yield server
    server.stop()


@pytest.fixture
def hosts(monkeypatch, server):
    """``hosts(name, members)`` is the pool of one more host; all of a test have the same pool name."""
    monkeypatch.setattr(redis_state, "INTERVAL", 0.05)
    if not _answers(server.port):
        server.start()
    made: list[BalancerPool] = []

    def make(host: str, members=("http://a", "http://b"), **options) -> BalancerPool:
        monkeypatch.setattr(redis_state, "host_name", lambda: host)
        pool = BalancerPool(members, state=server.url, name=f"p{id(made)}", **options)
        pool.lease(ONE).finish(status=200)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close()


def asked(pool, member: str = "http://a") -> str:
    return pool.snapshot().member(member).asked


def health(pool, member: str = "http://a") -> str:
    return pool.snapshot().member(member).health


def test_what_is_asked_on_one_host_holds_on_all(hosts) -> None:
    one, two = hosts("one"), hosts("two")
    one.change("http://a", state="drain", loadfactor=7, route="x", by="anna")
    until(lambda: asked(two) == "drain")
    view = two.snapshot().member("http://a")
    assert (view.weight, view.route, view.changed_by) == (7, "x", "anna")
    two.change("http://a", state="ready")
    until(lambda: asked(one) == "ready")
    three = hosts("three")
    until(lambda: three.snapshot().member("http://a").weight == 7)
    assert asked(three) == "ready"


def test_members_come_and_go_on_all_hosts(hosts) -> None:
    one, two = hosts("one"), hosts("two")
    one.add(Member("http://c", loadfactor=2))
    until(lambda: len(two.members) == 3)
    two.remove("http://c")
    until(lambda: len(one.members) == 2)


def test_settings_of_the_pool_hold_on_all_hosts(hosts) -> None:
    one, two = hosts("one"), hosts("two")
    one.change_pool(method="bybusyness", sticky="S")
    until(lambda: two.snapshot().method == "bybusyness")
    assert two.snapshot().sticky == "S"


def test_a_verdict_on_health_holds_on_all_hosts_and_the_newest_wins(hosts) -> None:
    one, two = hosts("one"), hosts("two")
    time.sleep(0.2)
    held = one.lease(ONE)
    held.finish(ConnectRefused("x"))
    name = held.name
    until(lambda: health(two, name) == "down")
    assert "one" in two.snapshot().member(name).reason
    assert 50 < two.snapshot().member(name).retry_in <= 60
    two.change(name, retry_now=True)
    until(lambda: health(two, name) == "up" and health(one, name) == "up")


def test_a_host_that_joins_does_not_call_a_dead_member_alive(hosts) -> None:
    one = hosts("one")
    held = one.lease(ONE)
    held.finish(ConnectRefused("x"))
    time.sleep(0.2)
    two = hosts("two")
    until(lambda: health(two, held.name) == "down")
    time.sleep(0.2)
    assert health(one, held.name) == "down"


def test_secrets_agree_so_that_cookies_hold(hosts) -> None:
    one = hosts("one", sticky=True)
    until(lambda: one._sync._client.get(one._sync._prefix + "secret") is not None)
    two = hosts("two", sticky=True)
    until(lambda: two.secret == one.secret)
    held = one.lease(ONE)
    cookie = held.set_headers[0][1].partition(";")[0]
    again = two.lease({**ONE, "HTTP_COOKIE": cookie})
    assert again.name == held.name


def test_counts_of_all_hosts_can_be_seen_and_a_drain_waits_for_all(hosts) -> None:
    one, two = hosts("one"), hosts("two")
    held = one.lease(ONE)
    until(lambda: two.in_flight(held.name) == 1)
    until(lambda: set(two.hosts()) == {"one", "two"})
    assert two.hosts()["one"][held.name]["in_flight"] == 1
    held.finish(status=200)
    until(lambda: two.in_flight(held.name) == 0)


def test_a_lost_redis_changes_nothing_is_said_once_and_heals(hosts, server, caplog) -> None:
    one, two = hosts("one"), hosts("two")
    time.sleep(0.2)
    with caplog.at_level(logging.WARNING, "proxymw.pool"):
        server.stop()
        until(lambda: caplog.text.count("redis_lost") == 2)  # once by each host
        began = time.monotonic()
        for _ in range(200):
            one.lease(ONE).finish(status=200)
        assert time.monotonic() - began < 0.5
        one.change("http://a", state="disabled", by="anna")
        assert asked(one) == "disabled"
        assert one.hosts() == {}
        time.sleep(0.3)
        assert caplog.text.count("redis_lost") == 2
        server.start()
        until(lambda: asked(two) == "disabled", 15)
        until(lambda: caplog.text.count("redis_back") == 2)


def test_a_redis_that_never_was_is_no_matter(monkeypatch, caplog) -> None:
    monkeypatch.setattr(redis_state, "INTERVAL", 0.05)
    pool = BalancerPool(["http://a"], state=f"redis://:hunter2@127.0.0.1:{dead_port()}/0")
    with caplog.at_level(logging.WARNING, "proxymw.pool"):
        pool.lease(ONE).finish(status=200)
        until(lambda: "redis_lost" in caplog.text)
        assert "hunter2" not in caplog.text
        assert pool.snapshot().state == "local and redis"
        pool.close()


def test_rubbish_in_redis_is_ignored(hosts) -> None:
    one = hosts("one")
    until(lambda: one._sync._client.exists(one._sync._prefix + "secret"))
    client, prefix = one._sync._client, one._sync._prefix
    client.hset(prefix + "asked", mapping={"http://a": "{", "http://b": "[]", "x": '{"changed": 9e99, "added": 5}'})
    client.hset(prefix + "health", mapping={"http://a": '{"since": "x", "found": 1e9}', "http://b": "null"})
    client.set(prefix + "settings", '{"changed": 99999999999999999, "method": "fast"}')
    time.sleep(0.3)
    assert [view.asked for view in one.snapshot().members] == ["ready", "ready"]
    one.lease(ONE).finish(status=200)


def test_urls_are_checked_without_connecting() -> None:
    with pytest.raises(ConfigError, match="redis://"):
        BalancerPool(["http://a"], state="redis://127.0.0.1:port/0")
