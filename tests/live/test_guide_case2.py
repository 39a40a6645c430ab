"""Case two: the guide's four ProxyPass lines, in the guide's order."""

from __future__ import annotations

import pytest

from tests.live.conftest import reached

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def site(serve, hosts, docroot):
    return serve(f"""
        from proxymw import PrefixProxy, StaticOrPass

        app = PrefixProxy(StaticOrPass(None, {str(docroot)!r}), [
            ("/static/", "{hosts("static")}/"),
            ("/media", "{hosts("media")}"),
            ("/wiki/static/", "!"),
            ("/wiki/", "{hosts("application")}/"),
        ])
    """)


@pytest.mark.parametrize(
    ("target", "origin", "arrived"),
    [
        ("/static/screen.css", "static", "/screen.css"),
        ("/static/", "static", "/"),
        ("/static/a%2Fb?c=d%20e", "static", "/a%2Fb?c=d%20e"),
        ("/media", "media", "/"),
        ("/media/", "media", "/"),
        ("/media/x", "media", "/x"),
        ("/media?x", "media", "/?x"),
        ("/wiki/", "application", "/"),
        ("/wiki/a", "application", "/a"),
        ("/wiki/a/b/?c", "application", "/a/b/?c"),
        ("/wiki/staticx", "application", "/staticx"),
        ("/wiki/static", "application", "/static"),
    ],
)
def test_delegated_to_another_machine(site, target, origin, arrived):
    assert reached(site.get(target)) == (origin, arrived)


@pytest.mark.parametrize("target", ["/static", "/mediaX", "/wiki", "/Static/screen.css", "/other"])
def test_not_passed_to_another_machine(site, target):
    assert site.get(target).status == 404


@pytest.mark.parametrize("target", ["/wiki/static/a", "/wiki/x/../static/a", "/wiki/%73tatic/a", "/wiki//static/a"])
def test_the_exclusion_is_served_locally_however_it_is_spelled(site, target):
    assert reached(site.get(target)) == ("local", "served locally")


def test_an_exclusion_after_the_rule_can_never_apply(hosts):
    from proxymw import PrefixProxy
    from proxymw.errors import ConfigWarning

    with pytest.warns(ConfigWarning, match="can never apply"):
        PrefixProxy(None, [("/wiki/", "http://127.0.0.1:9103/"), ("/wiki/static/", "!")])


def test_what_the_origin_is_told(site):
    reply = site.get(
        "/wiki/a", host="ducklington.org", headers=[("X-A", "1"), ("Connection", "close, X-B"), ("X-B", "2")]
    )
    headers = {name.lower(): value for name, value in reply.json()["headers"]}
    assert headers["x-a"] == "1"
    assert "x-b" not in headers
    assert headers["host"].startswith("127.0.0.1:")
    assert (headers["x-forwarded-for"], headers["x-forwarded-host"]) == ("127.0.0.1", "ducklington.org")
    assert (headers["x-forwarded-proto"], headers["via"]) == ("http", "1.1 proxymw")
