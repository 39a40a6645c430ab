"""IPAllowlist: the Order table, what counts as an address, and that nothing walks around it."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import product
from typing import Any

import pytest

from proxymw.allow import IPAllowlist
from proxymw.errors import ConfigError
from proxymw.rules.networks import NetworkSet
from tests.wsgi.calling import call, echo_environ

CLIENT = "127.0.0.1"
# The values of httpd's own access.t; host names aside, which are callables here (resolved by nobody).
VALUES: dict[str, Any] = {
    "all": "all",
    "its name": lambda environ: environ["REMOTE_ADDR"] == CLIENT,
    "its address": "127.0.0.1",
    "two bytes": "127.0",
    "mask": "127.0.0.0/255.255.0.0",
    "cidr": "127.0.0.0/16",
    "another name": lambda environ: False,
    "another address": "63.125.18.195",
}
MATCHING = {"all", "its name", "its address", "two bytes", "mask", "cidr"}
TABLE = [
    (order, allow, deny)
    for order, allow, deny in product(["deny,allow", "allow,deny", "mutual-failure"], [*VALUES, None], [*VALUES, None])
]


@pytest.mark.parametrize(("order", "allow", "deny"), TABLE)
def test_the_order_table(order: Any, allow: str | None, deny: str | None) -> None:
    guard = IPAllowlist(
        echo_environ([]),
        [] if allow is None else [VALUES[allow]],
        [] if deny is None else [VALUES[deny]],
        order=order,
    )
    if order == "deny,allow":
        passed = allow in MATCHING or deny not in MATCHING
    else:
        passed = allow in MATCHING and deny not in MATCHING
    assert guard.allows(CLIENT) is passed
    answer = call(guard)
    assert answer.code == (200 if passed else 403)
    assert answer.environ.get("proxymw.allowed", False) is (passed and allow in MATCHING)


def test_allow_alone_denies_everyone_else() -> None:
    guard = IPAllowlist(echo_environ([]), ["127.0.0.1", "192.168.1.233"])
    assert [guard.allows(a) for a in ("127.0.0.1", "192.168.1.233", "::ffff:192.168.1.233")] == [True] * 3
    assert [guard.allows(a) for a in ("192.168.1.23", "127.0.0.2", "::1", "", "x")] == [False] * 5


def test_deny_takes_out_of_what_is_allowed_and_alone_denies_only_those() -> None:
    guard = IPAllowlist(None, "10", "10.0.0.66")
    assert [guard.allows(a) for a in ("10.0.0.1", "10.0.0.66", "11.0.0.1")] == [True, False, False]
    guard = IPAllowlist(None, deny="10.0.0.66")
    assert [guard.allows(a) for a in ("10.0.0.1", "10.0.0.66", "")] == [True, False, False]


def test_an_empty_allowlist_denies_everybody_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert not IPAllowlist(None).allows("127.0.0.1")
    assert "event=allowlist_empty" in caplog.text


def test_order_may_be_written_as_the_directive_is() -> None:
    assert not IPAllowlist(None, "10", "10.6", "Allow,Deny").allows("10.6.0.1")
    assert IPAllowlist(None, "10", "10.6", order="Deny,Allow").allows("10.6.0.1")


@pytest.mark.parametrize("order", [None, "deny,allow", "allow,deny"])
@pytest.mark.parametrize("address", ["", "garbage", "127.0.0.1:80", "localhost", "0177.0.0.1"])
def test_who_has_no_address_is_denied(order: Any, address: str) -> None:
    assert not IPAllowlist(None, "all", order=order).allows(address)
    assert not IPAllowlist(None, deny="10", order=order).allows(address)


def test_a_unix_socket_peer_is_allowed_by_name_only() -> None:
    assert call(IPAllowlist(echo_environ([]), "unix"), REMOTE_ADDR="").code == 200
    assert call(IPAllowlist(echo_environ([]), "all"), REMOTE_ADDR="").code == 403


@pytest.mark.parametrize(
    "header",
    ["HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_CLIENT_IP", "REMOTE_HOST"],
)
def test_no_header_opens_the_list(header: str) -> None:
    seen: list[Any] = []
    answer = call(IPAllowlist(echo_environ(seen), "127.0.0.1"), REMOTE_ADDR="203.0.113.9", **{header: "127.0.0.1"})
    assert answer.code == 403
    assert seen == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "PUT", "PATCH"])
def test_every_method_is_treated_alike(method: str) -> None:
    answer = call(IPAllowlist(echo_environ([]), "127.0.0.1"), method=method, REMOTE_ADDR="203.0.113.9")
    assert answer.code == 403
    assert answer.body == (b"" if method == "HEAD" else b"403 Forbidden\n")


def test_the_refusal_is_a_fixed_text() -> None:
    answer = call(IPAllowlist(None, "127.0.0.1"), "/<script>?q=<b>", REMOTE_ADDR="203.0.113.9")
    assert answer.body == b"403 Forbidden\n"
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(("path", "status"), [("/../x", 400), ("/a\x01b", 400), ("/a\0b", 404), ("/a/../b", 200)])
def test_a_path_that_cannot_be_mapped_stops_here(path: str, status: int) -> None:
    answer = call(IPAllowlist(echo_environ([]), "127.0.0.1"), path, RAW_URI=None)
    assert answer.code == status
    assert call(IPAllowlist(None, "10"), path, RAW_URI=None).code == 403  # the address goes first


def test_the_environ_is_passed_on_as_it_came() -> None:
    seen: list[Any] = []
    answer = call(IPAllowlist(echo_environ(seen), "127.0.0.1"), "/a//b", SCRIPT_NAME="/m", RAW_URI="/m/a//b")
    assert (seen[0]["SCRIPT_NAME"], seen[0]["PATH_INFO"]) == ("/m", "/a//b")
    assert answer.body == b"ok"
    added = {key for key in answer.environ if key.startswith("proxymw.")}
    assert added >= {"proxymw.allowed"}


def test_callables_are_asked_for_each_request() -> None:
    def is_read(environ: Any) -> bool:
        return environ["REQUEST_METHOD"] in ("GET", "HEAD")

    guard = IPAllowlist(echo_environ([]), [is_read, "10.0.0.1"])
    codes = [call(guard, method=method).code for method in ("GET", "POST", "GET")]
    assert codes == [200, 403, 200]
    assert call(guard, method="POST", REMOTE_ADDR="10.0.0.1").code == 200
    assert "is_read" in repr(guard)
    assert guard.allows("1.2.3.4", {"REQUEST_METHOD": "GET"})


def test_networks_may_be_given_ready_made() -> None:
    guard = IPAllowlist(None, [NetworkSet(["10.1.2.3/16"], strict=False), ip_network("192.0.2.0/24"), "::1"])
    assert [guard.allows(a) for a in ("10.1.9.9", "192.0.2.9", "::1", "10.2.0.1")] == [True, True, True, False]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxymw.allow._REMEMBERED", 8)
    guard = IPAllowlist(None, "10.0.0")
    verdicts = [guard.allows(f"10.0.{n % 2}.{n}") for n in range(100)]
    assert verdicts == [n % 2 == 0 for n in range(100)]
    assert len(guard._seen) <= 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"allow": ["example.org"]}, "^allow must be IP addresses or networks"),
        ({"deny": ["10.0.0.0/0"]}, "^deny must use 'all' for everyone"),
        ({"allow": "10", "order": "allow, deny"}, "^order must be one of .*'allow,deny'.* got 'allow, deny'"),
    ],
)
def test_bad_configuration_is_said_at_once(arguments: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        IPAllowlist(None, **arguments)


def test_repr_tells_who() -> None:
    guard = IPAllowlist(echo_environ([]), ["10", "::1"], "10.6", order="allow,deny")
    assert repr(guard).startswith("<IPAllowlist allow 10, ::1 deny 10.6 order=allow,deny -> ")
