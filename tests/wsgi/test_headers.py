"""Headers: changes to requests and responses, and which responses they concern."""

from __future__ import annotations

from typing import Any

import pytest

from proxymw.allow import IPAllowlist
from proxymw.errors import ConfigError
from proxymw.headerskin import HeaderRule, Headers
from tests.wsgi.calling import call, echo_environ


def test_responses_are_changed_in_the_order_written() -> None:
    app = echo_environ([], X_Backend="1", Vary="Cookie")
    answer = call(
        Headers(app, response=[("set", "X-Front", "yes"), ("unset", "x-backend"), ("append", "Vary", "Accept"),
                               ("set", "X-Front", "no"), ("add", "Link", "</a>"), ("add", "Link", "</b>"),
                               ("edit", "Vary", "Cook", "Bak")])
    )  # fmt: skip
    assert answer.headers == [
        ("Content-Type", "text/plain"),
        ("Vary", "Bakie, Accept"),
        ("X-Front", "no"),
        ("Link", "</a>"),
        ("Link", "</b>"),
    ]
    assert answer.body == b"ok"


def test_requests_are_changed_before_the_application() -> None:
    seen: list[Any] = []
    skin = Headers(
        echo_environ(seen),
        request=[("set", "X-Forwarded-Proto", "http"), ("unset", "Cookie"), ("append", "X-Custom", "two"),
                 ("set", "Content-Type", "a/b"), ("unset", "Absent"), ("edit", "Referer", "^http:", "https:")],
    )  # fmt: skip
    call(skin, HTTP_COOKIE="a=1", HTTP_X_CUSTOM="one", HTTP_REFERER="http://x/", CONTENT_TYPE="c/d")
    environ = seen[0]
    assert environ["HTTP_X_FORWARDED_PROTO"] == "http"
    assert "HTTP_COOKIE" not in environ
    assert environ["HTTP_X_CUSTOM"] == "one, two"
    assert environ["CONTENT_TYPE"] == "a/b"
    assert environ["HTTP_REFERER"] == "https://x/"


def test_a_cookie_that_is_added_joins_the_others() -> None:
    seen: list[Any] = []
    call(Headers(echo_environ(seen), request=[("add", "Cookie", "b=2")]), HTTP_COOKIE="a=1")
    assert seen[0]["HTTP_COOKIE"] == "a=1; b=2"


def test_always_is_about_our_own_error_pages() -> None:
    rules = [HeaderRule("set", "X-All", "1"), HeaderRule("set", "X-Success", "1", always=False)]
    denied = call(Headers(IPAllowlist(echo_environ([]), "10.0.0.1"), response=rules))
    assert (denied.code, denied["X-All"], denied["X-Success"]) == (403, "1", None)
    theirs = call(Headers(echo_environ([], "404 Not Found"), response=rules))
    assert (theirs.code, theirs["X-All"], theirs["X-Success"]) == (404, "1", "1")
    nothing_behind = call(Headers(None, response=rules))
    assert (nothing_behind.code, nothing_behind["X-Success"]) == (404, None)


def test_values_are_filled_in() -> None:
    times = iter([1000.0, 1000.25])
    skin = Headers(
        echo_environ([]),
        response=[("set", "X", "%{ROUTE}e|%{NONE}e|%{wsgi.input}e|100%%|%t|%D")],
        clock=lambda: next(times),
    )
    assert call(skin, ROUTE="a1\r\nb")["X"] == "a1b|(null)|(null)|100%|t=1000000000|D=250000"


def test_rules_can_depend_on_the_request() -> None:
    rule = HeaderRule("add", "Set-Cookie", "ROUTEID=.%{ROUTE}e; path=/", when=lambda environ: "CHANGED" in environ)
    skin = Headers(echo_environ([]), response=[rule], request=[HeaderRule("set", "X", "1", when=lambda e: False)])
    assert call(skin, ROUTE="a1")["Set-Cookie"] is None
    answer = call(skin, ROUTE="a1", CHANGED="1")
    assert answer["Set-Cookie"] == "ROUTEID=.a1; path=/"
    assert "HTTP_X" not in answer.environ


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (("put", "X", "1"), "^action must be one of set, append"),
        (("set", "X Y", "1"), "^name must be a header name"),
        (("set", "Content-Length", "1"), "^name must not be a header that frames"),
        (("unset", "transfer-encoding"), "^name must not be a header that frames"),
        (("set", "X", "a\r\nB: c"), "^value must be text without control"),
        (("set", "X", "é€"), "^value must be text"),
        (("set", "X", 5), "^value must be text"),
        (("set", "X", "100%"), "^value must use"),
        (("set", "X", "%{a}z"), "^value must use"),
        (("set", "X", "%{}e"), "^value must use"),
        (("edit", "X", "(", "y"), "^value must be a regular expression"),
        (("edit", "X", "a", "\n"), "^replacement must be text"),
        (("set",), "^response must hold"),
        ("set X 1", "^response must hold"),
    ],
)
def test_bad_configuration_is_said_at_once(rule: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Headers(None, response=[rule])


def test_repr_counts_the_rules() -> None:
    assert repr(Headers(None, response=[("unset", "A"), ("unset", "B")])).startswith(
        "<Headers 0 on requests, 2 on responses -> "
    )
