"""What may follow ``Allow from`` and ``Require ip``: Apache's reading of it, spelled the way NetworkSet takes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from proxymw.errors import ConfigError
from proxymw.rules.networks import NetworkSet

_LOOKS_LIKE_IP = re.compile(r"[\d.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


@dataclass(frozen=True, slots=True)
class Client:
    """One entry: everyone, a network, a host name, or an environment variable that must be set (or not)."""

    kind: Literal["all", "ip", "host", "env", "unless-env"]
    text: str


def parse_client(text: str) -> Client:
    """The meaning of one word; ValueError where Apache refuses it."""
    if text.lower() == "all":
        return Client("all", "all")
    if text.lower().startswith("env=!"):
        return Client("unless-env", text[5:])
    if text.lower().startswith("env="):
        return Client("env", text[4:])
    head, slash, _ = text.partition("/")
    if _LOOKS_LIKE_IP.fullmatch(head):
        return Client("ip", _network(text))
    if slash:
        raise ValueError(f"an IP address was expected before the slash, got {text!r}")
    return Client("host", text)


def parse_network(text: str) -> str:
    """The same where only addresses and networks are accepted (Require ip)."""
    found = parse_client(text)
    if found.kind != "ip":
        raise ValueError(f"must be an IP address or network, got {text!r}")
    return found.text


def _network(text: str) -> str:
    head, slash, mask = text.partition("/")
    if ":" not in head:
        # Apache reads the bytes as decimal numbers, leading zeros or not.
        head = re.sub(r"(?<!\d)0+(?=\d)", "", head)
        if slash and head.count(".") != 3:
            raise ValueError(f"a network with a mask must be a whole address, got {text!r}")
    spelled = head + slash + mask
    try:
        NetworkSet([spelled], strict=False, name="an address")
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return spelled
