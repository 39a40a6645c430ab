"""A manager over pools with invented traffic: what the browser tests look at and the screenshots show.

Run it under gunicorn as ``tests.browser.showcase:app``; every worker plays its part of the traffic in the one table.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any

from proxymw import BalancerManagerApp, BalancerPool, IPAllowlist, Member, PrefixProxy
from proxymw.errors import ConnectRefused, FirstByteTimeout
from proxymw.explain import explain

#: Seconds before the broken member breaks.
CALM = float(os.environ.get("SHOWCASE_CALM", "20"))
STATE = os.environ.get("SHOWCASE_STATE", "/dev/shm/proxymw-showcase")
cluster = BalancerPool(
    [
        Member("http://127.0.0.1:9001", route="app1", loadfactor=3),
        Member("http://127.0.0.1:9002", route="app2"),
        Member("http://127.0.0.1:9003", route="app3"),
        Member("http://127.0.0.1:9004", route="app4", lbset=1, status="H"),
        Member("http://127.0.0.1:9005", route="app5", retry=45),
    ],
    name="cluster",
    sticky="ROUTEID",
    state=f"{STATE}-cluster",
)
media = BalancerPool(
    [Member("http://10.0.0.1:8080", limit=64), Member("http://10.0.0.2:8080", limit=64)],
    name="media",
    method="bybusyness",
    state=f"{STATE}-media",
)
manager = BalancerManagerApp(
    [cluster, media],
    member_networks=["10.0.0.0/8", "127.0.0.1"],
    explain=lambda url: explain(front, "GET", url, client="127.0.0.1").text(),
)
front = PrefixProxy(
    None, [("/balancer-manager", IPAllowlist(manager, allow=["127.0.0.1"])), ("/app/", cluster), ("/media/", media)]
)


def play(pool: BalancerPool, pace: float, slow: float, broken: str, hours: random.Random) -> None:
    """Requests that come at ``pace`` a second and take ``slow`` seconds; ``broken`` refuses them for a while."""
    held: list[tuple[float, Any, int, float]] = []
    began = time.monotonic()
    while True:
        now = time.monotonic()
        wave = 1 + 0.4 * ((now - began) % 60 / 30 - 1) ** 2
        try:
            lease = pool.lease({})
        except Exception:
            time.sleep(0.5)
            continue
        if lease.name == broken and (now - began) % 240 > CALM:
            lease.finish(ConnectRefused("refused"), seconds=0.001)
        else:
            took = hours.lognormvariate(0, 0.6) * slow
            status = hours.choices((200, 304, 404, 500), (900, 60, 30, 3))[0]
            held.append((now + took, lease, status, took))
        for entry in [entry for entry in held if entry[0] <= now]:
            held.remove(entry)
            _, lease, status, took = entry
            error = FirstByteTimeout("silent") if hours.random() < 0.0005 else None
            size = hours.randint(500, 60_000)
            lease.finish(error, status=0 if error else status, sent=600, received=size, seconds=took)
        time.sleep(hours.expovariate(pace * wave))


def start() -> None:
    """The traffic of this worker."""
    chance = random.Random(os.getpid())
    for pool, pace, slow, broken in ((cluster, 40, 0.02, "http://127.0.0.1:9005"), (media, 12, 0.08, "")):
        threading.Thread(target=play, args=(pool, pace, slow, broken, chance), daemon=True).start()


_begun: set[int] = set()


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """The front; with ``SHOWCASE_TRAFFIC`` set, traffic begins with the first request of a worker."""
    if os.environ.get("SHOWCASE_TRAFFIC") and os.getpid() not in _begun:
        _begun.add(os.getpid())
        start()
    return front(environ, start_response)
