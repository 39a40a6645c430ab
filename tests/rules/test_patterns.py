"""Patterns mean what they mean in Apache, and none can hang a worker."""

import time

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.patterns import compile_pattern, group_starts_with_slash, literal_start


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("b$", "/a\n/b", True),
        ("b$", "/b\n", False),
        ("^/a.b$", "/a\nb", True),
        ("[$]$", "/a$", True),
        (r"\$$", "/a$", True),
        (r"\$x", "/a", False),
        (r"b\Z", "/b\n", True),
        (r"b\z", "/b\n", False),
        ("b", "/abc", True),
        (r"^/[[:alpha:]]+[[:digit:]_]$", "/ab_", True),
        ("[[]", "/[", True),
        ("[]x]", "/]", True),
        (r"a\hb", "/a\tb", True),
        (r"a[\h]b", "/a b", True),
        (r"\x{41}", "/A", True),
        (r"^/\w$", "/\xe9", False),
        ("^/(?<name>a)$", "/a", True),
        ("^/caf\u00e9$", "/caf\xc3\xa9", True),
        ("(?=x)x", "/x", True),
        ("(?<=a)x", "/ax", True),
        ("[a&&b]", "/&", True),
    ],
)
def test_meaning(pattern: str, subject: str, matches: bool) -> None:
    assert bool(compile_pattern(pattern).search(subject)) is matches


def test_case() -> None:
    assert compile_pattern("^/A$", nocase=True).search("/a")
    assert not compile_pattern("^/A$").search("/a")
    assert not compile_pattern("^/\u00c9$", nocase=True).search("/\xc3\xa9".replace("\xa9", "\xa8"))


@pytest.mark.parametrize(
    "pattern", [r"\K", r"\Qa\E", "(?R)", "(?1)", "(?|a|b)", "(*UTF)", r"\p{L}", "[[:nope:]]", "[", "(", "*a"]
)
def test_what_cannot_be_compiled_is_told_with_the_pattern(pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern must") as error:
        compile_pattern(pattern)
    assert repr(pattern) in str(error.value)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a*)*$", "(.*,)*$", "^((/a)+)+$", "(x+x+)+y", "((a|b)+c?)+", "(?:a{1,}b?){2,}$"]
)
def test_repeats_of_repeats_are_refused_unless_allowed(pattern: str) -> None:
    with pytest.raises(ConfigError, match="must not repeat what repeats"):
        compile_pattern(pattern)
    assert compile_pattern(pattern, backtracking=True)


@pytest.mark.parametrize(
    "pattern", ["([^/]+/)*x$", r"(?:/[a-z]+)*$", "(a++)*b", "(?>a+)*b", r"^/(.*)/(.*)$", "(?:ab?){1,5}x", r"(\w+\s)*x"]
)
def test_repeats_that_can_only_match_one_way_are_fine(pattern: str) -> None:
    compiled = compile_pattern(pattern)
    start = time.perf_counter()
    for subject in ("/" + "a" * 8000, "/a" * 4000, "a " * 4000):
        compiled.search(subject)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("pattern", "literal", "anchored"),
    [
        (r"^/blog/(.*)\.php$", "/blog/", True),
        (r"^/a\.b/?$", "/a.b", True),
        ("^/ab*", "/a", True),
        ("^/ab{0,1}", "/a", True),
        ("/x", "", False),
        ("^/a|/b", "", False),
        ("^/a[/]", "/a", True),
        ("^", "", True),
    ],
)
def test_the_literal_start_of_a_pattern(pattern: str, literal: str, anchored: bool) -> None:
    assert literal_start(pattern) == (literal, anchored)


def test_groups_that_begin_with_a_slash() -> None:
    assert group_starts_with_slash(r"^(/.*\.gif)$", 1)
    assert group_starts_with_slash(r"^(?:x)([(]\()(/b)", 2)
    # The whole path: RewriteRule ^(.*)$ http://host$1 is what half of the world writes.
    assert group_starts_with_slash("^(.*)$", 1)
    assert group_starts_with_slash("^(.+)", 0)
    assert not group_starts_with_slash("^(.*?)", 1)
    assert not group_starts_with_slash("(.*)$", 1)
    assert not group_starts_with_slash(r"^/(.*)$", 1)
    assert not group_starts_with_slash("^(/?.*)$", 1)
    assert not group_starts_with_slash("^(/a|b)$", 1)
    assert not group_starts_with_slash("^(/a)$", 2)
