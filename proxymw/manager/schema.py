"""What the JSON of the manager looks like, as JSON Schema."""

from __future__ import annotations

from typing import Any

from proxymw.rules.lbmethods import METHODS
from proxymw.state.table import CLASSES, REASONS

#: Fields that can be changed, and their names in ``BalancerPool.change`` and ``change_pool``.
MEMBER_CHANGES = {
    "state": "state",
    "weight": "loadfactor",
    "set": "lbset",
    "route": "route",
    "redirect": "redirect",
    "flags": "flags",
}
POOL_CHANGES = {name: name for name in ("method", "attempts", "timeout", "sticky", "nofailover")}

_STATES = ["ready", "drain", "disabled", "standby", "spare"]
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}


def _maybe(kind: dict[str, Any], about: str = "") -> dict[str, Any]:
    return {**kind, "type": [kind["type"], "null"], **({"description": about} if about else {})}


def _said(kind: dict[str, Any], about: str) -> dict[str, Any]:
    return {**kind, "description": about}


MEMBER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": _said(_TEXT, "stable: the normalised URL, or wsgi: and a name"),
        "name": _said(_TEXT, "the route where it is unique, else host and port"),
        "url": _TEXT,
        "href": _said(_TEXT, "relative to the pool"),
        "route": _TEXT,
        "redirect": _TEXT,
        "weight": {"type": "number", "minimum": 1, "maximum": 100},
        "set": {"type": "integer", "minimum": 0, "maximum": 99},
        "limit": _maybe(_COUNT, "requests in flight over all workers"),
        "asked": {"enum": [*_STATES, "removed"], "description": "what the operator asked for"},
        "flags": {"type": "array", "items": {"enum": ["ignore_errors", "stopped"]}},
        "health": {"enum": ["up", "down"], "description": "what was found out"},
        "reason": _TEXT,
        "since": _said(_NUMBER, "seconds since 1970"),
        "retry_in": _maybe(_NUMBER, "seconds until it is offered requests again"),
        "usable": {"type": "boolean"},
        "requests": _said(_COUNT, "times elected"),
        "in_flight": {"type": "integer"},
        "finished": _COUNT,
        "errors": _said(_COUNT, "failed exchanges"),
        "failures": {"type": "object", "properties": dict.fromkeys(REASONS, _COUNT)},
        "answers": {"type": "object", "properties": dict.fromkeys(CLASSES, _COUNT)},
        "sent": _said(_COUNT, "bytes to the member"),
        "received": _said(_COUNT, "bytes from the member"),
        "share": _said(_SHARE, "of the pool's answers in its window"),
        "wanted_share": _said(_SHARE, "what the weights ask for"),
        "p50": _maybe(_NUMBER, "seconds, in the window"),
        "p95": _maybe(_NUMBER, "seconds, in the window"),
        "last_change": _maybe(_NUMBER, "seconds since 1970"),
        "changed_by": _TEXT,
        "letters": _said(_TEXT, "status as Apache's balancer-manager shows it"),
    },
}
MEMBER["required"] = list(MEMBER["properties"])

POOL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "method": _said(_TEXT, f"one of {', '.join(METHODS)}, or the operator's own"),
        "sticky": _TEXT,
        "nofailover": {"type": "boolean"},
        "attempts": _COUNT,
        "timeout": _said(_NUMBER, "seconds to wait for a usable member"),
        "state": _said(_TEXT, "shared, local, or why it is not shared"),
        "workers": _COUNT,
        "usable": _said(_COUNT, "usable members"),
        "window": _said(_COUNT, "seconds that share, p50 and p95 are about"),
        "members": {"type": "array", "items": {"$ref": "#/$defs/member"}},
        "nonce": _said(_TEXT, "to be sent with changes as X-Proxymw-Nonce"),
    },
}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "proxymw balancer manager",
    "type": "object",
    "properties": {"pools": {"type": "array", "items": {"$ref": "#/$defs/pool"}}},
    "$defs": {
        "pool": POOL,
        "member": MEMBER,
        "member_change": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "state": {"enum": _STATES},
                **{name: MEMBER["properties"][name] for name in ("weight", "set", "route", "redirect")},
                "flags": {"type": "object", "additionalProperties": {"type": "boolean"}},
            },
        },
        "pool_change": {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: POOL["properties"][name] for name in POOL_CHANGES},
        },
        "problem": {
            "type": "object",
            "properties": {"type": _TEXT, "title": _TEXT, "status": _COUNT, "detail": _TEXT},
        },
    },
}
