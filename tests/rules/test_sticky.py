"""Where a request says which member it belongs to."""

from __future__ import annotations

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.sticky import StickyCookie, StickyRoute, as_sticky, cookie_value


@pytest.mark.parametrize(
    ("cookies", "route"),
    [
        ("JSESSIONID=abc.r2", "r2"),
        ("a=b; JSESSIONID=abc.r2; c=d", "r2"),
        ("a=b,JSESSIONID=abc.r2,c=d", "r2"),  # two Cookie fields, joined by the server
        ("a=b, JSESSIONID=abc.r2", "r2"),
        ("JSESSIONID = abc.r2", "r2"),
        ("JSESSIONID=abc.r2.x", "r2.x"),
        ("JSESSIONID=abc.R2", "R2"),
        ("JSESSIONID=x.r3; JSESSIONID=y.r2", "r3"),
        ("a=JSESSIONID=abc.r3; JSESSIONID=abc.r2", "r2"),
        ("JSESSIONID=abc", ""),
        ("JSESSIONID=", ""),
        ("JSESSIONID", ""),
        ("XJSESSIONID=abc.r2", ""),
        ("jsessionid=abc.r2", ""),
        ('JSESSIONID="abc.r2"', 'r2"'),
        ("", ""),
        ("JSESSIONID=" + "x" * 5000 + ".r2", ""),
    ],
)
def test_the_route_in_a_cookie(cookies, route) -> None:
    assert StickyRoute("JSESSIONID").find("/x", "", cookies) == route


@pytest.mark.parametrize(
    ("path", "query", "route"),
    [
        ("/x;JSESSIONID=abc.r2", "", "r2"),
        ("/x;a=b;JSESSIONID=abc.r2", "", "r2"),
        ("/x;JSESSIONID=abc.r2/y", "", "r2/y"),
        ("/x", "JSESSIONID=abc.r2", "r2"),
        ("/x", "a=1&JSESSIONID=abc.r2&z=1", "r2"),
        ("/x;jsessionid=abc.r2", "", ""),
        ("/XJSESSIONID=abc.r2", "", ""),
        ("/JSESSIONID=abc.r2", "", ""),
        ("/x", "XJSESSIONID=abc.r2", ""),
        ("/x", "JSESSIONID2=abc.r2", ""),
    ],
)
def test_the_route_in_the_url(path, query, route) -> None:
    assert StickyRoute("JSESSIONID").find(path, query, "") == route


def test_the_url_beats_the_cookie() -> None:
    assert StickyRoute("S").find("/x", "S=a.r3", "S=a.r2") == "r3"


def test_cookie_and_parameter_may_differ_in_name() -> None:
    sticky = StickyRoute("JSESSIONID|jsessionid")
    assert sticky.find("/x;jsessionid=a.r2", "", "") == "r2"
    assert sticky.find("/x;JSESSIONID=a.r2", "", "") == ""
    assert sticky.find("/x", "", "JSESSIONID=a.r2") == "r2"


def test_semicolons_end_a_value_where_asked() -> None:
    assert StickyRoute("S", semicolon=True).find("/x;S=a.r2;b=c", "", "") == "r2"
    assert StickyRoute("S").find("/x;S=a.r2;b=c", "", "") == "r2;b=c"


def test_separators() -> None:
    assert StickyRoute("S", separator="-").find("/", "", "S=abc-r2") == "r2"
    assert StickyRoute("S", separator="-").find("/", "", "S=abc.r2") == ""
    assert StickyRoute("S", separator="").find("/", "", "S=r2") == "r2"


def test_a_token_names_one_member_and_takes_the_key_to_make() -> None:
    cookie = StickyCookie()
    token = cookie.token("http://a", b"k" * 32)
    assert token == cookie.token("http://a", b"k" * 32)
    assert token != cookie.token("http://b", b"k" * 32)
    assert token != cookie.token("http://a", b"K" * 32)
    assert len(token) == 16


def test_the_cookie_is_kept_from_scripts_and_other_sites() -> None:
    assert StickyCookie(name="R").header("t", https=False) == "R=t; Path=/; HttpOnly; SameSite=Lax"
    assert StickyCookie(name="R").header("t", https=True).endswith("; Secure")
    assert StickyCookie(name="R", max_age=60, path="/a", samesite="Strict", secure=True).header("t", https=False) == (
        "R=t; Path=/a; HttpOnly; SameSite=Strict; Max-Age=60; Secure"
    )


@pytest.mark.parametrize(
    "options",
    [{"name": "a b"}, {"path": "a"}, {"path": "/;x"}, {"samesite": "lax"}, {"key": b"short"}, {"max_age": 0}],
)
def test_wrong_cookies_are_refused(options) -> None:
    with pytest.raises(ConfigError):
        StickyCookie(**options)


def test_what_sticky_may_be() -> None:
    assert as_sticky(None) is None
    assert as_sticky(True) == StickyCookie()
    assert as_sticky("A|b") == StickyRoute("A|b")
    for wrong in ("a b", "a|b c", 5):
        with pytest.raises(ConfigError, match="sticky must be"):
            as_sticky(wrong)


def test_cookie_value_finds_the_whole_name_only() -> None:
    assert cookie_value("ab=1; b=2", "b") == "2"
    assert cookie_value("b=1", "a") is None
