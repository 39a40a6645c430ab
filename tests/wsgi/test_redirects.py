"""Redirects: where clients are sent, and that nothing they send chooses the host."""

from __future__ import annotations

from typing import Any

import pytest

from proxymw.errors import ConfigError
from proxymw.redirects import RedirectRule, Redirects
from proxymw.rules.policy import Policy
from tests.wsgi.calling import call, echo_environ


def location(rules: list[Any], path: str, **options: Any) -> tuple[int, str | None]:
    policy = options.pop("policy", None)
    answer = call(Redirects(echo_environ([]), rules, policy=policy), path, **options)
    return answer.code, answer["Location"]


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        (("/old", "http://e.example/new"), "/old", (302, "http://e.example/new")),
        (("/old", "http://e.example/new"), "/old/a/b?q=1", (302, "http://e.example/new/a/b?q=1")),
        (("/old", "http://e.example/new"), "/older", (200, None)),
        (("/old/", "http://e.example/new/"), "/old/a", (302, "http://e.example/new/a")),
        (("/old/", "http://e.example/new/"), "/old", (200, None)),
        (("/", "https://e.example/"), "/a/b", (302, "https://e.example/a/b")),
        (("/old", "http://e.example"), "/old/x", (302, "http://e.example/x")),
        (("/old", "http://e.example/new?fixed=1"), "/old?q=1", (302, "http://e.example/new?fixed=1")),
        (("/old", "http://e.example/new#part"), "/old?q=1", (302, "http://e.example/new?q=1#part")),
        (("/old", "/new", "permanent"), "/old/x", (301, "/new/x")),
        (("/old", "/new", "seeother"), "/old", (303, "/new")),
        (("/old", "/new", 308), "/old", (308, "/new")),
        (("/old", "", "gone"), "/old/x", (410, None)),
        (("/old", "", 451), "/old", (451, None)),
        (RedirectRule("^/gone", status=410, match=True), "/gone-too", (410, None)),
        (
            RedirectRule(r"(.*)\.gif$", "http://e.example$1.jpg", match=True),
            "/a/b.gif",
            (302, "http://e.example/a/b.jpg"),
        ),
        (RedirectRule(r"^/(\w+)/(\d+)", "/$2/$1", 301, match=True), "/a/7?x", (301, "/7/a?x")),
        (RedirectRule("^/a(.*)", "/b?p=$1", match=True), "/a1?x", (302, "/b?p=1")),
    ],
)
def test_where_it_goes(rule: Any, path: str, expected: tuple[int, str | None]) -> None:
    assert location([rule], path) == expected


def test_the_first_rule_wins() -> None:
    assert location([("/a/b", "/one"), ("/a", "/two"), ("/a/b", "/three")], "/a/b/c") == (302, "/one/c")
    assert location([("/a", "/two"), ("/a/b", "/one")], "/a/b/c") == (302, "/two/b/c")


def test_the_clients_spelling_of_the_rest_is_kept() -> None:
    path = {"PATH_INFO": '/old/a b/c"d', "RAW_URI": "/old/a%20b%2fc%22d"}
    assert location([("/old", "/new")], "/", **path) == (302, "/new/a%20b%2fc%22d")


def test_captures_are_escaped() -> None:
    rule = RedirectRule("^/a/(.*)", "https://e.example/$1", match=True)
    assert location([rule], "/", PATH_INFO='/a/%3F?"<\xe9 #', RAW_URI=None) == (
        302,
        "https://e.example/%253F%3F%22%3C%E9%20%23",
    )


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        (RedirectRule("^/(.*)", "http://e.example$1", match=True), "/.evil.example/", (403, None)),
        (RedirectRule("^/(.*)", "http://e.example$1", match=True), "/@evil.example/", (403, None)),
        (RedirectRule("^/(.*)", "http://e.example$1", match=True), "/:80/", (403, None)),
        (("/", "http://e.example"), "/.evil.example", (403, None)),
        (RedirectRule("^/go(.*)", "/$1", match=True), "/go/evil.example", (302, "/evil.example")),
        (("/go/", "/"), "/go/evil", (302, "/evil")),
    ],
)
def test_the_host_is_that_of_the_configuration(rule: Any, path: str, expected: tuple[int, str | None]) -> None:
    assert location([rule], path) == expected


def test_two_slashes_never_begin_a_path() -> None:
    rules = [RedirectRule("^/go(.*)", "/$1", match=True)]
    assert location(rules, "/", PATH_INFO="/go//evil.example", RAW_URI=None)[1] == "/evil.example"
    assert location(rules, "/", PATH_INFO="/go\\evil.example", RAW_URI=None)[1] == "/%5Cevil.example"


def test_mounted_paths_and_the_absolute_form() -> None:
    assert location([("/old", "/new")], "/old", SCRIPT_NAME="/m", RAW_URI="/m/old") == (302, "/m/new")
    assert location([("/old", "/new")], "/old", policy=Policy.apache(), HTTP_HOST="Front.example:81") == (
        302,
        "http://front.example:81/new",
    )


def test_bad_paths_are_refused_here() -> None:
    assert location([("/old", "/new")], "/", PATH_INFO="/old/\r\nX: y", RAW_URI=None) == (400, None)


def test_any_method_is_redirected_and_others_are_passed_on_untouched() -> None:
    seen: list[Any] = []
    skin = Redirects(echo_environ(seen), [("/old", "/new")])
    assert call(skin, "/old", "POST").code == 302
    head = call(skin, "/old", "HEAD")
    assert (head.code, head.body) == (302, b"")
    assert call(skin, "/a//b?x").code == 200
    assert (seen[0]["PATH_INFO"], seen[0]["QUERY_STRING"]) == ("/a//b", "x")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (("old", "/new"), "^path must begin with a slash"),
        (("/old", "new"), "^target must be a URL or begin with one slash"),
        (("/old", "//e.example/"), "^target must be a URL or begin with one slash"),
        (("/old", "/a b"), "^target must be a URL without blanks"),
        (("/old", "/a\r\nb"), "^target must be a URL without blanks"),
        (("/old", ""), "^target must be a URL or path"),
        (("/old", "/new", 410), "^target must be left out with status 410"),
        (("/old", "/new", "forever"), "^status must be"),
        (("/old", "/new", 200), "^status must be"),
        (("/old", "/new", True), "^status must be"),
        (RedirectRule, "^rules must hold"),
        (("/old",), "^rules must hold"),
    ],
)
def test_bad_configuration_is_said_at_once(rule: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Redirects(None, [rule])


def test_a_host_from_a_capture_and_a_bad_expression_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^target must have a fixed host"):
        RedirectRule("^/(.*)", "https://$1/", match=True)
    with pytest.raises(ConfigError, match=r"^path must be a regular expression"):
        RedirectRule("(", "/x", match=True)


def test_repr_counts_the_rules() -> None:
    assert repr(Redirects(None, [("/a", "/b")])).startswith("<Redirects 1 rules -> ")
