"""Addresses of origins go back as public ones: parsed, by whole segments, and nothing else is touched."""

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.origins import Origin
from proxymw.rules.policy import Policy
from proxymw.rules.reversing import ReverseMap, ReverseTable

APP = Origin.parse("http://app1:9001")
MODERN, APACHE = Policy.modern(), Policy.apache()


def mapped(
    rules: ReverseMap,
    value: str,
    *,
    name: str = "Location",
    policy: Policy = MODERN,
    script: str = "",
    origin: Origin = APP,
) -> str:
    public = "http://example.com"
    [(same, result)] = rules.apply([(name, value)], origin=origin, script_name=script, public=public, policy=policy)
    assert same == name
    return result


@pytest.mark.parametrize(
    ("prefix", "base", "value", "result"),
    [
        ("/wiki/", "/", "http://app1:9001/x?y=1#z", "/wiki/x?y=1#z"),
        ("/wiki/", "/", "HTTP://APP1:9001/x", "/wiki/x"),
        ("/wiki/", "/", "http://app1:9001", "/wiki/"),
        ("/wiki/", "/", "//app1:9001/x", "/wiki/x"),
        ("/wiki/", "/", "/login", "/wiki/login"),
        ("/wiki/", "/", "/wiki/login", "/wiki/login"),
        ("/wiki/", "/", "login", "login"),
        ("/wiki/", "/", "../login", "../login"),
        ("/wiki/", "/", "?q", "?q"),
        ("/wiki/", "/", "", ""),
        ("/wiki/", "/", "http://app10:9001/x", "http://app10:9001/x"),
        ("/wiki/", "/", "http://app1:90010/x", "http://app1:90010/x"),
        ("/wiki/", "/", "http://app1/x", "http://app1/x"),
        ("/wiki/", "/", "https://app1:9001/x", "https://app1:9001/x"),
        ("/wiki/", "/", "http://app1:9001.evil.example/x", "http://app1:9001.evil.example/x"),
        ("/wiki/", "/", "http://u@app1:9001/x", "http://u@app1:9001/x"),
        ("/wiki/", "/", "mailto:a@b", "mailto:a@b"),
        ("/wiki/", "/", "//elsewhere.example/x", "//elsewhere.example/x"),
        ("/media", "", "http://app1:9001", "/media/"),
        ("/media", "", "http://app1:9001/x", "/media/x"),
        ("/p/", "/sub/", "http://app1:9001/sub/x", "/p/x"),
        ("/p/", "/sub/", "http://app1:9001/subx", "http://app1:9001/subx"),
        ("/p/", "/sub/", "http://app1:9001/other", "http://app1:9001/other"),
        ("/p/", "/sub/", "/other", "/other"),
        ("/a", "/b/", "http://app1:9001/b/x", "/a/x"),
        ("/a/", "/b", "http://app1:9001/b/x", "/a/x"),
        # A mapped address never becomes one of another host.
        ("/", "/", "http://app1:9001//evil.example/x", "/evil.example/x"),
        ("/", "/", "http://app1:9001/\\evil.example/x", "/evil.example/x"),
    ],
)
def test_locations(prefix: str, base: str, value: str, result: str) -> None:
    assert mapped(ReverseMap(prefix, base), value) == result


def test_the_base_of_a_member_counts() -> None:
    deep = Origin.parse("http://app2:9001/deep")
    assert mapped(ReverseMap("/lb/", "/"), "http://app2:9001/deep/x", origin=deep) == "/lb/x"
    assert mapped(ReverseMap("/lb/", "/"), "http://app2:9001/x", origin=deep) == "http://app2:9001/x"


def test_the_mount_point_comes_first() -> None:
    assert mapped(ReverseMap("/wiki/", "/"), "http://app1:9001/x", script="/site one") == "/site%20one/wiki/x"
    assert mapped(ReverseMap("/wiki/", "/"), "/site/wiki/x", script="/site") == "/site/wiki/x"


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("http://app1:9001/bar", "http://example.com/mirror/foo/bar"),
        ("HTTP://APP1:9001/bar", "http://example.com/mirror/foo/bar"),
        ("http://app1:9001", "http://app1:9001"),
        ("http://app1:9001?q", "http://app1:9001?q"),
        ("https://app1:9001/bar", "https://app1:9001/bar"),
        ("/bar", "/bar"),
        ("//app1:9001/bar", "//app1:9001/bar"),
    ],
)
def test_apache_maps_only_what_a_rule_names_and_makes_it_absolute(value: str, result: str) -> None:
    assert mapped(ReverseMap(None, extra=(("/mirror/foo/", "http://app1:9001/"),)), value, policy=APACHE) == result


def test_rules_for_other_origins_apply_in_order() -> None:
    rules = ReverseMap(
        None,
        extra=(
            ("/a/", "http://app1:9001/one/"),
            ("/c/", "http://other/"),
            ("/d/", "http://app1:9001/"),
            ("/e/", "/rel/"),
        ),
    )
    for value, result in [
        ("http://app1:9001/one/x", "/a/x"),
        ("http://other/x", "/c/x"),
        ("http://app1:9001/three/x", "/d/three/x"),
        ("/rel/x", "/e/x"),
        ("/one/x", "/one/x"),
        ("http://unknown/rel/x", "/e/x"),
    ]:
        assert mapped(rules, value) == result, value
        assert mapped(rules, value, policy=APACHE) == (f"http://example.com{result}" if result != "/one/x" else result)


def test_one_table_serves_many_maps() -> None:
    table = ReverseTable([("/c/", "http://other/")])
    assert mapped(ReverseMap("/a/", "/", table), "http://other/x") == "/c/x"
    assert mapped(ReverseMap("/b/", "/", table), "http://app1:9001/x") == "/b/x"


@pytest.mark.parametrize("pair", [("x", "http://h/"), ("/x", "h"), ("/x", "http://h/?q"), ("/x", "ftp://h/")])
def test_rules_that_cannot_be_meant(pair: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="reverse rule must"):
        ReverseMap(extra=(pair,))


@pytest.mark.parametrize("name", ["location", "Content-Location", "URI", "Destination"])
def test_every_header_that_holds_an_address(name: str) -> None:
    assert mapped(ReverseMap("/p/", "/"), "http://app1:9001/x", name=name) == "/p/x"


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("5; url=http://app1:9001/x", "5; url=/p/x"),
        ("0;URL='http://app1:9001/x'", "0;URL='/p/x'"),
        ("5", "5"),
        ("5; url=http://other/x", "5; url=http://other/x"),
    ],
)
def test_refresh(value: str, result: str) -> None:
    assert mapped(ReverseMap("/p/", "/"), value, name="Refresh") == result
    assert mapped(ReverseMap("/p/", "/"), value, name="Refresh", policy=APACHE) == value


def test_other_headers_are_the_same_object() -> None:
    headers = [("Content-Type", "text/html"), ("X-Location", "http://app1:9001/x")]
    assert ReverseMap("/p/", "/").apply(headers, origin=APP, script_name="", public="", policy=MODERN) is headers


@pytest.mark.parametrize(
    ("prefix", "base", "value", "result"),
    [
        ("/wiki/", "/", "a=b; Path=/; HttpOnly", "a=b; Path=/wiki/; HttpOnly"),
        ("/wiki/", "/", "a=b; path=/x", "a=b; path=/wiki/x"),
        ("/wiki/", "/", "a=b; path=/wiki/x", "a=b; path=/wiki/x"),
        ("/wiki/", "/", "a=b", "a=b"),
        ("/media", "", "a=b; Path=/", "a=b; Path=/media"),
        ("/p/", "/inner/", "a=b; Path=/inner/deep", "a=b; Path=/p/deep"),
        ("/p/", "/inner/", "a=b; Path=/inner", "a=b; Path=/p/"),
        ("/p/", "/inner/", "a=b; Path=/innerX", "a=b; Path=/innerX"),
        ("/p/", "/inner/", "a=b; Path=/", "a=b; Path=/"),
        ("/", "/", "a=b; Path=/x", "a=b; Path=/x"),
        ("/wiki/", "/", "path=/x; Path=/y", "path=/x; Path=/wiki/y"),
        ("/wiki/", "/", "__Host-id=1; Secure; Path=/", "__Host-id=1; Secure; Path=/"),
        ("/wiki/", "/", "a=b; Domain=app1; Secure", "a=b; Secure"),
        ("/wiki/", "/", "a=b; Domain=.APP1", "a=b"),
        ("/wiki/", "/", "a=b; Domain=example.com", "a=b; Domain=example.com"),
    ],
)
def test_cookies(prefix: str, base: str, value: str, result: str) -> None:
    assert mapped(ReverseMap(prefix, base), value, name="Set-Cookie") == result


RULES = ReverseMap(
    None,
    cookie_domains=(("app.internal", "ducklington.org"), (".dot.internal", ".ducklington.org")),
    cookie_paths=(("/inner/", "/p/"), ("/other", "/")),
)


@pytest.mark.parametrize(
    ("value", "modern", "apache"),
    [
        ("a=b; path=/inner/", "a=b; path=/p/", "a=b; path=/p/"),
        ("a=b; PATH=/inner/x;", "a=b; PATH=/p/x;", "a=b; PATH=/p/;"),
        ("a=b; path=/innerX", "a=b; path=/innerX", "a=b; path=/innerX"),
        ("a=b; path=/otherX", "a=b; path=/otherX", "a=b; path=/"),
        ("a=b; domain=APP.INTERNAL", "a=b; domain=ducklington.org", "a=b; domain=ducklington.org"),
        ("a=b; domain=x.app.internal", "a=b; domain=x.app.internal", "a=b; domain=x.app.internal"),
        ("a=b; Path=/inner/;path=/inner/", "a=b; Path=/p/;path=/p/", "a=b; Path=/inner/;path=/p/"),
        ("path=/inner/", "path=/inner/", "path=/p/"),
        ("a=b; path = /inner/", "a=b; path =/p/", "a=b; path = /inner/"),
    ],
)
def test_written_cookie_rules(value: str, modern: str, apache: str) -> None:
    assert mapped(RULES, value, name="Set-Cookie") == modern
    assert mapped(RULES, value, name="Set-Cookie", policy=APACHE) == apache


def test_three_cookies_stay_three() -> None:
    headers = [("Set-Cookie", "a=1; Path=/"), ("X", "y"), ("Set-Cookie", "b=2"), ("Set-Cookie", "c=3; Path=/c")]
    result = ReverseMap("/p/", "/").apply(headers, origin=APP, script_name="", public="", policy=MODERN)
    assert result == [
        ("Set-Cookie", "a=1; Path=/p/"),
        ("X", "y"),
        ("Set-Cookie", "b=2"),
        ("Set-Cookie", "c=3; Path=/p/c"),
    ]
