"""Apache's own balancer-manager page and XML, for what was written to read and drive them.

In the apache dialect a client that does not ask for ``text/html`` gets these instead of the page for people: the same
tables, links, forms and leniency as mod_proxy_balancer's, but for its dangers. The nonce is never part of a link (it
stands on the body element and in the forms), and a change needs all that the other page asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from proxymw.errors import ConfigError
from proxymw.manager.forms import Change, find_member
from proxymw.manager.security import nonce
from proxymw.manager.texts import size
from proxymw.rules.lbmethods import METHODS
from proxymw.rules.members import check_route
from proxymw.rules.sticky import as_sticky

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxymw.balancer import BalancerPool
    from proxymw.rules.members import Member, MemberView, PoolSnapshot

#: The methods that Apache has; others are listed where one is in use.
_METHODS = ("bybusyness", "byrequests", "bytraffic")
_STATUS = (
    ("w_status_I", "ignore_errors", "Ignore Errors"),
    ("w_status_N", "drain", "Draining Mode"),
    ("w_status_D", "disabled", "Disabled"),
    ("w_status_H", "standby", "Hot Standby"),
    ("w_status_R", "spare", "Hot Spare"),
    ("w_status_S", "stopped", "Stopped"),
)
#: What C's atof and atoi take of the front of a text.
_FLOAT = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_WHOLE = re.compile(r"\s*[+-]?\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shown:
    """One balancer of the page, with what its templates place."""

    shot: PoolSnapshot
    nonce: str
    path: str
    sticky: str
    room: int


def shown(pool: BalancerPool, path: str, room: int) -> Shown:
    shot = pool.snapshot()
    return Shown(shot, nonce(pool), path, " | ".join(shot.sticky.split("|")), max(room, len(shot.members)))


def methods(shot: PoolSnapshot) -> list[str]:
    return sorted({*_METHODS, shot.method})


def switches(view: MemberView) -> list[tuple[str, str, bool]]:
    """Apache's radio buttons for a member: field, heading, whether it is on."""
    on = {view.asked, *view.flags}
    return [(name, heading, flag in on) for name, flag, heading in _STATUS]


def traffic(number: int) -> str:
    return size(number)


def link(text: str) -> str:
    """A value in the query of a link, spelled as Apache does."""
    return quote(text, safe=":/@!$'()*,;=-._~")


# -- changes -----------------------------------------------------------------------------------------------------------


def changes_of(form: Mapping[str, str], shot: PoolSnapshot) -> list[Change]:
    """What Apache would do with these fields: each good value is taken, each bad one silently left."""
    result = []
    view = find_member(shot, form["w"]) if form.get("w") else None
    if view is not None:
        values = _member(form)
        if values:
            result.append(Change("members", (view.id,), values))
    values = _pool(form)
    if values:
        result.append(Change("pool", (), values))
    return result


def _member(form: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    factor = _number(_FLOAT, form.get("w_lf"), 1, 100)
    if factor is not None:
        values["loadfactor"] = factor
    lbset = _number(_WHOLE, form.get("w_ls"), 0, 99)
    if lbset is not None:
        values["lbset"] = int(lbset)
    for name, field in (("route", "w_wr"), ("redirect", "w_rr")):
        if field in form and _good(lambda text: check_route(text), form[field]):
            values[name] = form[field]
    flags = {flag: _number(_WHOLE, form[name], 1, 1e9) is not None for name, flag, _ in _STATUS if name in form}
    if flags:
        values["flags"] = flags
    return values


def _pool(form: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if form.get("b_lbm") in METHODS:
        values["method"] = form["b_lbm"]
    timeout = _number(_WHOLE, form.get("b_tmo"), 0, 7200)
    if timeout is not None:
        values["timeout"] = timeout
    attempts = _number(_WHOLE, form.get("b_max"), 0, 99)
    if attempts is not None:
        values["attempts"] = int(attempts)
    if "b_sforce" in form:
        values["nofailover"] = form["b_sforce"] not in ("", "0")
    name = form.get("b_ss", "")
    # Its own form shows "a | b"; Apache then takes the spaces for part of the names.
    wanted = "" if name == "-" else "|".join(part.strip() for part in name.split("|"))
    if name and _good(lambda text: as_sticky(text), wanted):
        values["sticky"] = wanted
    return values


def _number(kind: re.Pattern[str], text: str | None, least: float, most: float) -> float | None:
    found = kind.match(text or "")
    value = float(found[0]) if found else 0.0
    return value if text is not None and least <= value <= most else None


def _good(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except ConfigError:
        return False
    return True


# -- XML ---------------------------------------------------------------------------------------------------------------


def xml_rows(view: MemberView, member: Member | None) -> Sequence[tuple[str, object]]:
    """The elements of one worker, in Apache's order."""
    origin = member.origin if member is not None else None
    factor = f"{view.weight:.2f}"
    return (
        ("name", view.url),
        ("scheme", origin.scheme if origin else "wsgi"),
        ("hostname", origin.host if origin else ""),
        ("loadfactor", factor),
        ("port", origin.port if origin else 0),
        ("min", member.min or 0 if member else 0),
        ("smax", member.smax or 0 if member else 0),
        ("max", member.max or 0 if member else 0),
        ("ttl", f"{member.ttl or 0:g}" if member else 0),
        ("status", view.letters + " "),
        ("retries", view.retries),
        ("lbstatus", view.load),
        ("loadfactor", factor),
        ("transferred", view.sent),
        ("read", view.received),
        ("elected", view.requests),
        ("route", view.route),
        ("redirect", view.redirect),
        ("busy", view.in_flight),
        ("lbset", view.lbset),
    )
