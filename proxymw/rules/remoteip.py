"""Which address a request comes from, when proxies in front say so (mod_remoteip)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, NamedTuple

from .networks import NetworkSet, parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a proxy outside may not name: the networks mod_remoteip keeps for internal proxies.
_PRIVATE = NetworkSet(["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"])
_GLOBAL_V6 = IPv6Network("2000::/3")

# RFC 7239 4: for=192.0.2.1, for="[2001:db8::1]:4711", for=unknown, for=_hidden
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_BALANCED = re.compile(rf'(?:[^"]|{_QUOTED})*')
_ELEMENT = re.compile(rf'(?:[^",]|{_QUOTED})+')
_PAIR = rf'[ \t]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)=({_QUOTED}|[^;", \t]*)[ \t]*'
_PAIRS = re.compile(rf"{_PAIR}(?:;{_PAIR})*")
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")


class Entry(NamedTuple):
    """One element of the header: the address as text, None where it names none, and where the element ends."""

    address: str | None
    end: int


def addresses_in(value: str, *, forwarded: bool = False) -> list[Entry]:
    """The elements of an X-Forwarded-For value, or of a Forwarded one, from left to right."""
    if not forwarded:
        entries, end = [], -1
        for part in value.split(","):
            end += len(part) + 1
            entries.append(Entry(part.strip(" \t"), end))
        return entries
    # One open quote and what a client wrote would swallow what a proxy wrote after it.
    if not _BALANCED.fullmatch(value):
        return [Entry(None, len(value))]
    return [Entry(_node(found[0]), found.end()) for found in _ELEMENT.finditer(value)]


def _node(element: str) -> str | None:
    """The address of ``for=`` in one element of Forwarded."""
    if not _PAIRS.fullmatch(element):
        return None
    named = [value for name, value in re.findall(_PAIR, element) if name.lower() == "for"]
    if len(named) != 1:
        return None
    text = re.sub(r"\\(.)", r"\1", named[0][1:-1]) if named[0].startswith('"') else named[0]
    node = _NODE.fullmatch(text)
    return None if node is None else node[1] or node[2]


def walk_back(peer: str, addresses: Sequence[str | None], trusted: NetworkSet, external: NetworkSet) -> tuple[str, int]:
    """(the client's address, how many of ``addresses`` were used), walking from the right while each is a proxy's.

    Proxies of ``external`` may name public addresses only. The result is canonical text. An entry that is no address,
    or one that its proxy may not name, ends the walk.
    """
    current, used = peer, 0
    for text in reversed(addresses):
        inside = current in trusted
        if not inside and current not in external:
            break
        address = _plain(text)
        if address is None or not (inside or _public(address)):
            break
        current, used = str(address), used + 1
    return current, used


def _plain(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text or "")
    except ValueError:
        return None
    # A zone is of the proxy's host, and nothing to us.
    return None if getattr(address, "scope_id", None) is not None else parse_address(str(address))


def _public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address not in _PRIVATE
    return address in _GLOBAL_V6
