"""``key=value`` parameters of ProxyPass, BalancerMember and ProxySet: what is accepted, and in which unit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Value = str | int | float | bool | tuple[int, ...] | None


def c_int(text: str) -> int:
    """C's atoi: leading blanks, a sign, digits; anything else counts as nothing."""
    match = re.match(r"\s*([+-]?\d+)", text)
    return int(match[1]) if match else 0


def seconds(text: str, unit: str = "s") -> float:
    """A time with one of Apache's units (ms, s, min, h); ``unit`` is meant where none is written."""
    match = re.fullmatch(r"\s*(\d+)\s*(ms|mi|min|s|h)?", text, re.I)
    if match is None:
        raise ValueError(f"must be a number with an optional ms, s, min or h, got {text!r}")
    factor = {"ms": 0.001, "s": 1.0, "mi": 60.0, "min": 60.0, "h": 3600.0}[(match[2] or unit).lower()]
    return int(match[1]) * factor


def switch(text: str) -> bool:
    """On or Off."""
    if text.lower() not in ("on", "off"):
        raise ValueError(f"must be On or Off, got {text!r}")
    return text.lower() == "on"


def _at_least(least: int, most: int | None = None) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        number = c_int(text)
        if number < least or (most is not None and number > most):
            wanted = f"at least {least}" if most is None else f"between {least} and {most}"
            raise ValueError(f"must be {wanted}, got {text!r}")
        return number

    return parse


def _time(unit: str) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        value = seconds(text, unit)
        if value < 0.001:
            raise ValueError(f"must be at least one millisecond, got {text!r}")
        return value

    return parse


def _factor(text: str) -> Value:
    match = re.match(r"\s*[+-]?\d*\.?\d*", text)
    try:
        hundredths = int(float(match[0]) * 100 + 1e-6) if match else 0
    except ValueError:
        hundredths = 0
    if not 100 <= hundredths <= 10000:
        raise ValueError(f"must be a number between 1 and 100, got {text!r}")
    return hundredths / 100


def _short(text: str) -> Value:
    if len(text) >= 64:
        raise ValueError(f"must be shorter than 64 characters, got {len(text)}")
    return text


def _size(text: str) -> Value:
    number = c_int(text)
    if number != 0 and number < 512:
        raise ValueError(f"must be 0 or at least 512 bytes, got {text!r}")
    return number


def _one_of(*words: str) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}, got {text!r}")
        return text

    return parse


def _status(text: str) -> Value:
    """Letters with ``+`` and ``-``, as (letter, on) in the end state."""
    if not re.fullmatch(r"[+\-DSIRHENCGUOFdsirhencguof]*", text):
        raise ValueError(f"must be made of the letters D S I R H E N C with + or -, got {text!r}")
    return text


def _codes(text: str) -> Value:
    codes = tuple(c_int(part) for part in text.split(","))
    if not all(100 <= code <= 599 for code in codes):
        raise ValueError(f"must be status codes separated by commas, got {text!r}")
    return codes


def _separator(text: str) -> Value:
    if text.lower() == "off":
        return ""
    if len(text) != 1:
        raise ValueError(f"must be a single character or Off, got {text!r}")
    return text


def _text(text: str) -> Value:
    return text


#: Parameters of one backend.
WORKER: dict[str, Callable[[str], Value]] = {
    "min": _at_least(0),
    "max": _at_least(0),
    "smax": _at_least(0),
    "ttl": _at_least(1),
    "acquire": _time("ms"),
    "connectiontimeout": _time("s"),
    "timeout": _at_least(1),
    "retry": _at_least(0),
    "disablereuse": switch,
    "enablereuse": switch,
    "keepalive": switch,
    "addressttl": _text,
    "iobuffersize": _size,
    "receivebuffersize": _size,
    "responsefieldsize": _at_least(1),
    "flushpackets": _one_of("on", "off", "auto"),
    "flushwait": _at_least(0, 1000),
    "ping": _time("s"),
    "upgrade": _text,
    "secret": _text,
    "flusher": _text,
    "hcmethod": _text,
    "hcinterval": _time("s"),
    "hcpasses": _at_least(1),
    "hcfails": _at_least(1),
    "hcuri": _short,
    "hcexpr": _text,
    "hctemplate": _text,
}

#: Parameters that only a member of a balancer has.
MEMBER: dict[str, Callable[[str], Value]] = {
    **WORKER,
    "loadfactor": _factor,
    "lbset": _at_least(0, 99),
    "route": _short,
    "redirect": _short,
    "status": _status,
}

BALANCER: dict[str, Callable[[str], Value]] = {
    "lbmethod": _one_of("byrequests", "bytraffic", "bybusyness"),
    "stickysession": _short,
    "stickysessionsep": _separator,
    "nofailover": switch,
    "timeout": _at_least(1),
    "maxattempts": _at_least(0),
    "failonstatus": _codes,
    "failontimeout": switch,
    "forcerecovery": switch,
    "nonce": _text,
    "growth": _at_least(1, 100),
    "scolonpathdelim": switch,
}


def parse(table: dict[str, Callable[[str], Value]], key: str, text: str) -> Value:
    """The value of a parameter; ValueError says ``key: what is wrong``."""
    parser = table.get(key.lower())
    if parser is None:
        raise ValueError(f"unknown parameter {key!r}, known are {', '.join(sorted(table))}")
    try:
        return parser(text)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from None
