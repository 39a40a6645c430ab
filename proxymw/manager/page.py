"""What the page shows, worked out from snapshots into plain text and numbers; templates only place it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from proxymw import __version__
from proxymw.manager.security import nonce
from proxymw.rules.lbmethods import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxymw.balancer import BalancerPool
    from proxymw.rules.members import MemberView, PoolSnapshot


@dataclass(frozen=True, slots=True)
class Choice:
    """A state that can be asked for."""

    name: str
    label: str
    title: str


STATES = (
    Choice("ready", "Ready", "Takes its share of the requests"),
    Choice("drain", "Drain", "Keeps its sticky sessions, takes nobody new"),
    Choice("disabled", "Disable", "Takes no request at all"),
    Choice("standby", "Standby", "Takes over when no other member is usable"),
    Choice("spare", "Spare", "Stands in for a member that is not usable"),
)

#: Where nothing was measured.
NOTHING = "\u2013"

_FLAG_WORDS = {"ignore_errors": "ignores errors", "stopped": "stopped"}


@dataclass(frozen=True, slots=True)
class Tile:
    label: str
    value: str
    unit: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One member as text."""

    key: str
    id: str
    name: str
    url: str
    route: str
    redirect: str
    notes: tuple[str, ...]
    asked: str
    flags: tuple[str, ...]
    health: str
    reason: str
    since: str
    letters: str
    tone: str
    retryable: bool
    last_usable: bool
    weight: str
    lbset: int
    in_flight: str
    requests: str
    share: str
    share_text: str
    want_x: str
    want_text: str
    classes: tuple[tuple[str, int, str], ...]
    errors: str
    p50: str
    p95: str
    sent: str
    received: str
    changed: str
    changed_by: str


@dataclass(frozen=True, slots=True)
class PoolPart:
    """One pool as text."""

    key: str
    name: str
    nonce: str
    method: str
    attempts: int
    timeout: str
    facts: tuple[str, ...]
    usable: int
    tone: str
    window: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the templates place."""

    host: str
    writable: bool
    pools: tuple[PoolPart, ...]
    tiles: tuple[Tile, ...]
    down: int
    persistence: str
    refresh: int = 0
    pid: int = field(default_factory=os.getpid)
    states: tuple[Choice, ...] = STATES
    methods: tuple[str, ...] = tuple(METHODS)


def build(pools: Sequence[BalancerPool], *, host: str, writable: bool, refresh: int = 0) -> Page:
    """The page of ``pools`` as they stand now."""
    now = time.time()
    snapshots = [pool.snapshot() for pool in pools]
    parts = tuple(
        _pool(number, pool, snapshot, now, writable)
        for number, (pool, snapshot) in enumerate(zip(pools, snapshots, strict=True))
    )
    members = [view for snapshot in snapshots for view in snapshot.members]
    return Page(
        host=host,
        writable=writable,
        pools=parts,
        tiles=_tiles(members),
        down=sum(view.health != "up" for view in members),
        persistence="Changes are kept until the last worker stops.",
        refresh=refresh,
    )


def _tiles(members: Sequence[MemberView]) -> tuple[Tile, ...]:
    usable = sum(view.usable for view in members)
    tone = "" if usable == len(members) else "warn" if usable else "bad"
    errors = sum(view.errors for view in members)
    return (
        Tile("members usable", f"{usable}", f"of {len(members)}", tone),
        Tile("requests", count(sum(view.requests for view in members))),
        Tile("in flight", count(sum(view.in_flight for view in members))),
        Tile("failed exchanges", count(errors), tone="bad" if errors else ""),
    )


def _pool(number: int, pool: BalancerPool, snapshot: PoolSnapshot, now: float, writable: bool) -> PoolPart:
    members = snapshot.members
    usable = sum(view.usable for view in members)
    wanted = wanted_shares(members)
    total = sum(view.requests for view in members)
    facts = [snapshot.method]
    if snapshot.sticky:
        facts.append(f"sticky {snapshot.sticky}" + (", no failover" if snapshot.nofailover else ""))
    facts.append(f"{snapshot.attempts} failover attempt{'' if snapshot.attempts == 1 else 's'}")
    if snapshot.timeout:
        facts.append(f"waits {snapshot.timeout:g} s for a member")
    return PoolPart(
        key=f"pool-{number}",
        name=snapshot.name,
        nonce=nonce(pool) if writable else "",
        method=snapshot.method,
        attempts=snapshot.attempts,
        timeout=f"{snapshot.timeout or 0:g}",
        facts=tuple(facts),
        usable=usable,
        tone="" if usable == len(members) else "warn" if usable else "bad",
        window="all requests",
        rows=tuple(
            _row(f"m-{number}-{place}", view, now, share(view.requests, total), wanted[view.id], usable)
            for place, view in enumerate(members)
        ),
    )


def _row(key: str, view: MemberView, now: float, got: float, want: float, usable: int) -> Row:
    down = view.health != "up"
    name = view.route or view.url.partition("://")[2] or view.url
    notes = [f"redirect {view.redirect}"] if view.redirect else []
    if view.limit is not None:
        notes.append(f"limit {view.limit}")
    return Row(
        key=key,
        id=view.id,
        name=name,
        url=view.url,
        route=view.route,
        redirect=view.redirect,
        notes=tuple(notes),
        asked=view.asked,
        flags=tuple(_FLAG_WORDS.get(flag, flag) for flag in view.flags),
        health=view.health,
        reason=view.reason if down else "",
        since=_since(view, now),
        letters=view.letters,
        tone="down" if down else "" if view.usable and view.asked == "ready" else "idle",
        retryable=down,
        last_usable=view.usable and usable == 1,
        weight=f"{view.weight:g}",
        lbset=view.lbset,
        in_flight=count(view.in_flight),
        requests=count(view.requests),
        share=f"{100 * got:.1f}",
        share_text=f"{100 * got:.1f}%",
        want_x=f"{min(98.5, 100 * want):.1f}",
        want_text=f"{100 * want:.0f}%",
        classes=(),
        errors=count(view.errors),
        p50=milliseconds(view.latency),
        p95=milliseconds(view.latency),
        sent=size(view.sent),
        received=size(view.received),
        changed=f"{duration(now - view.last_change)} ago" if view.last_change else "never",
        changed_by=view.changed_by,
    )


def _since(view: MemberView, now: float) -> str:
    text = f"for {duration(now - view.since)}" if view.since else ""
    if view.health != "up" and view.retry_in is not None:
        text += f", retry in {duration(view.retry_in)}" if view.retry_in > 0 else ", next request tries it"
    return text.lstrip(", ")


def wanted_shares(members: Sequence[MemberView]) -> dict[str, float]:
    """The share of the requests that each member's weight asks for, among those that are elected from now."""
    ready = [view for view in members if view.usable and view.asked == "ready"]
    lowest = min((view.lbset for view in ready), default=0)
    electable = {view.id: view.weight for view in ready if view.lbset == lowest}
    total = sum(electable.values())
    return {view.id: share(electable.get(view.id, 0), total) for view in members}


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


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


def duration(seconds: float) -> str:
    """The two largest units of a time."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    for unit, per, small, per_small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= per:
            rest = whole % per // per_small
            return f"{whole // per} {unit}" + (f" {rest} {small}" if rest and whole < 10 * per else "")
    return f"{whole} s"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds with a unit, or a dash where nothing was measured."""
    if seconds <= 0:
        return NOTHING
    number = seconds * 1000
    return f"{number:.1f} ms" if number < 10 else f"{number:.0f} ms" if number < 10_000 else f"{seconds:.0f} s"


class Templates:
    """The package's templates: everything that is placed is escaped, and a name that is missing is an error."""

    def __init__(self, stamp: str) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals |= {"stamp": stamp, "version": __version__}

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        return self._environment.get_template(name).render(values)
