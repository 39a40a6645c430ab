"""PasteDeploy: sections become middlewares, and a wrong option is named."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from proxymw import BalancerPool, ConfigError, IPAllowlist, PrefixProxy, StaticOrPass, paste
from proxymw.testing import ScriptedTransport
from tests.docs.snippets import entry_points
from tests.wsgi.calling import call

APP = "http://app.ducklington.org/"


def test_every_entry_point_is_there() -> None:
    points = entry_points()
    assert len(points) == 10
    for kind, name, factory in points:
        module, _, attribute = factory.partition(":")
        assert callable(getattr(import_module(module), attribute)), (kind, name)


def behind(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["REMOTE_ADDR"].encode()]


def test_filters(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("body {}")
    app: Any = paste.prefix({}, rules="\n/wiki/static/ !\n/wiki/ http://application.ducklington.org/\n")(behind)
    app = paste.static({}, root=str(tmp_path), index="index.html, index.htm", precompressed="yes", max_age="60")(app)
    app = paste.accesslog({}, log=str(tmp_path / "log"), format="common")(app)
    app = paste.allow({}, allow="10.0.0.0/8 127.0.0.1")(app)
    app = paste.clientaddress({}, trusted="127.0.0.1", proto="X-Forwarded-Proto")(app)
    assert call(app, "/wiki/static/x", HTTP_X_FORWARDED_FOR="10.1.2.3").body == b"10.1.2.3"
    assert call(app, "/a.css")["Cache-Control"] == "max-age=60, public"
    assert call(app, "/a.css", HTTP_X_FORWARDED_FOR="81.2.69.142").code == 403
    with ScriptedTransport():
        assert call(app, "/wiki/x").body == b"GET http://application.ducklington.org/x"
    assert (tmp_path / "log").read_text().count("\n") == 3


def test_rewrite() -> None:
    app: Any = paste.rewrite({}, rules=r"^/blog/(.*)\.php$ http://app.ducklington.org/wordpress/$1.php")(behind)
    with ScriptedTransport():
        assert call(app, "/blog/a.php").body == b"GET http://app.ducklington.org/wordpress/a.php"


class Loader:
    """PasteDeploy's, as far as composites use it."""

    def __init__(self, **apps: Any) -> None:
        self.apps = apps

    def get_app(self, name: str, global_conf: Any = None) -> Any:
        return self.apps[name]()


def test_routes_pool_and_manager() -> None:
    lines = (
        "http://app1.ducklington.org loadfactor=3 route=a\nhttp://app2.ducklington.org lbset=1 status=+H timeout=5\n"
    )
    conf = {"__file__": "site.ini"}
    section = {"name": "cluster", "method": "bybusyness", "sticky": "JSESSIONID", "members": lines}
    loader = Loader(cluster=lambda: paste.pool(conf, **section), site=lambda: behind)
    loader.apps["manager"] = lambda: paste.manager(loader, conf, pools="cluster", allow="127.0.0.1", read_only="true")
    app = paste.routes(
        loader, conf, **{"/manager": "manager", "/app/": "cluster", "/b/": APP, "app": "site", "first_byte": "30"}
    )
    assert isinstance(app, PrefixProxy)
    with ScriptedTransport() as origins:
        assert call(app, "/app/x").body == b"GET http://app1.ducklington.org/x"
        assert call(app, "/b/x").body == b"GET http://app.ducklington.org/x"
    assert origins.sent[1].limits is not None
    assert origins.sent[1].limits.first_byte == 30
    assert call(app, "/other").body == b"127.0.0.1"
    page = call(app, "/manager/", HTTP_HOST="127.0.0.1")
    assert page.code == 200
    assert b"app2" in page.body
    pool = paste.pool(conf, **section)
    assert isinstance(pool, BalancerPool)
    assert pool.snapshot().members[0].requests == 1, "the section that is named twice is one pool"
    assert [(m.loadfactor, m.route, m.lbset, m.timeout) for m in pool.members] == [(3, "a", 0, None), (1, "", 1, 5)]


def test_apache(tmp_path: Path) -> None:
    (tmp_path / "site.conf").write_text("KeepAlive On\nProxyPass /wiki/ http://application.ducklington.org/\n")
    app = paste.apache({}, file=str(tmp_path / "site.conf"), lenient="on")
    with ScriptedTransport():
        assert Client(app).get("/wiki/x").text == "GET http://application.ducklington.org/x"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: paste.prefix({}), "option rules must be given, known are rules, connect, "),
        (
            lambda: paste.prefix({}, rules=f"/ {APP}", timeout="3"),
            "option timeout is unknown, known are rules, connect, ",
        ),
        (lambda: paste.prefix({}, rules=f"/ {APP}", total="soon"), "option total: must be a number, got 'soon'"),
        (lambda: paste.prefix({}, rules="/wiki/"), "option rules: must be lines of two words each, got '/wiki/'"),
        (
            lambda: paste.prefix({}, rules=f"/ {APP}", preserve_host="maybe"),
            "option preserve_host: must be true or false, got 'maybe'",
        ),
        (
            lambda: paste.prefix({}, rules=f"/ {APP}", policy="old"),
            "option policy: must be modern or apache, got 'old'",
        ),
        (lambda: paste.static({}, root="/", max_age="-1"), "option max_age: must be a whole number, got '-1'"),
        (lambda: paste.pool({}, name="a"), "option members must be given, known are name, members, "),
        (
            lambda: paste.pool({}, name="a", members="http://a weight=3"),
            "option members: must have parameters of route, redirect, status, name, loadfactor, ",
        ),
        (
            lambda: paste.pool({}, name="a", members="http://a loadfactor=0"),
            "option members: member loadfactor must be a number between 1 and 100, got 0.0",
        ),
    ],
)
def test_wrong_options_are_named(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(sentence)


def test_kinds() -> None:
    assert isinstance(paste.static({}, root="/")(behind), StaticOrPass)
    assert isinstance(paste.allow({}, allow="all")(behind), IPAllowlist)
