"""Prefix tables against ALIAS_MATCH, read character by character, and rule indexes against a plain loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxymw.rules.matchers import PathPrefix, PrefixTable
from proxymw.rules.rewriting import RewriteEngine, RewriteRule

PATHS = st.lists(st.sampled_from(["/", "a", "b", "ab", "//", "/a"]), max_size=7).map(lambda parts: "/" + "".join(parts))


def slow_match(path: str, prefix: str) -> int | None:
    """mod_alias: runs of slashes match runs of slashes, anything else itself; the end must be at a segment's end."""
    at = to = 0
    while at < len(prefix) and to < len(path):
        if prefix[at] == "/":
            if path[to] != "/":
                return None
            while at < len(prefix) and prefix[at] == "/":
                at += 1
            while to < len(path) and path[to] == "/":
                to += 1
        elif prefix[at] == path[to]:
            at, to = at + 1, to + 1
        else:
            return None
    if at < len(prefix):
        return None
    if prefix[-1] != "/" and to < len(path) and path[to] != "/":
        return None
    return to


@given(PATHS, PATHS)
def test_one_prefix(path: str, prefix: str) -> None:
    assert PathPrefix(prefix).match(path) == slow_match(path, prefix)


@given(st.lists(PATHS, max_size=8), PATHS)
def test_a_table_is_its_prefixes_one_after_the_other(prefixes: list[str], path: str) -> None:
    table = PrefixTable((prefix, place) for place, prefix in enumerate(prefixes))
    want = next(
        ((place, count) for place, prefix in enumerate(prefixes) if (count := slow_match(path, prefix)) is not None),
        None,
    )
    assert table.match(path) == want
    if want is not None:
        assert want[0] not in dict(table.shadowed())


@given(st.lists(PATHS, max_size=8))
def test_what_is_called_shadowed_is_covered(prefixes: list[str]) -> None:
    table = PrefixTable((prefix, place) for place, prefix in enumerate(prefixes))
    for later, earlier in table.shadowed():
        assert earlier < later
        assert PathPrefix(prefixes[earlier]).covers(PathPrefix(prefixes[later]))


RULES = st.lists(
    st.tuples(
        st.sampled_from(["^/a/", "^/b/(.*)$", "^/a$", "^/ab/", "^/(.*)$", "b", "!^/a/", "^/a/b/", "^/A/", "^/a"]),
        st.sampled_from(["/a/x", "/b/$1", "/ab/", "-"]),
        st.sampled_from(["", "L", "C", "NC", "C,NC", "N=2"]),
    ),
    max_size=7,
)


@given(RULES, PATHS)
def test_the_index_over_first_segments_changes_no_decision(rules: list[tuple[str, str, str]], path: str) -> None:
    engine = RewriteEngine([RewriteRule(*rule) for rule in rules])
    fast = engine.decide(path)
    # With a trace every rule takes its turn.
    assert engine.decide(path, trace=[]) == fast
