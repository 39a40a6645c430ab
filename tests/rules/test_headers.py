"""What plain text says about header fields."""

from __future__ import annotations

import pytest

from proxymw.rules.headers import (
    connection_options,
    end_to_end,
    header_value,
    is_length,
    is_token,
    is_value,
    status_line,
)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        *[(200, "200 OK"), (404, "404 Not Found"), (413, "413 Content Too Large"), (508, "508 Loop Detected")],
        *[(299, "299 Success"), (499, "499 Client Error"), (599, "599 Server Error"), (399, "399 Redirection")],
    ],
)
def test_a_status_always_has_a_phrase(status: int, line: str) -> None:
    assert status_line(status) == line


@pytest.mark.parametrize(
    ("value", "options"), [("close", {"close"}), (" ,, Close ,\tX-A,,", {"close", "x-a"}), ("", set()), (",", set())]
)
def test_connection_options(value: str, options: set[str]) -> None:
    assert connection_options(value) == options


def test_only_end_to_end_fields_go_on() -> None:
    headers = [
        ("A", "1"),
        ("connection", "x-b, Content-Length"),
        ("X-B", "2"),
        ("Upgrade", "u"),
        ("Content-Length", "3"),
    ]
    assert end_to_end(headers) == [("A", "1"), ("Content-Length", "3")]
    headers = [("Connection", "a"), ("A", "1"), ("Connection", "b"), ("B", "2"), ("a", "3"), ("C", "4")]
    assert end_to_end(headers) == [("C", "4")]


def test_the_first_value_whatever_its_case() -> None:
    assert header_value([("X-A", "1"), ("x-a", "2")], "X-a") == "1"
    assert header_value([], "X-a") is None


def test_tokens_values_and_lengths() -> None:
    assert is_token("X-A!#$%&'*+.^_`|~0")
    assert not any(is_token(bad) for bad in ("", "a b", "a:", "a\n", "\xe9", "(a)", 'a"'))
    assert is_value("a \t\xe9")
    assert not any(is_value(bad) for bad in ("a\n", "\0", "\x7f", "a\r"))
    assert is_length("0" * 18)
    assert not any(is_length(bad) for bad in ("", "1" * 19, "\u0661", "\xb2", "1\n", "+1"))
