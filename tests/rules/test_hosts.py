"""The Host grammar and the name patterns of virtual hosts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxymw.errors import ConfigError
from proxymw.rules.hosts import HostPattern, split_authority, target_authority


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("example.org", ("example.org", "")),
        ("Righthost:123", ("righthost", "123")),
        ("example.org.", ("example.org", "")),
        ("EXAMPLE.org.:8080", ("example.org", "8080")),
        ("example.org:080", ("example.org", "080")),
        ("[A::1]", ("[a::1]", "")),
        ("[2001:0db8:0:0::1]:443", ("[2001:db8::1]", "443")),
        ("127.0.0.1:8000", ("127.0.0.1", "8000")),
        ("web_1", ("web_1", "")),
        (".wild.example", (".wild.example", "")),
        ("9front.org", ("9front.org", "")),
        ("localhost:65535", ("localhost", "65535")),
    ],
)
def test_a_host_is_a_lower_case_name_and_a_port(text: str, parts: tuple[str, str]) -> None:
    assert split_authority(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "a..b", "a/b", "a\\b", "a@b", "u:p@b", "a b", "a,b", "a\tb", "a%41", "é.org", "a:b",
        "a:65536", "a:0", "a:", "a:-1", "a:80:80", "::1", "[::1", "::1]", "[::1]x", "[::g]", "[fe80::1%eth0]",
        "[1.2.3.4]", "[]", "1.2.3", "12345", "01.2.3.4", "1.2.3.4.5", "256.1.1.1", "foo.1bar", "a..", "a\n", "a:8\n",
        "٣.org", "a:٣", "<x>", "*", "a." + "b" * 255,
    ],
)  # fmt: skip
def test_what_is_not_a_host_is_none(text: str) -> None:
    assert split_authority(text) is None


@pytest.mark.parametrize(
    ("target", "authority"),
    [("http://righthost:123/", "righthost:123"), ("https://a?b", "a"), ("/x", None), ("*", None), ("//a/b", None),
     ("a:80", None), ("/http://a/", None), ("http:///x", "")],
)  # fmt: skip
def test_only_an_absolute_target_has_an_authority(target: str, authority: str | None) -> None:
    assert target_authority(target) == authority


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("Example.org", ["example.org"], ["www.example.org", "example.orgs", "exampleyorg"]),
        ("example.org.", ["example.org"], ["example.org."]),
        ("*.example.com", ["www.example.com", "a.b.example.com", ".example.com"], ["example.com", "xexample.com"]),
        ("www?.example.com", ["www1.example.com"], ["www.example.com", "www12.example.com"]),
        ("*", ["anything", "[::1]"], []),
        ("example.*", ["example.org", "example.co.uk"], ["example", "an.example.org"]),
        ("a**b", ["ab", "axxb"], ["ba"]),
        ("[2001:DB8::0]", ["[2001:db8::]"], ["2001:db8::"]),
    ],
)
def test_patterns_are_those_of_server_alias(pattern: str, inside: list[str], outside: list[str]) -> None:
    host = HostPattern(pattern)
    assert [h for h in inside if not host.matches(h)] == []
    assert [h for h in outside if host.matches(h)] == []


@pytest.mark.parametrize(
    "pattern", ["", "http://a", "a:80", "a/b", "a b", "münchen.de", "[::1]:80", "[x]", "a,b", 5, None, "a\n"]
)
def test_a_pattern_that_can_never_match_is_refused(pattern: object) -> None:
    with pytest.raises(ConfigError, match=r"^alias must be "):
        HostPattern(pattern, name="alias")  # type: ignore[arg-type]


def slow_match(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_match(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and slow_match(pattern[1:], text[1:])


@given(st.text("ab*?.", min_size=1, max_size=8), st.text("ab.", max_size=8))
def test_wildcards_agree_with_a_slow_reference(pattern: str, host: str) -> None:
    trimmed = pattern if len(pattern) == 1 else pattern.removesuffix(".")
    assert HostPattern(pattern).matches(host) == slow_match(trimmed, host)


@given(st.from_regex(re.compile(r"[A-Za-z]([A-Za-z0-9-]{1,5}\.){0,3}[a-z]{1,3}", re.ASCII), fullmatch=True))
def test_every_host_matches_its_own_pattern(name: str) -> None:
    parts = split_authority(name)
    assert parts is not None
    assert HostPattern(name).matches(parts[0])


def test_patterns_show_and_compare_by_their_name() -> None:
    assert repr(HostPattern("*.Example.org")) == "<HostPattern *.example.org>"
    assert HostPattern("A.org") == HostPattern("a.org.")
    assert len({HostPattern("A.org"), HostPattern("a.org.")}) == 1
