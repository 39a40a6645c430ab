"""One front with everything in it, as the documentation shows it, on real servers."""

from __future__ import annotations

import textwrap

import pytest

from tests.live.conftest import reached

pytestmark = pytest.mark.live

EXAMPLE = r"""
from proxymw import (AccessLog, BalancerManagerApp, BalancerPool, IPAllowlist, Member,
                     PrefixProxy, RewriteCond, RewriteProxy, RewriteRule, StaticOrPass, VirtualHosts)

cluster = BalancerPool(
    [Member("http://127.0.0.1:9001", loadfactor=3), "http://127.0.0.1:9002"],
    name="cluster", method="byrequests",
)
manager = IPAllowlist(BalancerManagerApp([cluster]), allow=["127.0.0.1", "192.168.1.233"])

main = StaticOrPass(None, "/srv/www/main")
main = PrefixProxy(main, [
    ("/balancer-manager", manager),                  # a WSGI app: mounted, SCRIPT_NAME moved
    ("/static/", "http://127.0.0.1:9101/"),
    ("/media", "http://127.0.0.1:9102"),
    ("/wiki/static/", "!"),
    ("/wiki/", "http://127.0.0.1:9103/"),
    ("/cluster/", cluster),                          # as balancer://cluster/
])
main = RewriteProxy(main, [
    (r"^/blog/(.*)\.php$", "http://127.0.0.1:9104/blog/$1.php"),
    RewriteRule(r"^/old/(.*)$", "http://127.0.0.1:9104/new/$1?from=old", flags="NC,QSA",
                conditions=[RewriteCond("%{HTTP_HOST}", r"^www\.", flags="NC")]),
])
app = VirtualHosts(
    {("ducklington.org", "www.ducklington.org"): AccessLog(main, "logs/access.log"),
     "static.ducklington.org": StaticOrPass(None, "/srv/www/static", index=("index.html",))},
    default=main,
)
"""


@pytest.fixture(scope="module")
def site(serve, hosts, tmp_path_factory):
    home = tmp_path_factory.mktemp("srv")
    for name, text in [
        ("main/page.txt", "main"),
        ("static/index.html", "static"),
        ("main/wiki/static/a", "local wiki"),
    ]:
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (home / "logs").mkdir()
    source = EXAMPLE.replace("/srv/www", str(home))
    for port in ("9001", "9002", "9101", "9102", "9103", "9104"):
        source = source.replace(f"http://127.0.0.1:{port}", hosts(port))
    front = serve(textwrap.dedent(source), cwd=home)
    front.home = home
    return front


@pytest.mark.parametrize(
    ("host", "target", "expected"),
    [
        ("ducklington.org", "/page.txt", ("local", "main")),
        ("static.ducklington.org", "/", ("local", "static")),
        ("other.example", "/page.txt", ("local", "main")),
        ("ducklington.org", "/static/screen.css", ("9101", "/screen.css")),
        ("ducklington.org", "/media/x", ("9102", "/x")),
        ("ducklington.org", "/wiki/static/a", ("local", "local wiki")),
        ("ducklington.org", "/wiki/a", ("9103", "/a")),
        ("ducklington.org", "/blog/index.php?a=b", ("9104", "/blog/index.php?a=b")),
        ("WWW.ducklington.org", "/OLD/page?x=1", ("9104", "/new/page?from=old&x=1")),
    ],
)
def test_the_front_of_the_documentation(site, host, target, expected):
    assert reached(site.get(target, host=host)) == expected


def test_a_condition_that_does_not_hold(site):
    assert site.get("/old/page", host="ducklington.org").status == 404


def test_the_cluster_below_its_prefix(site):
    replies = [site.get("/cluster/x").json() for _ in range(8)]
    assert [reply["origin"] for reply in replies].count("9001") == 6
    assert {reply["target"] for reply in replies} == {"/x"}


def test_the_manager_of_the_cluster(site):
    assert "cluster" in site.get("/balancer-manager/", host="ducklington.org").text
    assert site.get("/balancer-manager/", host="ducklington.org", source="127.0.0.2").status == 403
