"""Numbers, times and events in the words that the page shows. Plain functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where nothing was measured.
NOTHING = "\u2013"


def count(number: int) -> str:
    """With thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def size(number: float) -> str:
    """Bytes in three or four characters, 1024-based as the balancer-manager shows them."""
    if number < 1024:
        return f"{number:.0f}"
    for unit in "KMGTP":
        number /= 1024
        if number < 1000 or unit == "P":
            break
    return f"{number:.1f}{unit}" if number < 10 else f"{number:.0f}{unit}"


def duration(seconds: float, *, most: int = 2) -> str:
    """The largest units of a time, ``most`` of them."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    for unit, per, small, per_small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= per:
            rest = whole % per // per_small
            return f"{whole // per} {unit}" + (f" {rest} {small}" if rest and most > 1 and whole < 10 * per else "")
    return f"{whole} s"


def milliseconds(seconds: float | None, *, unit: bool = True) -> str:
    """A time in milliseconds, or a dash where nothing was measured."""
    if seconds is None:
        return NOTHING
    number = seconds * 1000
    return (f"{number:.1f}" if number < 10 else f"{number:.0f}") + (" ms" if unit else "")


def rate(number: float) -> str:
    return f"{number:.1f}" if 0 < number < 10 else count(round(number))


_REASONS = {
    "upstream_refused": "connection refused",
    "upstream_connect_timeout": "no connection in time",
    "upstream_dns": "name not found",
    "upstream_tls": "TLS refused",
    "upstream_reset": "connection reset",
    "upstream_malformed": "malformed answer",
    "upstream_head_too_large": "answer head too large",
    "upstream_timeout": "no answer in time",
    "upstream_body_timeout": "body stalled",
    "upstream_truncated": "answer cut short",
}


def plain_reason(reason: str) -> str:
    """The name of an error in words."""
    head, mark, tail = reason.rpartition(": ")
    return head + mark + _REASONS.get(tail, tail)


def event_text(event: Mapping[str, Any]) -> str:
    """What an event says of its member or pool, in words."""
    kind = event.get("event")
    reason = plain_reason(str(event.get("reason", "")))
    if kind in ("member_error", "member_ejected"):
        verb = "is down" if kind == "member_error" else "is put aside"
        return f"{verb}: {reason}, retry after {float(event.get('seconds') or 0):g} s"
    if kind == "member_up":
        return f"is up again: {reason}"
    by = f", by {event['by']}" if event.get("by") else ""
    if kind == "member_added":
        return "was added" + by
    if kind == "member_removed":
        return "was removed" + by
    if kind == "pool_forced_back":
        return f"took all {event.get('members', '')} members back, since every one was in error"
    if kind in ("member_changed", "pool_changed"):
        return _changes(event) + by
    words = str(kind or "event").replace("_", " ")
    return words + (f": {reason}" if reason else "") + by


def _changes(event: Mapping[str, Any]) -> str:
    was = event.get("was") or {}
    told = []
    for name, value in event.items():
        if name in ("seq", "time", "event", "member", "by", "was") or (name not in was and name != "retry_now"):
            continue
        if name == "retry_now":
            told.append("is tried again")
        elif name == "flags":
            told.append(", ".join(f"{flag} {'on' if on else 'off'}" for flag, on in value.items()))
        else:
            told.append(f"{name} {was[name] or 'none'} to {value or 'none'}".replace("loadfactor", "weight"))
    return ", ".join(told) or "kept as it was"
