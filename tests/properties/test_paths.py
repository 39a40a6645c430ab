"""Paths against a slow reading of the same rules, and laws that hold for every request."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxymw.errors import RequestRefused
from proxymw.rules.paths import RoutePath, lax_readings, quote_path, route_path
from proxymw.rules.policy import Policy

MODERN = Policy.modern()
APACHE = Policy.apache()

# Pieces that matter to a path; random text alone would hardly ever make one.
PIECES = [
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "a",
    "b",
    "~",
    "%7e",
    "%41",
    ";x",
    "%3B",
    "\\",
    "%5c",
    "%25",
    "%20",
    "[",
    "%c3%a9",
]
TARGETS = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/" + "".join(pieces))
DECODED = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)


def slow_canonical(path: str) -> str | None:
    """Remove one thing at a time until nothing is left to remove; None when that climbs above the root."""
    while "//" in path:
        path = path.replace("//", "/", 1)
    while True:
        if re.match(r"/\.\.(/|\Z)", path):
            return None
        for pattern, put in ((r"/\.(?=/|\Z)/?", "/"), (r"/(?!\.\.?/)[^/]+/\.\.(?=/|\Z)/?", "/")):
            changed = re.sub(pattern, put, path, count=1)
            if changed != path:
                path = changed
                break
        else:
            return path


def of(target: str, policy: Policy = MODERN, *, raw: bool = True) -> RoutePath | None:
    try:
        return route_path(unquote(target, encoding="latin-1"), "", target if raw else None, policy=policy)
    except RequestRefused:
        return None


@given(TARGETS)
def test_the_path_is_that_of_the_slow_reading(target: str) -> None:
    route = of(target)
    assert (None if route is None else route.path) == slow_canonical(unquote(target, encoding="latin-1"))


@given(TARGETS)
def test_it_does_not_matter_whether_the_server_gives_the_raw_target(target: str) -> None:
    with_raw, without = of(target), of(target, raw=False)
    assert (with_raw is None) == (without is None)
    assert with_raw is None or without is None or with_raw.path == without.path


@given(TARGETS)
def test_what_is_sent_means_the_path_that_was_matched(target: str) -> None:
    route = of(target)
    if route is not None:
        assert re.sub("//+", "/", unquote(route.raw, encoding="latin-1")) == route.path
        assert route.raw.startswith("/")
        assert not route.raw.startswith("//")
        assert not any(segment in (".", "..") for segment in unquote(route.raw, encoding="latin-1").split("/"))
        assert re.fullmatch(r"[\x21-\x7e]+", route.raw)


@given(TARGETS)
def test_a_path_is_canonical_already(target: str) -> None:
    route = of(target)
    if route is not None:
        again = route_path(route.path, "", None, policy=MODERN)
        assert again.path == route.path
        sent = of(route.raw)
        assert sent is not None
        assert (sent.path, sent.raw) == (route.path, route.raw)


@given(TARGETS, st.data())
def test_spellings_of_the_parts_make_up_the_whole(target: str, data: st.DataObject) -> None:
    route = of(target)
    if route is not None:
        size = len(route.path)
        one = data.draw(st.integers(0, size))
        two = data.draw(st.integers(one, size))
        assert route.spell(0, one) + route.spell(one, two) + route.spell(two) == route.raw
        meaning = unquote(route.spell(one, two), encoding="latin-1")
        assert re.sub("//+", "/", meaning) == route.path[one:two]


@given(TARGETS)
def test_apache_sends_one_spelling_only(target: str) -> None:
    route = of(target, APACHE.but(encoded_slash="decode"))
    if route is not None:
        assert route.raw == quote_path(route.path)
        assert route.spell(1) == quote_path(route.path[1:])
    refused = of(target, APACHE)
    assert refused is None or not re.search("%2f", target, re.IGNORECASE)


@given(TARGETS, st.sampled_from(["/app", "/a b", "/a~", "/x/y"]))
def test_a_mount_point_changes_nothing_below_it(target: str, script: str) -> None:
    alone = of(target)
    try:
        info = unquote(target, encoding="latin-1")
        mounted = route_path(info, script, quote_path(script) + target, policy=MODERN)
    except RequestRefused:
        mounted = None
    assert (alone is None) == (mounted is None)
    if alone is not None and mounted is not None:
        assert (alone.path, alone.raw) == (mounted.path, mounted.raw)


@given(DECODED)
def test_quoting_can_be_undone_and_is_fit_for_the_wire(path: str) -> None:
    quoted = quote_path(path)
    assert unquote(quoted, encoding="latin-1") == path
    assert re.fullmatch(r"(?:[A-Za-z0-9~$\-_.+!*'(),;:@&=/]|%[0-9A-F]{2})*", quoted)


@given(DECODED)
def test_readings_are_paths_and_never_the_path_itself(path: str) -> None:
    readings = list(lax_readings("/" + path))
    assert len(set(readings)) == len(readings) < 8
    assert "/" + path not in readings
    assert all(reading.startswith("/") for reading in readings)


@given(st.text(max_size=30), st.text(max_size=10), st.one_of(st.none(), st.text(max_size=40)))
def test_nothing_a_server_could_say_breaks_it(info: str, script: str, raw: str | None) -> None:
    for policy in (MODERN, APACHE, APACHE.but(encoded_slash="nodecode"), MODERN.but(merge_slashes=False)):
        try:
            route = route_path(info, script, raw, policy=policy)
        except RequestRefused as refused:
            status = refused.status
        else:
            status = 400
            assert route.path.startswith("/")
            assert route.raw.startswith("/")
        assert status in (400, 404)


@pytest.mark.parametrize("info", ["/" * 4000 + "x", "/." * 4000, "/a/.." * 1300, "/%2f" * 1000, "/;" * 4000])
def test_long_paths_cost_little(info: str) -> None:
    import time

    start = time.perf_counter()
    of(info)
    list(lax_readings(unquote(info)))
    assert time.perf_counter() - start < 1
