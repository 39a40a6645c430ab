"""Case five: a cluster of five, the three methods, a dead member, and the manager."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client import eventually, fetch
from tests.origins import Answer, EchoOrigin, Request, dead_port

pytestmark = pytest.mark.live

CLUSTER = """
    from proxymw import BalancerManagerApp, BalancerPool, IPAllowlist, Member, PrefixProxy

    cluster = BalancerPool({members}, name="cluster", method="{method}")
    manager = IPAllowlist(BalancerManagerApp([cluster]), allow=["127.0.0.1"])
    app = PrefixProxy(None, [("/balancer-manager", manager), ("/", cluster)])
"""


def cluster(members: list[str] | str, method: str = "byrequests") -> str:
    return CLUSTER.format(members=members if isinstance(members, str) else repr(members), method=method)


@pytest.fixture
def five(echo):
    return [echo(f"app{number}") for number in range(1, 6)]


def names(front, count: int, **options) -> list[str]:
    """Who answered `count` requests, one after the other on one connection: each is accounted before the next."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
    replies = [fetch(front.port, connection=connection, **options) for _ in range(count)]
    connection.close()
    assert {reply.status for reply in replies} == {200}
    return [reply.json()["origin"] for reply in replies]


def test_byrequests_gives_each_of_five_its_fifth_in_order(front, five):
    served = names(front(cluster([origin.url for origin in five])), 100)
    assert served == ["app1", "app2", "app3", "app4", "app5"] * 20


def test_byrequests_counts_over_all_workers(front, five):
    site = front(cluster([origin.url for origin in five]), workers=2, args=["--preload"])
    with ThreadPoolExecutor(4) as clients:
        served = Counter(clients.map(lambda _: site.get().json()["origin"], range(100)))
    assert served == {f"app{number}": 20 for number in range(1, 6)}


def test_byrequests_with_loadfactors(front, echo):
    members = ", ".join(f"Member({echo(str(place)).url!r}, loadfactor={4 - place})" for place in (1, 2, 3))
    assert " ".join(names(front(cluster(f"[{members}]")), 12)) == "1 2 1 3 2 1 1 2 1 3 2 1"


def head_length(request: Request) -> int:
    return len(f"{request.method} {request.target} {request.version}\r\n\r\n") + sum(
        len(name) + len(value) + len(": \r\n") for name, value in request.headers
    )


def test_bytraffic_evens_out_the_bytes(front, echo):
    """The next member is the one with the least ``sent // f + received // f``, f being 100 times its loadfactor; sent
    counts whole requests, received the bodies and the status lines."""
    bodies, factors = {"a": 9000, "b": 1000, "c": 2000}, {"a": 300, "b": 100, "c": 200}
    origins = {
        name: echo(name, answer=lambda request, n=name: Answer(200, [("X-Name", n)], b"x" * bodies[n], reason="OK"))
        for name in bodies
    }
    members = ", ".join(f"Member({origin.url!r}, loadfactor={factors[n] // 100})" for n, origin in origins.items())
    site = front(cluster(f"[{members}]", "bytraffic"))
    sent, received = Counter(), Counter()
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    for number in range(60):
        expected = min(bodies, key=lambda name: sent[name] // factors[name] + received[name] // factors[name])
        body = b"y" * (number * 37 % 500)
        reply = fetch(site.port, method="POST", body=body, connection=connection)
        assert (number, reply.header("X-Name")) == (number, expected)
        sent[expected] += head_length(origins[expected].requests[-1]) + len(body)
        received[expected] += bodies[expected] + len("HTTP/1.1 200 OK")
    connection.close()


def test_bybusyness_avoids_the_busy_member(front, echo):
    go = threading.Event()
    slow, quick = echo("slow", delay=go), echo("quick")
    site = front(cluster([slow.url, quick.url], "bybusyness"))
    with ThreadPoolExecutor(1) as clients:
        held = clients.submit(site.get)
        try:
            eventually(lambda: slow.requests)
            assert names(site, 6) == ["quick"] * 6
        finally:
            go.set()
        assert held.result().json()["origin"] == "slow"


def test_bybusyness_takes_turns_when_none_is_busy(front, five):
    served = names(front(cluster([origin.url for origin in five], "bybusyness")), 50)
    assert served == ["app1", "app2", "app3", "app4", "app5"] * 10


@pytest.mark.parametrize("method", ["byrequests", "bytraffic", "bybusyness"])
def test_a_dead_member_costs_no_client_an_error(front, five, method):
    urls = [origin.url for origin in five]
    urls[2] = f"http://127.0.0.1:{dead_port()}"
    site = front(cluster(urls, method))
    served = names(site, 40) + names(site, 40, method="POST", body=b"data")
    assert set(served) == {"app1", "app2", "app4", "app5"}


def test_a_member_that_dies_costs_no_client_an_error(front, five):
    site = front(cluster([origin.url for origin in five]))
    names(site, 10)
    five[2].stop()
    assert set(names(site, 20, method="POST", body=b"data")) == {"app1", "app2", "app4", "app5"}


def test_no_member_left_is_503(front):
    assert front(cluster([f"http://127.0.0.1:{dead_port()}"])).get().status == 503


@pytest.fixture(scope="module")
def site(serve):
    with EchoOrigin("app1") as one, EchoOrigin("app2") as two:
        front = serve(cluster([one.url, two.url]))
        front.origins = [one, two]
        yield front


@pytest.mark.parametrize("target", ["/balancer-manager", "/balancer-manager/"])
def test_the_manager_answers_the_allowed_address(site, target):
    reply = site.get(target)
    if reply.status in (301, 302, 307, 308):
        reply = site.get(reply.header("Location"))
    assert reply.status == 200
    for origin in site.origins:
        assert origin.url in reply.text


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(
    "target", ["/balancer-manager", "/balancer-manager/", "/balancer-manager/x?y", "//balancer-manager"]
)
def test_the_manager_refuses_every_other_address(site, method, target):
    claimed = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    reply = site.get(target, method=method, source="127.0.0.2", headers=claimed, body=b"" if method == "POST" else None)
    assert reply.status == 403
    assert "127.0.0.1:" not in reply.text


def test_other_addresses_reach_the_cluster_and_no_member_sees_the_manager(site):
    assert site.get("/balancer-managerX", source="127.0.0.2").status == 200
    targets = [request.target for origin in site.origins for request in origin.requests]
    assert "/balancer-managerX" in targets
    assert not [target for target in targets if target.rstrip("/").endswith("balancer-manager")]
