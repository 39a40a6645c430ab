"""Every URL of the demo and what must come back: what ``python3 -m demo check`` asks, and a test of ours."""

from __future__ import annotations

import collections
import http.client
from dataclasses import dataclass

STATIC, MEDIA, WIKI, APP = (
    "static.ducklington.org",
    "media.ducklington.org",
    "application.ducklington.org",
    "app.ducklington.org",
)


@dataclass(frozen=True)
class Stop:
    """One request: `origin` must answer it (None: the front itself), having received `arrived` as its target."""

    case: str
    target: str
    origin: str | None = None
    arrived: str | None = None
    status: int = 200
    host: str = ""
    method: str = "GET"
    body: bytes | None = None
    contains: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def url(self, port: int) -> str:
        """What to type into a browser: ``*.localhost`` is this machine there, and in curl."""
        host = self.host.replace("ducklington.org", "localhost") or "127.0.0.1"
        return f"http://{host}:{port}{self.target}"


TOUR = (
    Stop("front", "/", contains="<h1>"),
    Stop("1", "/screen.css", host=STATIC, contains="body {"),
    Stop("1", "/", host="ducklington.org", contains="<h1>"),
    Stop("1", "/", host="www.ducklington.org", contains="<h1>"),
    Stop("2", "/static/screen.css", STATIC, "/screen.css"),
    Stop("2", "/media/duck.svg", MEDIA, "/duck.svg"),
    Stop("2", "/wiki/", WIKI, "/"),
    Stop("2", "/wiki/a", WIKI, "/a"),
    Stop("2", "/wiki/static/a", contains="never proxied"),
    Stop("2", "/wiki/a", WIKI, "/a", 303, method="POST", body=b"quack", headers=(("Location", "/wiki/a"),)),
    Stop("2", "/static", status=404, host="case2.ducklington.org"),
    Stop("3", "/blog/index.php", APP, "/blog/index.php"),
    Stop("3", "/blog/login.php", APP, "/blog/login.php", 302, headers=(("Location", "/blog/index.php"),)),
    Stop("3", "/blog/js/functions.js", STATIC, "/javascript/blog/js/functions.js", host="case3.ducklington.org"),
    Stop("3", "/wordpress/style.css", STATIC, "/styles/wordpress/style.css", host="case3.ducklington.org"),
    Stop("3", "/blog/index.php", APP, "/wordpress/index.php", host="case3.ducklington.org"),
    Stop("3", "/wiki/info/about.html", APP, "/mediawiki/info/about.html", host="case3.ducklington.org"),
    Stop("3", "/blog/", status=404, host="case3.ducklington.org"),
    Stop("4", "/anything-not-on-disk?a=b", APP, "/anything-not-on-disk?a=b"),
    Stop("4", "/wiki/static/a", host="case4.ducklington.org", contains="never proxied"),
    Stop(
        "4",
        "/form?a=b",
        APP,
        "/form?a=b",
        host="case4.ducklington.org",
        method="POST",
        body=b"x" * 999,
        contains="999 bytes",
    ),
    Stop("5", "/cluster/", "app", "/"),
    Stop("5", "/any/page", "app", "/any/page", host="case5.ducklington.org"),
    Stop("5", "/balancer-manager/", contains="cluster"),
)


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(port: int, stop: Stop) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(stop.method, stop.target, stop.body, {"Host": stop.host} if stop.host else {})
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def wrong(stop: Stop, reply: Reply) -> str:
    """What is wrong with the reply, in a few words; nothing: empty."""
    origin = reply.headers["X-Origin"]
    if reply.status != stop.status:
        return f"status {reply.status}, not {stop.status}"
    if origin != stop.origin and not (stop.origin == "app" and (origin or "")[:3] == "app"):
        return f"answered by {origin or 'the front'}, not by {stop.origin or 'the front'}"
    if reply.headers["X-Origin-Target"] != stop.arrived:
        return f"{origin} was asked for {reply.headers['X-Origin-Target']}, not for {stop.arrived}"
    for name, value in stop.headers:
        if reply.headers[name] != value:
            return f"{name} is {reply.headers[name]!r}, not {value!r}"
    if stop.contains not in reply.body.decode("latin-1"):
        return f"{stop.contains!r} is not in the page"
    return ""


def check(port: int) -> list[str]:
    """Ask every URL of the tour, print a line for each, and give back what is wrong."""
    problems = []
    for stop in TOUR:
        try:
            problem = wrong(stop, ask(port, stop))
        except OSError as error:
            problem = f"no answer: {error}"
        told = f"{stop.origin or 'the front'} answers" + (f", asked for {stop.arrived}" if stop.arrived else "")
        print(f"{'WRONG' if problem else 'ok':5} {stop.case:5} {stop.method:4} {stop.url(port)}")
        print(f"{'':17}{problem or told}")
        if problem:
            problems.append(f"{stop.method} {stop.url(port)}: {problem}")
    print(f"{len(TOUR) - len(problems)} of {len(TOUR)} as they should be.")
    return problems


def load(port: int, requests: int) -> collections.Counter[str]:
    """Send `requests` to the cluster and count who answered; a status other than 200 counts as itself."""
    shares: collections.Counter[str] = collections.Counter()
    for _ in range(requests):
        reply = ask(port, Stop("5", "/cluster/"))
        shares[reply.headers["X-Origin"] or "?" if reply.status == 200 else f"status {reply.status}"] += 1
    return shares
