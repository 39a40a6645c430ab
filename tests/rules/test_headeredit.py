"""What Header and RequestHeader do to a list of headers."""

from __future__ import annotations

import pytest

from proxymw.rules.headeredit import Pairs, edited

BEFORE: Pairs = [("A", "1"), ("X-Tag", "one, two"), ("Set-Cookie", "a=1"), ("x-tag", "three"), ("set-cookie", "b=2")]


@pytest.mark.parametrize(
    ("action", "name", "value", "after"),
    [
        ("set", "x-TAG", "9", [("A", "1"), ("x-TAG", "9"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")]),
        ("set", "New", "9", [*BEFORE, ("New", "9")]),
        ("add", "Set-Cookie", "c=3", [*BEFORE, ("Set-Cookie", "c=3")]),
        ("append", "a", "2", [("A", "1, 2"), *BEFORE[1:]]),
        ("append", "New", "9", [*BEFORE, ("New", "9")]),
        (
            "append",
            "X-Tag",
            "two",
            [("A", "1"), ("X-Tag", "one, two, three, two"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")],
        ),
        ("merge", "X-Tag", "two", BEFORE),
        ("merge", "A", "2", [("A", "1, 2"), *BEFORE[1:]]),
        ("merge", "New", "9", [*BEFORE, ("New", "9")]),
        ("unset", "SET-cookie", "", [("A", "1"), ("X-Tag", "one, two"), ("x-tag", "three")]),
        ("unset", "New", "", BEFORE),
        ("setifempty", "A", "2", BEFORE),
        ("setifempty", "New", "2", [*BEFORE, ("New", "2")]),
    ],
)
def test_changes(action: str, name: str, value: str, after: Pairs) -> None:
    before = list(BEFORE)
    assert edited(before, action, name, value) == after
    assert before == BEFORE  # the caller's list is left alone


@pytest.mark.parametrize(
    ("action", "pattern", "replacement", "value", "after"),
    [
        ("edit", "o", "0", "foo", "f0o"),
        ("edit*", "o", "0", "foo", "f00"),
        ("edit", "^(.*)$", "$1; Secure", "a=1", "a=1; Secure"),
        ("edit", "(a)(b)?", "[$0|$1|$2|$9]", "ac", "[a|a||]c"),
        ("edit", "a", r"\$1 $$", "a", "$1 $$"),
        ("edit", "x", "y", "abc", "abc"),
        ("edit*", "b", "", "abcb", "ac"),
        ("edit", "b", "\n", "abc", "ac"),
    ],
)
def test_edits(action: str, pattern: str, replacement: str, value: str, after: str) -> None:
    assert edited([("N", value), ("M", value), ("n", value)], action, "n", pattern, replacement) == [
        ("N", after),
        ("M", value),
        ("n", after),
    ]


def test_a_quoted_comma_does_not_divide_a_list() -> None:
    before: Pairs = [("N", 'a="x, b", c')]
    assert edited(before, "merge", "N", "b") == [("N", 'a="x, b", c, b')]
    assert edited(before, "merge", "N", "c") == before
