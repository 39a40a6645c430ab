"""ClientAddress: whom a forwarded address is believed from, and how far."""

from __future__ import annotations

from typing import Any

import pytest

from proxymw.clientaddress import ClientAddress
from proxymw.errors import ConfigError
from tests.wsgi.calling import call, echo_environ

EXTERNAL = ["192.0.2.1", "198.51.100.0/24", "2001:db8:ffff::1"]


def seen_by_app(skin_options: dict[str, Any], **environ: Any) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []
    options = {"trusted": ["127.0.0.1", "10.0.0.0/8"], "external": EXTERNAL, **skin_options}
    call(ClientAddress(echo_environ(seen), **options), **environ)
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client", "rest"),
    [
        # nobody trusted speaks
        ("203.0.113.9", "1.2.3.4", "203.0.113.9", "1.2.3.4"),
        # one trusted proxy
        ("192.0.2.1", "1.2.3.4", "1.2.3.4", None),
        ("::ffff:192.0.2.1", "1.2.3.4", "1.2.3.4", None),
        # a forged entry to the left is never reached
        ("192.0.2.1", "127.0.0.1, 1.2.3.4", "1.2.3.4", "127.0.0.1"),
        ("192.0.2.1", "192.0.2.1, 1.2.3.4", "1.2.3.4", "192.0.2.1"),
        # a chain of trusted proxies
        ("192.0.2.1", "1.2.3.4, 198.51.100.7", "1.2.3.4", None),
        ("192.0.2.1", "9.9.9.9,1.2.3.4 ,198.51.100.7", "1.2.3.4", "9.9.9.9"),
        ("10.0.0.1", "1.2.3.4, 2001:DB8:FFFF::1, 10.0.0.2", "1.2.3.4", None),
        # proxies of somebody else may not name private addresses; those in front of us may: a front that took the
        # proxy for the client let a whole network into what was allowed for 127.0.0.1
        ("192.0.2.1", "192.168.1.7", "192.0.2.1", "192.168.1.7"),
        ("10.0.0.1", "192.168.1.7", "192.168.1.7", None),
        ("10.0.0.1", "1.2.3.4, 10.0.0.2", "1.2.3.4", None),
        ("127.0.0.1", "192.168.1.233", "192.168.1.233", None),
        ("192.0.2.1", "::1", "192.0.2.1", "::1"),
        ("192.0.2.1", "fe80::1", "192.0.2.1", "fe80::1"),
        ("192.0.2.1", "172.16.0.1, 198.51.100.9", "198.51.100.9", "172.16.0.1"),
        # the walk ends at what is no address
        ("192.0.2.1", "unknown", "192.0.2.1", "unknown"),
        ("192.0.2.1", "1.2.3.4, nonsense, 198.51.100.7", "198.51.100.7", "1.2.3.4, nonsense"),
        ("192.0.2.1", "1.2.3.4:80", "192.0.2.1", "1.2.3.4:80"),
        ("192.0.2.1", "1.2.3.4,", "192.0.2.1", "1.2.3.4,"),
        ("192.0.2.1", "", "192.0.2.1", ""),
        ("192.0.2.1", "0x7f.1", "192.0.2.1", "0x7f.1"),
        ("192.0.2.1", "2001:db8::5%eth0", "192.0.2.1", "2001:db8::5%eth0"),
        # canonical text
        ("192.0.2.1", "2001:0DB8:0::5", "2001:db8::5", None),
        ("192.0.2.1", "::ffff:8.8.8.8", "8.8.8.8", None),
    ],
)
def test_the_walk(peer: str, forwarded: str, client: str, rest: str | None) -> None:
    environ = seen_by_app({}, REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded)
    assert environ["REMOTE_ADDR"] == client
    assert environ.get("HTTP_X_FORWARDED_FOR") == rest
    if client == peer:
        assert "proxymw.peer" not in environ
        assert environ["REMOTE_PORT"] == "40000"
    else:
        assert environ["proxymw.peer"] == peer
        assert "REMOTE_PORT" not in environ


def test_without_the_header_nothing_changes() -> None:
    assert seen_by_app({}, REMOTE_ADDR="192.0.2.1")["REMOTE_ADDR"] == "192.0.2.1"


def test_a_unix_socket_can_be_the_trusted_peer() -> None:
    options = {"trusted": "unix", "external": ()}
    assert seen_by_app(options, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="1.2.3.4")["REMOTE_ADDR"] == "1.2.3.4"
    assert seen_by_app({}, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="1.2.3.4")["REMOTE_ADDR"] == ""


def test_another_header_may_be_read_and_only_that() -> None:
    environ = seen_by_app(
        {"header": "X-Client"}, REMOTE_ADDR="10.0.0.1", HTTP_X_CLIENT="10.9.9.9", HTTP_X_FORWARDED_FOR="6.6.6.6"
    )
    assert environ["REMOTE_ADDR"] == "10.9.9.9"
    assert environ["HTTP_X_FORWARDED_FOR"] == "6.6.6.6"


@pytest.mark.parametrize(
    ("forwarded", "client", "rest"),
    [
        ("for=1.2.3.4", "1.2.3.4", None),
        ('For="1.2.3.4:4711";proto=https', "1.2.3.4", None),
        ('for="[2001:db8::5]:80"', "2001:db8::5", None),
        ("by=9.9.9.9;for=1.2.3.4, for=198.51.100.7;host=a", "1.2.3.4", None),
        ("for=127.0.0.1, for=1.2.3.4", "1.2.3.4", "for=127.0.0.1"),
        ("for=unknown", "192.0.2.1", "for=unknown"),
        ("for=_hidden, for=198.51.100.7", "198.51.100.7", "for=_hidden"),
        ("proto=https", "192.0.2.1", "proto=https"),
        ("for=1.2.3.4;for=5.6.7.8", "192.0.2.1", "for=1.2.3.4;for=5.6.7.8"),
        # a client's open quote must not swallow what the proxy wrote
        ('for=6.6.6.6;x=", for="[2001:db8::5]"', "192.0.2.1", 'for=6.6.6.6;x=", for="[2001:db8::5]"'),
        ('x=", for=1.2.3.4', "192.0.2.1", 'x=", for=1.2.3.4'),
        ('for="1.2.3.4, for=5.6.7.8"', "192.0.2.1", 'for="1.2.3.4, for=5.6.7.8"'),
    ],
)
def test_forwarded_of_rfc_7239(forwarded: str, client: str, rest: str | None) -> None:
    environ = seen_by_app({"header": "Forwarded"}, REMOTE_ADDR="192.0.2.1", HTTP_FORWARDED=forwarded)
    assert environ["REMOTE_ADDR"] == client
    assert environ.get("HTTP_FORWARDED") == rest


@pytest.mark.parametrize(
    ("peer", "value", "scheme"),
    [
        ("192.0.2.1", "https", "https"),
        ("192.0.2.1", "http, HTTPS", "https"),
        ("192.0.2.1", "https, http", "http"),
        ("192.0.2.1", "gopher", "http"),
        ("203.0.113.9", "https", "http"),
    ],
)
def test_the_scheme_is_believed_on_request_and_from_trusted_peers(peer: str, value: str, scheme: str) -> None:
    environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_PROTO": value}
    assert seen_by_app({"proto": "X-Forwarded-Proto"}, **environ)["wsgi.url_scheme"] == scheme
    assert seen_by_app({}, **environ)["wsgi.url_scheme"] == "http"


def test_client_is_the_decision_alone() -> None:
    skin = ClientAddress(None, EXTERNAL)
    assert skin.client("192.0.2.1", "9.9.9.9, 1.2.3.4, 198.51.100.7") == "1.2.3.4"
    assert skin.client("203.0.113.9", "1.2.3.4") == "203.0.113.9"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"trusted": ()}, "^trusted must be "),
        ({"trusted": "proxy.example"}, "^trusted must be IP addresses"),
        ({"trusted": "10", "header": "X Forwarded"}, "^header must be a header name"),
        ({"trusted": "10", "proto": ""}, "^proto must be a header name"),
    ],
)
def test_bad_configuration_is_said_at_once(arguments: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ClientAddress(None, **arguments)


def test_repr_tells_what_is_read_from_whom() -> None:
    assert repr(ClientAddress(None, "10")).startswith("<ClientAddress X-Forwarded-For from <NetworkSet 10> -> ")
