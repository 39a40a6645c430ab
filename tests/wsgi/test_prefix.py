"""PrefixProxy: what reaches which origin under which path, what passes, and what a constructor refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxymw import PrefixProxy, ProxyRule
from proxymw.errors import ConfigError, ConfigWarning
from proxymw.exchange.forwarder import SingleOrigin
from proxymw.exchange.transport import Transport
from proxymw.rules.origins import Origin
from proxymw.rules.policy import Policy
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
    """The application behind: it says which path it got."""
    start_response("200 OK", [("X-By", "behind")])
    return [f"{environ.get('SCRIPT_NAME', '')}|{environ['PATH_INFO']}".encode("latin-1")]


def asked(app: Any, target: str, **options: Any) -> str:
    """``origin target`` of what an origin got, or the status and page of any other answer."""
    reply = call(app, target, **options)
    if reply.header("X-By") or reply.status != 200:
        return f"{reply.status} {reply.text.strip()}"
    return f"{reply.json()['origin']} {reply.json()['target']}"


def quiet(*args: Any, **options: Any) -> PrefixProxy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        return PrefixProxy(*args, **options)


def test_the_guides_second_case(echo: Start, transport: Transport) -> None:
    static, media, wiki = echo("static"), echo("media"), echo("wiki")
    app = PrefixProxy(
        behind,
        [
            ("/static/", f"{static.url}/"),
            ("/media", media.url),
            ("/wiki/static/", "!"),
            ("/wiki/", f"{wiki.url}/"),
        ],
        transport=transport,
    )
    for target, want in [
        ("/static/screen.css", "static /screen.css"),
        ("/static/", "static /"),
        ("/static", "200 |/static"),
        ("/staticx", "200 |/staticx"),
        ("/media/x", "media /x"),
        ("/media", "media /"),
        ("/media/", "media /"),
        ("/mediaX", "200 |/mediaX"),
        ("/wiki/static/a", "200 |/wiki/static/a"),
        ("/wiki/static", "wiki /static"),
        ("/wiki/a", "wiki /a"),
        ("/wiki/a?b=%2F&c", "wiki /a?b=%2F&c"),
        ("/wiki/a?", "wiki /a?"),
        ("/other", "200 |/other"),
    ]:
        assert asked(app, target) == want, target


@pytest.mark.parametrize(
    ("target", "modern", "apache"),
    [
        ("/up/a%2Fb", "/base/a%2Fb", "404 404 Not Found"),
        ("/up%2Fa", "/base/a", "404 404 Not Found"),
        ("/up/a%7e[1]%c3%A9", "/base/a%7e[1]%c3%A9", "/base/a~%5B1%5D%C3%A9"),
        ("/up//a//b", "/base/a//b", "/base/a/b"),
        ("/up/x/../%41", "/base/%41", "/base/A"),
        ("/up/a%25b", "/base/a%25b", "/base/a%25b"),
        ("/up/a%3Fb", "/base/a%3Fb", "/base/a%3Fb"),
        ("/up/a;b=c", "/base/a;b=c", "/base/a;b=c"),
        ("/up/../x", "200 |/up/../x", "200 |/up/../x"),
        ("/up/..", "200 |/up/..", "200 |/up/.."),
        ("/../up/x", "400 400 Bad Request", "400 400 Bad Request"),
        ("/up/a%00b", "404 404 Not Found", "404 404 Not Found"),
        ("/up/a%0db", "400 400 Bad Request", "up /base/a%0Db"),
        ("/up/a%zz", "400 400 Bad Request", "400 400 Bad Request"),
    ],
)
def test_paths_on_the_wire(echo: Start, transport: Transport, target: str, modern: str, apache: str) -> None:
    up = echo("up")
    for policy, want in ((Policy.modern(), modern), (APACHE, apache)):
        app = PrefixProxy(behind, [("/up/", f"{up.url}/base/")], policy=policy, transport=transport)
        assert asked(app, target) == (f"up {want}" if want.startswith("/") else want)


def test_a_policy_of_apache_with_nocanon_keeps_the_spelling(echo: Start, transport: Transport) -> None:
    up = echo("up")
    app = PrefixProxy(None, [ProxyRule("/up/", f"{up.url}/", nocanon=True)], policy=APACHE, transport=transport)
    assert asked(app, "/up/x/../%41%7e") == "up /%41%7e"


def test_without_a_raw_target_the_path_is_quoted(echo: Start, transport: Transport) -> None:
    up = echo("up")
    app = PrefixProxy(None, [("/up/", f"{up.url}/")], transport=transport)
    assert asked(app, "/up/a%20b%2Fc%3F", raw_uri=False) == "up /a%20b/c%3F"


@pytest.mark.parametrize(
    "target",
    [
        "/up/private/x",
        "/up/%70rivate/x",
        "/up/./private/x",
        "/up/a/%2e%2e/private/x",
        "//up/private/x",
        "/up//private/x",
        "/up/private%2fx",
        "/up/private%5cx",
        "/up/private;a=b/x",
        "/up/a%2f..%2fprivate/x",
        "/up/%2570rivate/x",
        "/up/a/..;/private/x",
    ],
)
def test_no_spelling_gets_round_an_exclusion(echo: Start, transport: Transport, target: str) -> None:
    up = echo("up")
    app = PrefixProxy(behind, [("/up/private/", "!"), ("/up/", f"{up.url}/base/")], transport=transport)
    assert call(app, target).header("X-By") == "behind"
    found = app.match("/up/private;x/y")
    assert found is not None
    assert found[0].excluded
    assert not up.requests


def test_an_exclusion_after_the_prefix_stays_without_effect_and_says_so(echo: Start, transport: Transport) -> None:
    wiki = echo("wiki")
    with pytest.warns(ConfigWarning, match=r"rule 2 \(/wiki/static/ -> !\) can never apply: rule 1 ") as caught:
        app = PrefixProxy(
            behind, [("/wiki/", f"{wiki.url}/"), ("/wiki/static/", "!"), ("/wiki", f"{wiki.url}")], transport=transport
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert asked(app, "/wiki/static/a") == "wiki /static/a"


def test_an_application_is_mounted(transport: Transport) -> None:
    for prefix in ("/manager", "/manager/"):
        app = PrefixProxy(None, [(prefix, behind)], transport=transport)
        assert call(app, "/manager/").text == "/manager|/"
        assert call(app, "/manager/a%20b/c").text == "/manager|/a b/c"
        assert call(app, "/manager/a", script_name="/site").text == "/site/manager|/a"
        assert call(app, "/managers").status == 404
    assert call(PrefixProxy(None, [("/manager", behind)]), "/manager").text == "/manager|"


def test_a_mounted_application_can_proxy_too(echo: Start, transport: Transport) -> None:
    up = echo("up")
    inner = PrefixProxy(None, [("/b/", f"{up.url}/")], transport=transport)
    assert asked(PrefixProxy(None, [("/a", inner)], transport=transport), "/a/b/c%2Fd") == "up /c%2Fd"


def test_what_is_not_ours_passes_as_it_came() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return behind(environ, start_response)

    request = environ("/a//./b", body=b"x")
    before = {key: value for key, value in request.items() if not key.startswith("proxymw.")}
    run(PrefixProxy(app, [("/up/", "http://h/")]), request)
    assert seen[0] is request
    assert {key: value for key, value in request.items() if not key.startswith("proxymw.")} == before


class Pool:
    """Anything with ``lease`` is a pool."""

    def __init__(self, url: str) -> None:
        self.origin = SingleOrigin(Origin.parse(url))

    def lease(self, environ: dict[str, Any], tried: tuple[Any, ...]) -> Any:
        return self.origin.lease(environ, tried)


@pytest.mark.parametrize(
    ("prefix", "base", "target", "want"),
    [
        ("/", "/", "/x", "/x"),
        ("/cluster/", "/", "/cluster/a%2Fb", "/a%2Fb"),
        ("/cluster/", "/", "/cluster/", "/"),
        ("/cluster", "/", "/cluster", "/"),
        ("/cluster", "/", "/cluster/x", "/x"),
        ("/cluster/", "/deep", "/cluster/x", "/deep/x"),
        ("/cluster", "/deep/", "/cluster", "/deep"),
    ],
)
def test_a_pool_gets_the_rest_with_one_slash(
    echo: Start, transport: Transport, prefix: str, base: str, target: str, want: str
) -> None:
    up = echo("up")
    app = PrefixProxy(None, [ProxyRule(prefix, Pool(up.url), base=base)], transport=transport)
    assert asked(app, target) == f"up {want}"


def test_locations_and_cookies_come_back(echo: Start, transport: Transport) -> None:
    def answer(request: Any) -> Answer:
        value = request.target.partition("?")[2]
        return Answer(302, headers=[("Location", value), ("Set-Cookie", "a=b; Path=/base/x")])

    up, other = echo("up", answer=answer), echo("other")
    app = PrefixProxy(
        None, [("/up/", f"{up.url}/base/"), ("/other/", f"{other.url}/"), ("/lb/", Pool(up.url))], transport=transport
    )
    for value, want in [
        (f"{up.url}/base/x", "/up/x"),
        ("/base/x", "/up/x"),
        (f"{other.url}/x", "/other/x"),
        ("http://elsewhere.example/x", "http://elsewhere.example/x"),
    ]:
        assert call(app, f"/up/?{value}").header("Location") == want
    reply = call(app, f"/up/?{up.url}/base/x", script_name="/site")
    assert reply.header("Location") == "/site/up/x"
    assert reply.header("Set-Cookie") == "a=b; Path=/site/up/x"
    assert call(app, f"/lb/?{up.url}/x").header("Location") == "/lb/x"


def test_apache_maps_back_what_it_is_told_to(echo: Start, transport: Transport) -> None:
    up = echo("up")
    up.answer = lambda request: Answer(302, headers=[("Location", f"{up.url}/x")])
    plain = ProxyRule("/up/", f"{up.url}/", map_back=False)
    told = ProxyRule("/up/", f"{up.url}/", map_back=False, reverse=(("/up/", f"{up.url}/"),))
    for rule, want in ((plain, f"{up.url}/x"), (told, "http://ducklington.org/up/x")):
        app = PrefixProxy(None, [rule], policy=APACHE, transport=transport)
        assert call(app, "/up/").header("Location") == want


@pytest.mark.parametrize(
    ("pattern", "target", "request_path", "want"),
    [
        (r"^/img/(.*)\.gif$", "/pics/$1.png", "/img/a%2Fb.gif", "up /pics/a%2Fb.png"),
        (r"^(/.*\.gif)$", "$1", "/x/y.gif", "up /x/y.gif"),
        (r"^(/.*\.gif)$", "$1", "/x/y.png", "404 404 Not Found"),
        (r"^/app/", "/base", "/app/x", "up /base/app/x"),
        (r"^/app/", "", "/app/x", "up /app/x"),
        (r"^/(a)?(b)$", "/[$1][$2]$3", "/b", "up /[][b]"),
        (r"^/a(.*)$", r"/x\$1$1", "/aX", "up /x$1X"),
        (r"\.php$", "/$0", "/a.php", "up /.php"),
    ],
)
def test_patterns(echo: Start, transport: Transport, pattern: str, target: str, request_path: str, want: str) -> None:
    up = echo("up")
    app = PrefixProxy(None, [ProxyRule(pattern, up.url + target, regex=True)], transport=transport)
    assert asked(app, request_path) == want


def test_patterns_and_prefixes_keep_one_order(echo: Start, transport: Transport) -> None:
    one, two = echo("one"), echo("two")
    rules = [
        ProxyRule(r"\.secret$", "!", regex=True),
        ("/a/", f"{one.url}/"),
        ProxyRule(r"\.png$", f"{two.url}/", regex=True),
        ("/", f"{one.url}/root/"),
    ]
    app = PrefixProxy(behind, rules, transport=transport)
    for target, want in [
        ("/a/x.png", "one /x.png"),
        ("/b/x.png", "two //b/x.png"),
        ("/b", "one /root/b"),
        ("/a/x.secret", "200 |/a/x.secret"),
        ("/a/x.secre%2574", "200 |/a/x.secre%74"),
    ]:
        assert asked(app, target) == want


def test_the_host_that_is_sent(echo: Start, transport: Transport) -> None:
    up = echo("up")
    rules = [
        ("/a/", f"{up.url}/"),
        ProxyRule("/b/", f"{up.url}/", preserve_host=True),
        ProxyRule("/c/", f"{up.url}/", host="fixed.example"),
        ProxyRule("/d/", f"{up.url}/", preserve_host=False),
    ]
    origin = up.url.removeprefix("http://")
    for options, want in [
        ({}, [origin, "ducklington.org", "fixed.example", origin]),
        ({"preserve_host": True}, ["ducklington.org", "ducklington.org", "fixed.example", origin]),
        ({"host": "all.example"}, ["all.example", "ducklington.org", "fixed.example", origin]),
    ]:
        app = PrefixProxy(None, rules, transport=transport, **options)
        got = [dict(call(app, f"/{letter}/").json()["headers"])["Host"] for letter in "abcd"]
        assert got == want


def test_the_public_prefix_is_told(echo: Start, transport: Transport) -> None:
    up = echo("up")
    app = PrefixProxy(None, [("/up/", f"{up.url}/")], transport=transport)
    headers = dict(call(app, "/up/x", script_name="/site").json()["headers"])
    assert headers["X-Forwarded-Prefix"] == "/site/up"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("/", "http://h")], r"target of rule 1 must end with a slash.*add a slash: \('/', 'http://h/'\)"),
        ([("/c/", "http://h")], "add a slash"),
        ("/", "rules must be a list"),
        ({"/": "http://h/"}, "rules must be a list"),
        (7, "rules must be a list"),
        (("/", "http://h/"), r"rule 1 must be a pair \(prefix, target\)"),
        ([("/", "http://h/", "x")], "rule 1 must be a pair"),
        ([("static/", "http://h/")], "prefix of rule 1 must be a path that starts with '/'"),
        ([("/a/../b/", "http://h/")], "prefix must be free of"),
        ([("/", 7)], "target of rule 1 must be a URL, a BalancerPool"),
        ([("/", "h/")], "target of rule 1 must begin with http"),
        ([("/", "http://u:p@h/")], "must not hold a user name"),
        ([("/", "http://h/?q")], "must not have a query"),
        ([("/", "balancer://cluster/")], "must be the BalancerPool itself"),
        ([ProxyRule("(", "http://h/", regex=True)], "pattern of rule 1 must be a regular expression"),
        ([ProxyRule("^/(.*)$", "http://h$1", regex=True)], r"add a slash: 'http://h/\$1'"),
        ([ProxyRule("^/(.*)$", "http://$1/", regex=True)], "add a slash|must name a host"),
        ([ProxyRule("^/(.*)$", "$1", regex=True)], "must be a URL with a literal host"),
        ([ProxyRule("^/x", behind, regex=True)], "must be a URL, a BalancerPool or '!' where the prefix is a pattern"),
        ([ProxyRule("/x", Pool("http://h"), base="deep")], "base of rule 1 must start with"),
        ([ProxyRule("/x", "http://h", host="a b")], "host must be"),
    ],
)
def test_rules_that_cannot_be_meant(rules: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrefixProxy(None, rules)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("/a", "http://h/b/")], "rule 1 .* ends with a slash on one side only"),
        ([("/a/", "http://h/b")], "ends with a slash on one side only"),
        ([("/", "http://h/"), ("/a", "http://h")], "rule 2 .* can never apply: rule 1"),
        ([("/", "http://h/"), ("/manager", behind)], "rule 2 .* can never apply"),
        ([("/a", "!"), ("/a/b", "http://h")], "rule 2 .* can never apply"),
    ],
)
def test_rules_that_are_probably_not_meant(rules: Any, message: str) -> None:
    with pytest.warns(ConfigWarning, match=message):
        PrefixProxy(None, rules)


def test_fine_rules_are_quiet() -> None:
    PrefixProxy(None, [("/a/b/", "!"), ("/a/b/c/", "!"), ("/a/", "http://h/"), ("/a", "http://h"), ("/m", "http://h")])


def test_the_decision_is_a_plain_method() -> None:
    app = quiet(None, [("/a/", "!"), ("/", "http://h/")])
    assert app.match("/a/x") == (app.rules[0], 3)
    assert app.match("/b") == (app.rules[1], 1)
    assert PrefixProxy(None, [("/a/", "http://h/")]).match("/b") is None
    assert repr(app) == "<PrefixProxy: 2 rules>"


def test_nothing_behind_is_404_and_the_page_says_nothing_of_the_request() -> None:
    reply = call(PrefixProxy(None, []), "/<script>")
    assert (reply.status, reply.body) == (404, b"404 Not Found\n")


def test_a_space_in_the_query_is_refused() -> None:
    request = environ("/up/x")
    request["QUERY_STRING"] = "a b"
    assert run(PrefixProxy(None, [("/up/", "http://h/")]), request).status == 403
