"""The clocks and sizes of an exchange."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

from proxymw.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an exchange may take and how many connections it may use. None: as the transport has it.

    Seconds: ``connect`` to make a connection, its TLS handshake included; ``first_byte`` from the request's end to a
    whole response head, interim responses included, and for each pause of an origin in taking the request;
    ``between_bytes`` for each pause in a response's body; ``total`` for the whole exchange.

    Connections of this process to one origin: at most ``max``, waiting ``acquire`` seconds for one of them; ``ttl`` is
    how long an unused one is kept (``max``, ``acquire`` and ``ttl`` of Apache's BalancerMember, whose ``timeout`` and
    ``connectiontimeout`` are ``first_byte`` with ``between_bytes``, and ``connect``).
    """

    connect: float | None = None
    first_byte: float | None = None
    between_bytes: float | None = None
    total: float | None = None
    max: int | None = None
    acquire: float | None = None
    ttl: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int if field.name == "max" else (int, float)):
                raise ConfigError(f"{field.name} must be a number, got {value!r}")
            if not 0 <= value < float("inf") or (value == 0 and field.name not in ("acquire", "ttl")):
                raise ConfigError(f"{field.name} must be more than 0, got {value!r}")

    def over(self, other: Limits | None) -> Limits:
        """These limits, and where they say nothing those of ``other``."""
        return self if other is None or other is self else _over(self, other)


@lru_cache(maxsize=512)
def _over(upper: Limits, lower: Limits) -> Limits:
    said = {field.name: value for field in fields(upper) if (value := getattr(upper, field.name)) is not None}
    return replace(lower, **said)
