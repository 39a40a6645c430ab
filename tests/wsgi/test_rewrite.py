"""RewriteProxy over real origins: what is sent, what goes on changed, and what is answered here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxymw import PrefixProxy, RewriteCond, RewriteProxy, RewriteRule
from proxymw.errors import ConfigError
from proxymw.exchange.forwarder import SingleOrigin
from proxymw.exchange.transport import Transport
from proxymw.rewrite import file_test
from proxymw.rules.origins import Origin
from proxymw.rules.policy import Policy
from proxymw.rules.rewriting import Local, NoMatch, Proxy, Step
from tests.client import call, environ, run
from tests.origins import Answer, EchoOrigin

APACHE = Policy.apache()
Start = Callable[..., EchoOrigin]


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def behind(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-By", "behind"), ("Content-Type", "text/plain")])
    return [f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}".encode("latin-1")]


def asked(app: Any, target: str, **options: Any) -> str:
    reply = call(app, target, **options)
    if reply.header("X-By") or reply.status != 200:
        return f"{reply.status} {reply.header('Location') or reply.text.strip()}"
    return f"{reply.json()['origin']} {reply.json()['target']}"


def test_the_guides_third_case(echo: Start, transport: Transport) -> None:
    static, app = echo("static"), echo("app")
    front = RewriteProxy(
        behind,
        [
            (r"^/(.*)\.js$", f"{static.url}/javascript/$1.js"),
            (r"^/(.*)\.css$", f"{static.url}/styles/$1.css"),
            (r"^/(.*)\.jpg$", f"{static.url}/images/$1.jpg"),
            (r"^/blog/(.*)\.php$", f"{app.url}/wordpress/$1.php"),
            (r"^/wiki/(.*)$", f"{app.url}/mediawiki/$1"),
        ],
        transport=transport,
    )
    for target, want in [
        ("/blog/js/functions.js", "static /javascript/blog/js/functions.js"),
        ("/wordpress/style.css", "static /styles/wordpress/style.css"),
        ("/blog/index.php", "app /wordpress/index.php"),
        ("/blog/index.php?a=%2F", "app /wordpress/index.php?a=%2F"),
        ("/wiki/info/about.html", "app /mediawiki/info/about.html"),
        ("/blog/", "200 /blog/?"),
        ("/wiki/a%3Fb", "403 403 Forbidden"),
        ("/wiki/a%23b%2Fc", "app /mediawiki/a%23b%2Fc"),
        ("/wiki/x%0d%0ay", "400 400 Bad Request"),
    ]:
        assert asked(front, target) == want, target


def test_a_query_conditions_and_flags_together(echo: Start, transport: Transport) -> None:
    app = echo("app")
    rule = RewriteRule(
        r"^/old/(.*)$",
        f"{app.url}/new/$1?from=old",
        flags="NC,QSA",
        conditions=[RewriteCond("%{HTTP_HOST}", r"^www\.", flags="NC")],
    )
    front = RewriteProxy(behind, [rule], transport=transport)
    assert asked(front, "/OLD/a?b=c", host="WWW.example.com") == "app /new/a?from=old&b=c"
    assert asked(front, "/old/a?b=c", host="example.com") == "200 /old/a?b=c"


def test_the_guides_fourth_case_on_a_disk(echo: Start, transport: Transport, tmp_path: Path) -> None:
    app = echo("app")
    (tmp_path / "hello.txt").write_text("hello")
    (tmp_path / "with space.txt").write_text("")
    (tmp_path / "dir").mkdir()
    (tmp_path.parent / "outside.txt").write_text("x")
    rule = RewriteRule("^/(.*)$", f"{app.url}/$1", "[proxy]", [RewriteCond(f"{tmp_path}%{{REQUEST_FILENAME}}", "!-f")])
    for front in (
        RewriteProxy(behind, [rule], transport=transport),
        RewriteProxy(
            behind,
            [RewriteRule("^/(.*)$", f"{app.url}/$1", "", [RewriteCond("%{DOCUMENT_ROOT}%{REQUEST_URI}", "!-f")])],
            document_root=tmp_path,
            transport=transport,
        ),
    ):
        assert asked(front, "/hello.txt") == "200 /hello.txt?"
        assert asked(front, "/with%20space.txt") == "200 /with space.txt?"
        assert asked(front, "/missing?q") == "app /missing?q"
        assert asked(front, "/dir") == "app /dir"
        assert asked(front, "/") == "app /"
        assert asked(front, "/x/../hello.txt") == "200 /x/../hello.txt?"
    assert call(front, "/form", method="POST", body=b"a=b").json()["length"] == 3


def test_the_file_test_names_nothing_outside(tmp_path: Path) -> None:
    file, empty = tmp_path / "f", tmp_path / "e"
    file.write_text("x")
    empty.write_text("")
    os.symlink(file, tmp_path / "link")
    os.symlink("nowhere", tmp_path / "broken")
    os.mkfifo(tmp_path / "pipe")
    root = str(tmp_path)
    for kind, name, want in [
        ("f", "f", True),
        ("f", "link", True),
        ("f", "broken", False),
        ("f", "pipe", False),
        ("f", "", False),
        ("d", "", True),
        ("s", "f", True),
        ("s", "e", False),
        ("l", "link", True),
        ("l", "broken", True),
        ("l", "f", False),
        ("x", "", True),
        ("x", "f", False),
        ("f", "../" + tmp_path.name + "/f", False),
        ("f", "f\0", False),
        ("f", "x\\f", False),
        ("U", "f", False),
        ("f", "n" * 5000, False),
        ("f", "f/x", False),
        ("f", "\u20ac", False),
    ]:
        assert file_test(kind, f"{root}/{name}") is want, (kind, name)
    assert not file_test("f", "f")


def test_a_local_target_goes_on_with_the_clients_spelling(echo: Start, transport: Transport) -> None:
    up = echo("up")
    inner = PrefixProxy(behind, [("/new/", f"{up.url}/")], transport=transport)
    front = RewriteProxy(
        inner,
        [("^/old/(.*)$", "/new/$1"), ("^/q/(.*)$", "/other/$1?x=1"), ("^/up/(.*)$", "/../$1")],
        transport=transport,
    )
    assert asked(front, "/old/a%2Fb%7e?c=d") == "up /a%2Fb%7e?c=d"
    assert asked(front, "/q/a%20b?c=d") == "200 /other/a b?x=1"
    assert asked(front, "/up/x") == "400 400 Bad Request"
    assert asked(front, "/plain?c") == "200 /plain?c"


def test_a_local_target_without_passthrough_can_have_its_own_answer() -> None:
    def local(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-By", "local")])
        return [environ["PATH_INFO"].encode()]

    front = RewriteProxy(
        behind,
        [
            ("^/a$", "/x"),
            ("^/b$", "/x"),
            RewriteRule("^/c$", "/x", "PT"),
        ],
        local=local,
    )
    assert call(front, "/a").header("X-By") == "local"
    assert call(front, "/c").header("X-By") == "behind"
    assert call(front, "/d").header("X-By") == "behind"


@pytest.mark.parametrize(("policy", "public"), [(Policy.modern(), ""), (APACHE, "http://ducklington.org")])
def test_redirects_know_the_mount_point(policy: Policy, public: str) -> None:
    front = RewriteProxy(None, [RewriteRule("^/a/(.*)$", "/b/$1?x", "R=301,L")], policy=policy)
    reply = call(front, "/a/c%20d", script_name="/site", host="Ducklington.org:80")
    assert (reply.status, reply.header("Location")) == (301, f"{public}/site/b/c%20d?x")
    assert b"/b/" not in reply.body


def test_https_redirects_are_possible() -> None:
    rule = RewriteRule("^", "https://%{HTTP_HOST}%{REQUEST_URI}", "R=301,L", [RewriteCond("%{HTTPS}", "off")])
    front = RewriteProxy(behind, [rule])
    assert call(front, "/a%20b?c").header("Location") == "https://ducklington.org/a%20b?c"
    assert call(front, "/a", **{"wsgi.url_scheme": "https"}).header("X-By") == "behind"


def test_statuses_name_nothing_of_the_request() -> None:
    front = RewriteProxy(
        None, [RewriteRule("^/f", "-", "F"), RewriteRule("^/g", "-", "G"), RewriteRule("^/t", "-", "R=418")]
    )
    for target, status in (("/f<x>", 403), ("/g", 410), ("/t", 418), ("/", 404)):
        reply = call(front, target)
        assert reply.status == status
        assert b"<" not in reply.body
    assert call(front, "/f", method="HEAD").body == b""


class Pool:
    def __init__(self, url: str, name: str = "Cluster") -> None:
        self.name = name
        self.origin = SingleOrigin(Origin.parse(url))

    def lease(self, environ: dict[str, Any], tried: tuple[Any, ...]) -> Any:
        return self.origin.lease(environ, tried)


def test_pools(echo: Start, transport: Transport) -> None:
    up = echo("up")
    pool = Pool(up.url)
    front = RewriteProxy(
        None,
        [("^/one/(.*)$", pool), ("^/two/", pool), ("^/lb/(.*)$", "balancer://cluster/deep/$1")],
        balancers=[pool],
        transport=transport,
    )
    assert asked(front, "/one/a%2Fb?c") == "up /a%2Fb?c"
    assert asked(front, "/two/a%7e") == "up /two/a%7e"
    assert asked(front, "/lb/x") == "up /deep/x"
    with pytest.raises(ConfigError, match=r"target of rule 1 must name one of balancers \(none\)"):
        RewriteProxy(None, [("^/lb/(.*)$", "balancer://cluster/$1")])


def test_locations_of_plain_rules_come_back(echo: Start, transport: Transport) -> None:
    up = echo("up")
    up.answer = lambda request: Answer(
        302, headers=[("Location", f"{up.url}/mediawiki/x"), ("Set-Cookie", "a=b; Path=/inner/")]
    )
    rules = [("^/wiki/(.*)$", f"{up.url}/mediawiki/$1")]
    assert call(RewriteProxy(None, rules, transport=transport), "/wiki/").header("Location") == "/wiki/x"
    told = RewriteProxy(
        None,
        [RewriteRule(*rules[0], "P")],
        policy=APACHE,
        reverse=[("/r/", f"{up.url}/")],
        cookie_paths=[("/inner/", "/r/")],
        transport=transport,
    )
    reply = call(told, "/wiki/")
    assert reply.header("Location") == "http://ducklington.org/r/mediawiki/x"
    assert reply.header("Set-Cookie") == "a=b; Path=/r/"


def test_environment_cookies_types_and_vary() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return behind(environ, start_response)

    front = RewriteProxy(
        app,
        [
            RewriteRule("^/(.*)$", "-", "E=PART:$1,E=PATH_INFO:/evil,E=HTTP_X:1,E=!GONE"),
            RewriteRule("^/co", "-", "CO=seen:yes:example.com:60:/:secure:httponly:lax"),
            RewriteRule("^/bad", "-", "CO=a b:x:y"),
            RewriteRule("^/type", "/typed", "T=text/x-test"),
            RewriteRule("^/vary", "/varied", "", [RewriteCond("%{HTTP_USER_AGENT}", "x")]),
        ],
    )
    call(front, "/part", GONE="1")
    assert seen[0]["PART"] == "part"
    assert seen[0]["PATH_INFO"] == "/part"
    assert "HTTP_X" not in seen[0]
    assert "GONE" not in seen[0]
    cookie = call(front, "/co").header("Set-Cookie") or ""
    assert cookie.startswith("seen=yes; path=/; domain=example.com; expires=")
    assert cookie.endswith("GMT; secure; HttpOnly; SameSite=lax")
    assert call(front, "/bad").header("Set-Cookie") is None
    assert call(front, "/type").header("Content-Type") == "text/x-test"
    assert call(front, "/vary", headers={"User-Agent": "x"}).header("Vary") == "User-Agent"
    assert call(front, "/vary").header("Vary") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/site/v"),
        ("REQUEST_FILENAME", "/v"),
        ("QUERY_STRING", "a=b"),
        ("HTTP_HOST", "WWW.Example.com:81"),
        ("SERVER_NAME", "www.example.com"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("HTTPS", "off"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_HOST", "127.0.0.1"),
        ("CONN_REMOTE_ADDR", "127.0.0.1"),
        ("IPV6", "off"),
        ("IS_SUBREQ", "false"),
        ("DOCUMENT_ROOT", "/srv/www"),
        ("THE_REQUEST", "GET /site/v?a=b HTTP/1.1"),
        ("HTTP:x-thing", "thing"),
        ("HTTP:Content-Type", "text/x"),
        ("HTTP:Missing", ""),
        ("ENV:MYVAR", "mine"),
        ("ENV:HTTP_X_THING", ""),
        ("SSL:HTTPS", ""),
        ("LA-U:REQUEST_METHOD", "GET"),
        ("HTTP_X_THING", ""),
        ("NOSUCHVAR", ""),
    ],
)
def test_variables(name: str, value: str) -> None:
    front = RewriteProxy(
        behind, [RewriteRule("^/v$", "/x", "", [RewriteCond(f"%{{{name}}}", f"={value}")])], document_root="/srv/www"
    )
    headers = {"X-Thing": "thing", "Content-Type": "text/x"}
    reply = call(front, "/v?a=b", headers=headers, host="WWW.Example.com:81", script_name="/site", MYVAR="mine")
    assert reply.text == "/x?a=b"


def test_times() -> None:
    patterns = [("TIME", r"^\d{14}$"), ("TIME_WDAY", "^[0-6]$"), ("TIME_YEAR", r"^\d{4}$"), ("TIME_SEC", r"^\d\d$")]
    conditions = [RewriteCond(f"%{{{name}}}", pattern) for name, pattern in patterns]
    assert call(RewriteProxy(behind, [RewriteRule("^/v$", "/x", "", conditions)]), "/v").text == "/x?"


def test_what_matches_nothing_passes_as_it_came() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return behind(environ, start_response)

    request = environ("/a//./b?", body=b"x")
    before = dict(request)
    run(RewriteProxy(app, [("^/x", "http://h/")]), request)
    assert seen[0] is request
    assert {key: value for key, value in request.items() if not key.startswith("proxymw.")} == before


def test_the_decision_is_a_plain_method() -> None:
    front = RewriteProxy(None, [("^/a/(.*)$", "http://h/$1"), ("^/b$", "/c")])
    trace: list[Step] = []
    decision = front.rewrite(environ("/a/x"), trace)
    assert isinstance(decision, Proxy)
    assert (decision.target, decision.rule) == ("/x", front.rules[0])
    assert isinstance(front.rewrite(environ("/b")), Local)
    assert isinstance(front.rewrite(environ("/none")), NoMatch)
    assert trace[0].applied
    assert repr(front) == "<RewriteProxy: 2 rules>"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("^/x", "rules must be a list"),
        (RewriteRule("^/", "/x"), "rules must be a list"),
        (("^/x", "http://h/"), r"rule 1 must be a pair \(pattern, target\)"),
        ([("^/x",)], "rule 1 must be a pair"),
        ([("^/ok", "/ok"), ("(", "/x")], "rule 2: pattern must be a regular expression"),
        ([("^/(.*)$", "http://$1/")], "rule 1: target must have a literal host"),
    ],
)
def test_rules_that_cannot_be_meant(rules: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewriteProxy(None, rules)
