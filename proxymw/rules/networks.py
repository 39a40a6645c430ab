"""Sets of client addresses, in every form ``Allow from`` and ``Require ip`` know."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from proxymw.errors import ConfigError
from proxymw.rules.options import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_DOTTED = re.compile(r"\d+(?:\.\d+){0,3}\.?", re.ASCII)
_PREFIX = re.compile(r"\d{1,3}", re.ASCII)
#: (bits of an address, bits of a mask), by IP version.
_FULL = {4: (1 << 32) - 1, 6: (1 << 128) - 1}


def parse_address(text: str) -> Address | None:
    """The address a peer is known by, or None where ``text`` is not one.

    IPv4-mapped IPv6 (``::ffff:10.0.0.1``, what a dual-stack socket reports) is the IPv4 address; a zone
    (``fe80::1%eth0``) is left out, since rules cannot carry one.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            return IPv6Address(int(address))
    return address


class NetworkSet:
    """A frozen set of networks; ``"192.168.1.7" in networks`` is a few dictionary look-ups, however many there are.

    ``rules`` are strings or ``ipaddress`` objects:

    =================================  ================================================================
    ``all``                            everyone with an IP address
    ``unix``                           a peer without one (the server listens on a UNIX socket)
    ``10.1.2.3``, ``2001:db8::1``      that address
    ``10``, ``10.1``, ``192.168.1``    the first one to three bytes; one trailing dot is accepted
    ``10.1.0.0/255.255.0.0``           address and mask
    ``10.1.0.0/16, 2001:db8::/32``     CIDR
    =================================  ================================================================

    ``strict=False`` accepts what Apache does and people regret: bits below the mask (cleared), masks with holes or of
    zeros, and leading zeros (decimal). A prefix length of 0 is an error in Apache too; write ``all``. Host names are
    refused: looking them up in the request path is slow, and lets whoever runs the reverse zone decide.
    """

    __slots__ = ("_by_mask", "everyone", "texts", "unix")

    def __init__(
        self, rules: Iterable[str | Address | Network] = (), *, strict: bool = True, name: str = "rules"
    ) -> None:
        if isinstance(rules, (str, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
            rules = (rules,)
        rules = listed(name, rules, "addresses and networks")
        for rule in rules:
            if not isinstance(rule, (str, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
                raise ConfigError(f"{name} must be IP addresses or networks, got {rule!r}")
        by_mask: dict[tuple[int, int], set[int]] = {}
        self.texts = tuple(str(rule) for rule in rules)
        self.everyone = self.unix = False
        for text in self.texts:
            if text.lower() == "all":
                self.everyone = True
            elif text.lower() == "unix":
                self.unix = True
            else:
                version, bits, mask = _parse(text, strict, name)
                by_mask.setdefault((version, mask), set()).add(bits)
        self._by_mask = tuple((version, mask, frozenset(nets)) for (version, mask), nets in by_mask.items())

    def __contains__(self, address: object) -> bool:
        """Whether ``address`` (text as in ``REMOTE_ADDR``, or an ``ipaddress`` object) is in one of the networks."""
        if address == "":
            return self.unix
        known = parse_address(str(address))
        if known is None:
            return False
        if self.everyone:
            return True
        bits, version = int(known), known.version
        return any(version == of and bits & mask in nets for of, mask, nets in self._by_mask)

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NetworkSet):
            return NotImplemented
        mine = (self.everyone, self.unix, frozenset(self._by_mask))
        return mine == (other.everyone, other.unix, frozenset(other._by_mask))

    def __hash__(self) -> int:
        return hash((self.everyone, self.unix, frozenset(self._by_mask)))

    def __repr__(self) -> str:
        return f"<NetworkSet {', '.join(self.texts) or 'empty'}>"


def _parse(text: str, strict: bool, name: str) -> tuple[int, int, int]:
    """(IP version, network bits, mask bits) of one rule."""
    head, slash, mask_text = text.partition("/")
    if not slash and _DOTTED.fullmatch(head):
        return _partial(text, strict, name)
    if ":" not in head and not _DOTTED.fullmatch(head):
        raise ConfigError(f"{name} must be IP addresses or networks (host names are not looked up), got {text!r}")
    address = _plain_address(head, text, name)
    full = _FULL[address.version]
    mask = _mask(mask_text, address, text, strict, name) if slash else full
    bits = int(address) & mask
    if strict and bits != int(address):
        network = IPv4Address(bits) if address.version == 4 else IPv6Address(bits)
        raise ConfigError(f"{name} must have no bits set below the mask, got {text!r}: the network is {network}")
    return address.version, bits, mask


def _partial(text: str, strict: bool, name: str) -> tuple[int, int, int]:
    octets = text.removesuffix(".").split(".")
    # ``010`` is octal to some and decimal to others (to Apache): refused, as ipaddress does.
    if any(int(octet) > 255 or (strict and octet != str(int(octet))) for octet in octets):
        raise ConfigError(f"{name} must be IPv4 addresses with plain decimal bytes of 0 to 255, got {text!r}")
    missing = 8 * (4 - len(octets))
    bits = int.from_bytes(bytes(map(int, octets)), "big") << missing
    return 4, bits, _FULL[4] >> missing << missing


def _plain_address(head: str, text: str, name: str) -> Address:
    try:
        address = ip_address(head)
    except ValueError:
        hint = "a whole address before the slash" if "/" in text else "IP addresses or networks"
        raise ConfigError(f"{name} must be {hint}, got {text!r}") from None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise ConfigError(f"{name} must name IPv4 addresses as {address.ipv4_mapped}, got {text!r}")
        if address.scope_id is not None:
            raise ConfigError(f"{name} must be addresses without a zone, got {text!r}")
    return address


def _mask(mask_text: str, address: Address, text: str, strict: bool, name: str) -> int:
    full, width = _FULL[address.version], address.max_prefixlen
    if _PREFIX.fullmatch(mask_text):
        length = int(mask_text)
        if not 1 <= length <= width:
            hint = "'all' for everyone" if length == 0 else f"a prefix length of 1 to {width}"
            raise ConfigError(f"{name} must use {hint}, got {text!r}")
        return full >> (width - length) << (width - length)
    try:
        mask = int(IPv4Address(mask_text)) if address.version == 4 else -1
    except ValueError:
        mask = -1
    holes = mask < 0 or (~mask & full) & ((~mask & full) + 1)
    if mask < 0 or (strict and (holes or mask == 0)):
        raise ConfigError(f"{name} must have a prefix length or a mask like 255.255.0.0 after the slash, got {text!r}")
    return mask
