"""The JSON side of the manager: the same state and the same changes as the page, under ``api/v1/``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from proxymw import __version__
from proxymw.errors import ConfigError
from proxymw.manager.forms import bad, parse_fields, read_body
from proxymw.manager.numbers import WINDOW, as_series, charts, percentile, share, wanted_shares
from proxymw.manager.page import short_names
from proxymw.manager.schema import MEMBER_CHANGES, POOL_CHANGES, SCHEMA
from proxymw.manager.security import FORGED, Refused, actor, check_change, nonce
from proxymw.state.table import CLASSES

if TYPE_CHECKING:
    from proxymw.balancer import BalancerPool
    from proxymw.manager.app import BalancerManagerApp
    from proxymw.rules.members import MemberView

Environ = Mapping[str, Any]
#: Status, JSON value, further headers.
Reply = tuple[int, Any, tuple[tuple[str, str], ...]]

_TYPES = ("application/json", "application/merge-patch+json")


def respond(manager: BalancerManagerApp, environ: Environ, path: str) -> Reply:
    """Answer a request for ``path`` below ``api/v1``. Refused where it cannot be."""
    parts = [part for part in path.split("/") if part]
    method = "GET" if environ["REQUEST_METHOD"] == "HEAD" else environ["REQUEST_METHOD"]
    query = dict(parse_fields(environ.get("QUERY_STRING", "")))
    match parts:
        case []:
            return _only(method, {"GET": lambda: _index(manager)})
        case ["schema"]:
            return _only(method, {"GET": lambda: (200, SCHEMA, ())})
        case ["series"]:
            return _only(method, {"GET": lambda: _series(manager, query)})
        case ["events"]:
            return _only(method, {"GET": lambda: _events(manager, query)})
        case ["pools"]:
            return _only(method, {"GET": lambda: _tagged(environ, {"pools": _pools(manager, query)})})
        case ["pools", name]:
            pool = _pool(manager, name)
            return _only(
                method,
                {
                    "GET": lambda: _tagged(environ, describe(pool, _fields(query), secret=not manager.read_only)),
                    "PATCH": lambda: _change_pool(manager, environ, pool),
                },
            )
        case ["pools", name, "members"]:
            pool = _pool(manager, name)
            return _only(
                method,
                {
                    "GET": lambda: _tagged(environ, describe(pool, frozenset(("members",)), secret=False)),
                    "POST": lambda: _add(manager, environ, pool),
                },
            )
        case ["pools", name, "members", *rest] if rest:
            return _member_route(manager, environ, method, _pool(manager, name), rest)
    raise Refused(404, "mgr_not_found", "There is no such resource.")


def _member_route(
    manager: BalancerManagerApp, environ: Environ, method: str, pool: BalancerPool, rest: list[str]
) -> Reply:
    probe = rest[-1] == "probe"
    if probe and len(rest) > 1:
        rest = rest[:-1]
    view = _member(pool, "/".join(rest))
    if probe:
        return _only(method, {"POST": lambda: _retry(manager, environ, pool, view)})
    return _only(
        method,
        {
            "GET": lambda: _tagged(environ, member_json(view, *_context(pool, view))),
            "PATCH": lambda: _change_member(manager, environ, pool, view),
            "DELETE": lambda: _remove(manager, environ, pool, view),
        },
    )


def _only(method: str, handlers: Mapping[str, Callable[[], Reply]]) -> Reply:
    if method not in handlers:
        allow = ", ".join(("GET, HEAD" if name == "GET" else name) for name in handlers)
        raise Refused(405, "mgr_method", f"Only {allow} here.", (("Allow", allow),))
    return handlers[method]()


# -- what is told ------------------------------------------------------------------------------------------------------


def _index(manager: BalancerManagerApp) -> Reply:
    write = not manager.read_only
    return (
        200,
        {
            "version": __version__,
            "capabilities": {"write": write, "add_members": write and bool(manager.member_networks)},
            "links": {name: name for name in ("pools", "series", "events", "schema")},
        },
        (),
    )


def _pools(manager: BalancerManagerApp, query: Mapping[str, str]) -> list[dict[str, Any]]:
    return [describe(pool, _fields(query), secret=not manager.read_only) for pool in manager.pools]


def describe(pool: BalancerPool, fields: frozenset[str] = frozenset(), *, secret: bool) -> dict[str, Any]:
    """A pool as JSON; ``fields`` of it where any are named; with the nonce that changes need where it may be told."""
    shot = pool.snapshot()
    seconds, lately = pool.lately(60)
    wanted = wanted_shares(shot.members)
    names = short_names(shot.members)
    total = sum(sum(classes) for classes, _ in lately.values())
    told: dict[str, Any] = {
        "name": shot.name,
        "method": shot.method,
        "sticky": shot.sticky,
        "nofailover": shot.nofailover,
        "attempts": shot.attempts,
        "timeout": shot.timeout,
        "state": shot.state,
        "workers": shot.workers,
        "usable": sum(view.usable for view in shot.members),
        "window": seconds,
        "members": [
            member_json(view, names[view.id], wanted[view.id], *_recent(view, lately, total)) for view in shot.members
        ],
    }
    if secret:
        told["nonce"] = nonce(pool)
    return {name: value for name, value in told.items() if name in fields} if fields else told


def _recent(view: MemberView, lately: Mapping[str, tuple[list[int], list[int]]], total: int) -> tuple[float, list[int]]:
    classes, buckets = lately.get(view.id, ([], []))
    return share(sum(classes), total), buckets


def _context(pool: BalancerPool, view: MemberView) -> tuple[str, float, float, list[int]]:
    shot = pool.snapshot()
    _, lately = pool.lately(60)
    total = sum(sum(classes) for classes, _ in lately.values())
    return (
        short_names(shot.members).get(view.id, view.url),
        wanted_shares(shot.members).get(view.id, 0.0),
        *_recent(view, lately, total),
    )


def member_json(view: MemberView, name: str, wanted: float, got: float, buckets: list[int]) -> dict[str, Any]:
    """A member as JSON: what was asked and what is true apart, counters, and the last minute."""
    p50, p95 = percentile(buckets, 0.5), percentile(buckets, 0.95)
    return {
        "id": view.id,
        "name": name,
        "url": view.url,
        "href": f"members/{quote(name if '/' not in name else view.id, safe=':')}",
        "route": view.route,
        "redirect": view.redirect,
        "weight": view.weight,
        "set": view.lbset,
        "limit": view.limit,
        "asked": view.asked,
        "flags": list(view.flags),
        "health": view.health,
        "reason": view.reason,
        "since": round(view.since, 3),
        "retry_in": None if view.retry_in is None else round(view.retry_in, 1),
        "usable": view.usable,
        "requests": view.requests,
        "in_flight": view.in_flight,
        "finished": view.finished,
        "errors": view.errors,
        "failures": dict(view.failures),
        "answers": dict(zip(CLASSES, view.classes, strict=True)),
        "sent": view.sent,
        "received": view.received,
        "share": round(got, 4),
        "wanted_share": round(wanted, 4),
        "p50": None if p50 is None else round(p50, 5),
        "p95": None if p95 is None else round(p95, 5),
        "last_change": round(view.last_change, 3) or None,
        "changed_by": view.changed_by,
        "letters": view.letters,
    }


def _fields(query: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name for name in query.get("fields", "").split(",") if name)


def _series(manager: BalancerManagerApp, query: Mapping[str, str]) -> Reply:
    window = _within("window", query.get("window", str(WINDOW)), 60, WINDOW)
    step = _within("step", query.get("step", "5"), 1, 60)
    pools = []
    for pool in manager.pools:
        names = short_names(pool.snapshot().members)
        pools.append(as_series(pool.name, charts(pool, names, window=window, step=step)))
    return 200, {"now": round(time.time(), 3), "window": window, "step": step, "pools": pools}, ()


def _events(manager: BalancerManagerApp, query: Mapping[str, str]) -> Reply:
    since = query.get("since", "0")
    if not since.replace(".", "", 1).isascii() or not since.replace(".", "", 1).isdigit():
        raise bad("since must be a time in seconds.")
    told = [
        {"pool": pool.name, **event}
        for pool in manager.pools
        for event in pool.events()
        if event.get("time", 0) > float(since)
    ]
    told.sort(key=lambda event: event.get("time", 0))
    return 200, {"events": told}, ()


def _within(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
        raise bad(f"{name} must be a number from {least} to {most}.")
    return int(text)


# -- what is changed ---------------------------------------------------------------------------------------------------


def settings_tag(value: Mapping[str, Any]) -> str:
    """The entity tag of a pool or member: of what can be set, not of what is counted, so that it lasts."""
    lasting = {name: value[name] for name in _SETTINGS if name in value}
    if "pools" in value:
        lasting["pools"] = [settings_tag(pool) for pool in value["pools"]]
    if "members" in value:
        lasting["members"] = [settings_tag(member) for member in value["members"]]
    return f'"{hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:24]}"'


_SETTINGS = (
    *("id", "name", "method", "sticky", "nofailover", "attempts", "timeout"),
    *("route", "redirect", "weight", "set", "asked", "flags", "last_change"),
)


def _tagged(environ: Environ, value: dict[str, Any]) -> Reply:
    return 200, value, (("ETag", settings_tag(value)),)


def _allowed(manager: BalancerManagerApp, environ: Environ, pool: BalancerPool) -> None:
    if environ.get("CONTENT_LENGTH") not in (None, "", "0") or environ.get("wsgi.input_terminated"):
        kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind not in _TYPES:
            raise Refused(415, "mgr_bad_type", "Changes are sent as application/json.")
    try:
        check_change(environ, pool, environ.get("HTTP_X_PROXYMW_NONCE", ""))
    except Refused as refused:
        raise Refused(403, refused.event, FORGED + " Send the pool's nonce as X-Proxymw-Nonce.") from None
    if manager.read_only:
        raise Refused(403, "mgr_read_only", "This balancer manager is read-only.")


def _body(environ: Environ) -> dict[str, Any]:
    try:
        value = json.loads(read_body(environ) or b"{}")
    except (ValueError, RecursionError):
        raise bad("The body is not JSON.") from None
    if not isinstance(value, dict):
        raise bad("The body must be a JSON object.")
    return value


def _match(environ: Environ, current: Mapping[str, Any]) -> None:
    """If-Match (RFC 9110 13.1.1): 412 when somebody was faster."""
    wanted = environ.get("HTTP_IF_MATCH")
    if wanted is None or wanted.strip() == "*":
        return
    if settings_tag(current) not in [tag.strip() for tag in wanted.split(",")]:
        raise Refused(412, "mgr_lost_race", "It was changed meanwhile. Read it again.")


def _values(given: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise bad(f"Only {', '.join(known)} can be changed.")
    if not given:
        raise bad("The body asks for no change.")
    if None in given.values():
        raise bad("Values must not be null.")
    values = {known[name]: value for name, value in given.items()}
    if "flags" in values and not (
        isinstance(values["flags"], dict) and all(isinstance(on, bool) for on in values["flags"].values())
    ):
        raise bad("flags must be an object of true and false.")
    if "loadfactor" in values and isinstance(values["loadfactor"], bool):
        raise bad("weight must be a number.")
    return values


def _change_pool(manager: BalancerManagerApp, environ: Environ, pool: BalancerPool) -> Reply:
    _allowed(manager, environ, pool)
    _match(environ, describe(pool, secret=False))
    values = _values(_body(environ), POOL_CHANGES)
    _checked(lambda: pool.change_pool(by=actor(environ), **values))
    return _tagged(environ, describe(pool, secret=True))


def _change_member(manager: BalancerManagerApp, environ: Environ, pool: BalancerPool, view: MemberView) -> Reply:
    _allowed(manager, environ, pool)
    _match(environ, member_json(view, *_context(pool, view)))
    values = _values(_body(environ), MEMBER_CHANGES)
    _checked(lambda: pool.change(view.id, by=actor(environ), **values))
    return _told(environ, pool, view.id)


def _retry(manager: BalancerManagerApp, environ: Environ, pool: BalancerPool, view: MemberView) -> Reply:
    _allowed(manager, environ, pool)
    pool.change(view.id, by=actor(environ), retry_now=True)
    return _told(environ, pool, view.id)


def _add(manager: BalancerManagerApp, environ: Environ, pool: BalancerPool) -> Reply:
    _allowed(manager, environ, pool)
    given = _body(environ)
    known = {"url": "target", "weight": "loadfactor", "set": "lbset", "route": "route", "redirect": "redirect"}
    values = _values({name: value for name, value in given.items() if name != "state"}, known)
    if not isinstance(values.get("target"), str):
        raise bad("url must be a text.")
    state = given.get("state", "disabled")
    member = _checked(lambda: manager.new_member(**values))
    _checked(lambda: pool.add(member, by=actor(environ), state=state))
    return 201, *_told(environ, pool, member.id)[1:]


def _remove(manager: BalancerManagerApp, environ: Environ, pool: BalancerPool, view: MemberView) -> Reply:
    _allowed(manager, environ, pool)
    _match(environ, member_json(view, *_context(pool, view)))
    manager.remove_member(pool, view.id, by=actor(environ))
    return 204, None, ()


def _told(environ: Environ, pool: BalancerPool, member: str) -> Reply:
    view = _member(pool, member)
    return _tagged(environ, member_json(view, *_context(pool, view)))


def _checked(do: Callable[[], Any]) -> Any:
    try:
        return do()
    except (ConfigError, TypeError) as error:
        raise bad(str(error)) from None


def _pool(manager: BalancerManagerApp, name: str) -> BalancerPool:
    for pool in manager.pools:
        if pool.name == name:
            return pool
    raise Refused(404, "mgr_not_found", "There is no such pool.")


def _member(pool: BalancerPool, text: str) -> MemberView:
    """A member by its id or URL, encoded once in one segment of the path, or by its short name."""
    members = pool.snapshot().members
    names = short_names(members)
    for view in members:
        if text in (view.id, view.url, names[view.id]) or _flat(view.id) == _flat(text):
            return view
    raise Refused(404, "mgr_not_found", "The pool has no such member.")


def _flat(text: str) -> str:
    """Servers and proxies may merge the slashes of an encoded URL: ``http:/host``."""
    return text.replace("//", "/")
