"""NetworkSet: which addresses a list of rules means, and which lists are refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxymw.errors import ConfigError
from proxymw.rules.networks import NetworkSet, parse_address

MEANINGS = [
    # rule, inside, outside
    ("10.1.2.3", ["10.1.2.3", "::ffff:10.1.2.3", "::FFFF:0a01:0203"], ["10.1.2.4", "::10.1.2.3", "", "10.1.2.3 "]),
    ("10", ["10.0.0.0", "10.255.255.255"], ["11.0.0.0", "1.0.0.0", "100.0.0.1"]),
    ("10.1", ["10.1.0.0", "10.1.255.255"], ["10.10.0.1", "10.2.0.0"]),
    ("10.1.", ["10.1.9.9"], ["10.11.1.1"]),
    ("192.168.1", ["192.168.1.233"], ["192.168.10.1", "192.168.11.1"]),
    ("192.168.1.23", ["192.168.1.23"], ["192.168.1.233", "192.168.1.2"]),
    ("10.1.0.0/255.255.0.0", ["10.1.7.7"], ["10.2.0.1"]),
    ("10.1.0.0/16", ["10.1.7.7"], ["10.2.0.1"]),
    ("10.1.2.3/32", ["10.1.2.3"], ["10.1.2.2"]),
    ("128.0.0.0/1", ["255.1.1.1", "128.0.0.0"], ["127.255.255.255", "ffff::1"]),
    ("2001:db8::/32", ["2001:db8:ffff::1", "2001:DB8::"], ["2001:db9::1", "32.1.13.184"]),
    ("2001:db8::1", ["2001:db8::1", "2001:0db8:0:0::0001"], ["2001:db8::2"]),
    ("fe80::/10", ["fe80::1%eth0", "febf::1"], ["fec0::1"]),
    ("::1", ["::1"], ["127.0.0.1", "0.0.0.1"]),
    ("all", ["1.2.3.4", "::1", "::ffff:1.2.3.4"], ["", "garbage", "1.2.3", "unix"]),
    ("unix", [""], ["127.0.0.1", "unix", "::"]),
    ("64:ff9b::/96", ["64:ff9b::a00:1"], ["10.0.0.1"]),
]


@pytest.mark.parametrize(("rule", "inside", "outside"), MEANINGS)
def test_a_rule_means_these_addresses_and_not_those(rule: str, inside: list[str], outside: list[str]) -> None:
    networks = NetworkSet([rule])
    assert [a for a in inside if a not in networks] == []
    assert [a for a in outside if a in networks] == []


@pytest.mark.parametrize(
    "peer", ["0177.0.0.1", "127.1", "2130706433", "127.0.0.1:80", "127.0.0.1\n", "[::1]", "localhost"]
)
def test_a_peer_spelled_otherwise_than_as_an_address_is_in_no_set(peer: str) -> None:
    assert peer not in NetworkSet(["127", "all", "::1", "unix"])


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("example.org", "host names are not looked up"),
        (".net", "host names"),
        ("10.0.0.*", "host names"),
        ("1.2.3.4,5.6.7.8", "host names"),
        ("*", "host names"),
        ("256.1", "0 to 255"),
        ("010.1.2.3", "plain decimal"),
        ("10.1/16", "whole address"),
        ("0.0.0.0/0", "'all'"),
        ("::/0", "'all'"),
        ("0.0.0.0/0.0.0.0", "prefix length"),
        ("10.0.0.0/33", "1 to 32"),
        ("2001:db8::/129", "1 to 128"),
        ("10.0.0.0/", "after the slash"),
        ("2001:db8::/ffff::", "after the slash"),
        ("10.0.0.0/255.0.255.0", "after the slash"),
        ("10.1.2.3/16", "the network is 10.1.0.0"),
        ("::ffff:1.2.3.4", "as 1.2.3.4"),
        ("fe80::1%eth0", "zone"),
        ("10.0.0.1#x", "host names"),
        ("", "host names"),
        ("2001:db8:::1", "IP addresses"),
    ],
)
def test_a_rule_that_would_surprise_is_refused_with_the_way_out(rule: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        NetworkSet([rule], name="allow")
    assert str(caught.value).startswith("allow must ")
    assert repr(rule) in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("10.1.2.3/16", "10.1.0.9", "10.2.0.9"),
        ("10.0.5.0/255.0.255.0", "10.77.5.9", "10.77.6.9"),
        ("0.0.0.0/0.0.0.0", "9.9.9.9", "::1"),
        ("010.0.0.1", "10.0.0.1", "8.0.0.1"),
    ],
)
def test_lenient_sets_take_what_apache_takes(rule: str, inside: str, outside: str) -> None:
    networks = NetworkSet([rule], strict=False)
    assert inside in networks
    assert outside not in networks


def test_rules_may_be_ipaddress_objects_and_one_string_is_one_rule() -> None:
    networks = NetworkSet([ip_network("10.0.0.0/8"), IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")])
    assert IPv4Address("10.9.9.9") in networks
    assert "192.0.2.1" in networks
    assert "10.1.2.3" in NetworkSet("10.1.2.3")
    assert "1.0.0.0" not in NetworkSet("10.1.2.3")


def test_an_empty_set_holds_nobody_and_is_false() -> None:
    assert not NetworkSet()
    assert "127.0.0.1" not in NetworkSet()
    assert repr(NetworkSet()) == "<NetworkSet empty>"
    assert repr(NetworkSet(["10", "::1"])) == "<NetworkSet 10, ::1>"


def test_sets_are_values() -> None:
    assert NetworkSet(["10.1", "::1"]) == NetworkSet(["::1", "10.1.0.0/16"])
    assert hash(NetworkSet(["10.1"])) == hash(NetworkSet(["10.1.0.0/16"]))
    assert NetworkSet(["10.1"]) != NetworkSet(["10.1", "all"])


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(1, 128))
def test_membership_agrees_with_ipaddress(base: IPv4Address, peer: IPv4Address, length: int) -> None:
    length = min(length, base.max_prefixlen)
    network = ip_network(f"{base}/{length}", strict=False)
    if parse_address(str(network.network_address)) != network.network_address:
        return  # a mapped network cannot be written as a rule
    known = parse_address(str(peer))
    assert (str(peer) in NetworkSet([network])) == (known in network)
    assert str(network.network_address) in NetworkSet([network])
