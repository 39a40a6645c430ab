"""What constructors ask of their options, each in one place and in one wording: ``name must be X, got Y``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..errors import ConfigError

_Kind = TypeVar("_Kind")


def application(app: Any, name: str = "app") -> Callable[..., Iterable[bytes]]:
    """A WSGI application, as far as anybody can tell before it is called."""
    if not callable(app):
        raise ConfigError(f"{name} must be a WSGI application, got {app!r}")
    return app  # type: ignore[no-any-return]


def instance(name: str, value: Any, kind: type[_Kind]) -> _Kind | None:
    """A value of ``kind``, or None."""
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{name} must be a {kind.__name__}, got {value!r}")
    return value


def listed(name: str, value: Any, what: str, kind: str = "list") -> list[Any]:
    """The items of a list of ``what``; one text is no list of texts, and neither are bytes or a mapping."""
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} must be a {kind} of {what}, got {value!r}")
    return list(value)


def text_pairs(name: str, value: Any, what: str) -> tuple[tuple[str, str], ...]:
    """The items of a list of pairs of texts."""
    found = listed(name, value, what)
    for item in found:
        if not (isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(part, str) for part in item)):
            raise ConfigError(f"{name} must be a list of {what}, got {item!r}")
    return tuple((first, second) for first, second in found)


def mapping(name: str, value: Any, what: str) -> Mapping[Any, Any]:
    """A mapping of ``what``, or none."""
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a mapping of {what}, got {value!r}")
    return value or {}


def flag(name: str, value: Any) -> bool:
    """True or False; a text such as "no" would be true."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r}")
    return value


def check_seconds(name: str, value: object, *, least: float = 0.0, optional: bool = True) -> float | None:
    """A time in seconds, or None where ``optional``; ConfigError below ``least`` or when it is not a number."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        raise ConfigError(f"{name} must be a number of seconds of at least {least:g}, got {value!r}")
    return float(value)


def check_count(name: str, value: object, *, least: int = 0, optional: bool = True) -> int | None:
    """A whole number, or None where ``optional``; ConfigError below ``least``."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value
