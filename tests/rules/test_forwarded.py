"""What an origin is told about the client."""

from __future__ import annotations

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.forwarded import Forwarding
from proxymw.rules.policy import Policy

MODERN = Policy.modern()


def lines(policy: Policy, *about: str, **more: object) -> list[str]:
    text, count = Forwarding(policy).lines(*about, **more)  # type: ignore[arg-type]
    found = text.split("\r\n")
    assert found[0] == ""
    assert len(found) - 1 == count
    return found[1:]


def test_modern() -> None:
    assert lines(MODERN, "10.0.0.1", "front", "https", "/wiki", "1.0") == [
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Host: front",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Prefix: /wiki",
        "Via: 1.0 proxymw",
    ]
    assert lines(MODERN, "10.0.0.1", "front", "https")[-2:] == ["X-Forwarded-Proto: https", "Via: 1.1 proxymw"]


def test_what_is_not_known_is_not_said() -> None:
    assert lines(MODERN, "", "", "http") == ["X-Forwarded-Proto: http", "Via: 1.1 proxymw"]


def test_appending() -> None:
    sent = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Server": "edge"}
    assert lines(Policy.apache(), "10.0.0.1", "front", "http", sent=sent) == [
        "X-Forwarded-For: 6.6.6.6, 10.0.0.1",
        "X-Forwarded-Host: front",
        "X-Forwarded-Server: edge, proxymw",
    ]


@pytest.mark.parametrize(
    ("address", "host", "value"),
    [
        ("10.0.0.1", "front", "for=10.0.0.1;host=front;proto=http"),
        ("2001:db8::1", "front:80", 'for="[2001:db8::1]";host="front:80";proto=http'),
        ("", "", "for=unknown;proto=http"),
    ],
)
def test_forwarded_of_rfc_7239(address: str, host: str, value: str) -> None:
    policy = MODERN.but(forwarded=("forwarded",), via="off")
    assert lines(policy, address, host, "http") == [f"Forwarded: {value}"]


@pytest.mark.parametrize(
    ("via", "before", "value"),
    [
        ("on", "", "1.1 me"),
        ("on", "1.0 fred", "1.0 fred, 1.1 me"),
        ("full", "", "1.1 me (proxymw)"),
        ("block", "1.0 fred", ""),
        ("off", "1.0 fred", ""),
    ],
)
def test_via(via: str, before: str, value: str) -> None:
    policy = MODERN.but(via=via, server_name="me", forwarded=())
    assert Forwarding(policy).via_field("1.1", before) == value
    text, count = Forwarding(policy).lines("a", "b", "http", via=before)
    assert (text, count) == (f"\r\nVia: {value}" if value else "", int(bool(value)))


@pytest.mark.parametrize(
    ("via", "loops"),
    [
        ("1.1 proxymw", False),
        ("1.1 proxymw, 1.1 proxymw", True),
        ("1.1 other, 1.1 other", False),
        ("1.1 proxymw.example, 1.1 xproxymw", False),
        (",,1.1 proxymw ,2 proxymw (c)", True),
    ],
)
def test_a_loop_is_our_own_name_twice(via: str, loops: bool) -> None:
    assert Forwarding(MODERN).loops(via) is loops


def test_what_is_dropped() -> None:
    assert {"x-forwarded-for", "forwarded", "x-real-ip", "via"} <= Forwarding(MODERN).dropped
    assert Forwarding(Policy.apache()).dropped == {"x-forwarded-for", "x-forwarded-host", "x-forwarded-server"}


@pytest.mark.parametrize("changes", [{"forwarded": ("X-Other",)}, {"server_name": "a b"}, {"server_name": "a\r\nb"}])
def test_bad_policies(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=" must be "):
        Forwarding(MODERN.but(**changes))
