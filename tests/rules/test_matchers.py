"""Prefixes: Apache's segment and slash rules, declared order, and a cost that does not grow with the table."""

import time

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.matchers import PathPrefix, PrefixTable


@pytest.mark.parametrize(
    ("prefix", "path", "rest"),
    [
        ("/static/", "/static", None),
        ("/static/", "/static/", ""),
        ("/static/", "/static/screen.css", "screen.css"),
        ("/static/", "/static//screen.css", "screen.css"),
        ("/static/", "/static/a//b", "a//b"),
        ("/static/", "/staticx", None),
        ("/static/", "/", None),
        ("/media", "/media", ""),
        ("/media", "/media/", "/"),
        ("/media", "/media/x", "/x"),
        ("/media", "//media/x", "/x"),
        ("/media", "/mediaX", None),
        ("/media", "/media.png", None),
        ("/media", "/media;x=1", None),
        ("/media", "/media:8000/x", None),
        ("/media", "/Media", None),
        ("/", "/", ""),
        ("/", "/x", "x"),
        ("/", "//x", "x"),
        ("//a//b/", "/a/b/c", "c"),
        ("/caf\u00e9/", "/caf\xc3\xa9/x", "x"),
    ],
)
def test_segments_and_slashes(prefix: str, path: str, rest: str | None) -> None:
    consumed = PathPrefix(prefix).match(path)
    assert (None if consumed is None else path[consumed:]) == rest


@pytest.mark.parametrize("prefix", ["", "static", "http://h/", "/a/../b", "/./a", 7, None])
def test_what_is_not_a_prefix(prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"prefix must be"):
        PathPrefix(prefix)


def test_declared_order_decides_not_length() -> None:
    table = PrefixTable([("/a", 1), ("/a/b/", 2), ("/", 3)])
    assert table.match("/a/b/c") == (1, 2)
    assert table.match("/ab") == (3, 1)
    assert PrefixTable([("/a/b/", 2), ("/a", 1)]).match("/a/b/c") == (2, 5)


def test_nothing_matches_an_empty_table() -> None:
    assert PrefixTable([]).match("/a") is None


def test_entries_that_can_never_win_are_told() -> None:
    table = PrefixTable([("/a", 1), ("/a/b/", 2), ("/x/", 3), ("/x", 4), ("/x", 5), ("/x/", 6)])
    assert dict(table.shadowed()) == {1: 0, 4: 3, 5: 2}


def test_covering() -> None:
    assert PathPrefix("/a").covers(PathPrefix("/a/"))
    assert not PathPrefix("/a/").covers(PathPrefix("/a"))
    assert PathPrefix("/").covers(PathPrefix("/a"))
    assert PathPrefix("/a").covers(PathPrefix("/a/b"))
    assert not PathPrefix("/a").covers(PathPrefix("/ab"))


def test_ten_thousand_prefixes_cost_about_what_ten_do() -> None:
    def cost(size: int) -> float:
        table = PrefixTable((f"/app{n}/part{n % 7}/", n) for n in range(size))
        path = f"/app{size - 1}/part{(size - 1) % 7}/x/y/z"
        best = float("inf")
        for _ in range(7):
            start = time.perf_counter()
            for _ in range(300):
                table.match(path)
            best = min(best, time.perf_counter() - start)
        return best

    assert cost(10_000) < 4 * cost(10)


def test_networks_and_hosts_are_matchers_too() -> None:
    from proxymw.rules import hosts, matchers, networks

    assert matchers.NetworkSet is networks.NetworkSet
    assert matchers.HostPattern is hosts.HostPattern
    with pytest.raises(AttributeError):
        matchers.Nothing  # noqa: B018
