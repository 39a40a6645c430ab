"""What the page shows, worked out from snapshots into plain text and numbers; templates only place it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from proxymw import __version__
from proxymw.manager import classic
from proxymw.manager.numbers import added, charts, percentile, share, svg_path, wanted_shares
from proxymw.manager.security import nonce
from proxymw.manager.texts import count, duration, event_text, milliseconds, plain_reason, rate, size
from proxymw.rules.lbmethods import METHODS
from proxymw.state.table import CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxymw.balancer import BalancerPool
    from proxymw.rules.members import MemberView


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
class Stroke:
    """A line of a chart as the path of an SVG."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart for browsers without JavaScript, and the size of its box for those with."""

    title: str
    unit: str
    top: str
    lines: tuple[Stroke, ...]


@dataclass(frozen=True, slots=True)
class PoolPart:
    """One pool as text."""

    key: str
    name: str
    nonce: str
    method: str
    methods: tuple[str, ...]
    attempts: int
    timeout: str
    sticky: str
    nofailover: bool
    facts: tuple[str, ...]
    usable: int
    tone: str
    window: str
    rows: tuple[Row, ...]
    charts: tuple[Drawing, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the templates place."""

    host: str
    writable: bool
    pools: tuple[PoolPart, ...]
    adding: bool
    tiles: tuple[Tile, ...]
    events: tuple[Said, ...]
    down: int
    facts: tuple[str, ...]
    refresh: int = 0
    pid: int = field(default_factory=os.getpid)
    states: tuple[Choice, ...] = STATES


@dataclass(frozen=True, slots=True)
class Said:
    """One event as text."""

    key: str
    stamp: str
    clock: str
    pool: str
    text: str
    tone: str


def build(
    pools: Sequence[BalancerPool], *, host: str, writable: bool, adding: bool, refresh: int = 0, drawn: bool = True
) -> Page:
    """The page of ``pools`` as they stand now; charts only where they are ``drawn``."""
    now = time.time()
    views = [_Numbers(pool) for pool in pools]
    parts = tuple(_pool(number, numbers, now, writable, drawn) for number, numbers in enumerate(views))
    return Page(
        host=host,
        writable=writable,
        adding=adding and writable,
        pools=parts,
        tiles=_tiles(views),
        events=_events(views),
        down=sum(view.health != "up" for numbers in views for view in numbers.shot.members),
        facts=_facts(views),
        refresh=refresh,
    )


class _Numbers:
    """What one pool counted, read once."""

    def __init__(self, pool: BalancerPool) -> None:
        self.pool = pool
        self.shot = pool.snapshot()
        self.seconds, self.lately = pool.lately(60)
        self.events = pool.events()
        self.names = short_names(self.shot.members)
        recent = pool.history(11, 1, ("requests",), each=False)
        # The newest sample stands for the second that has only begun.
        rates = recent["total"]["requests"]
        self.rate = sum(value for age, value in zip(recent["ages"], rates, strict=True) if age < 10) / 10

    @property
    def classes(self) -> list[int]:
        return added([classes for classes, _ in self.lately.values()], 5)

    @property
    def buckets(self) -> list[int]:
        return added([buckets for _, buckets in self.lately.values()], 1)


def short_names(members: Sequence[MemberView]) -> dict[str, str]:
    """A short name for each member: its route where no two are alike, else its address."""
    routes = [view.route for view in members]
    result = {}
    for view in members:
        own = view.route and routes.count(view.route) == 1
        result[view.id] = view.route if own else view.url.partition("://")[2] or view.url
    return result


def _facts(views: Sequence[_Numbers]) -> tuple[str, ...]:
    states = dict.fromkeys(numbers.shot.state for numbers in views)
    workers = max((numbers.shot.workers for numbers in views), default=0)
    where = {"shared": "one table shared by all workers", "local": "table of this one process"}
    shown = [f"{workers} worker{'' if workers == 1 else 's'}"] if workers else []
    return (*shown, *(where.get(state, state) for state in states))


def _tiles(views: Sequence[_Numbers]) -> tuple[Tile, ...]:
    members = [view for numbers in views for view in numbers.shot.members]
    usable = sum(view.usable for view in members)
    classes = added([numbers.classes for numbers in views], 5)
    answers = sum(classes)
    slow = percentile(added([numbers.buckets for numbers in views if sum(numbers.buckets)], 1), 0.95)
    failures = sum(view.errors for view in members)
    return (
        Tile("members usable", f"{usable}", f"of {len(members)}", _tone(usable, len(members))),
        Tile("requests", rate(sum(numbers.rate for numbers in views)), "/s"),
        Tile("answered 5xx", f"{100 * share(classes[4], answers):.1f}", "%", "bad" if classes[4] else ""),
        Tile("p95 response time", milliseconds(slow, unit=False), "" if slow is None else "ms"),
        Tile("in flight", count(sum(view.in_flight for view in members))),
        Tile("failed exchanges", count(failures), tone="warn" if failures else ""),
    )


def _tone(usable: int, members: int) -> str:
    return "" if usable == members else "warn" if usable else "bad"


def _pool(number: int, numbers: _Numbers, now: float, writable: bool, drawn: bool) -> PoolPart:
    shot, members = numbers.shot, numbers.shot.members
    usable = sum(view.usable for view in members)
    wanted = wanted_shares(members)
    # Shares of the last minute; of everything where the last minute was silent.
    recent = sum(numbers.classes)
    nothing: tuple[list[int], list[int]] = ([], [])
    got = {view.id: sum(numbers.lately.get(view.id, nothing)[0]) if recent else view.requests for view in members}
    total = sum(got.values())
    facts = [shot.method]
    if shot.sticky:
        facts.append(f"sticky {shot.sticky}" + (", no failover" if shot.nofailover else ""))
    facts.append(f"{shot.attempts} failover attempt{'' if shot.attempts == 1 else 's'}")
    if shot.timeout:
        facts.append(f"waits {shot.timeout:g} s for a member")
    return PoolPart(
        key=f"pool-{number}",
        name=shot.name,
        nonce=nonce(numbers.pool) if writable else "",
        method=shot.method,
        methods=tuple(dict.fromkeys((*METHODS, shot.method))),
        attempts=shot.attempts,
        timeout=f"{shot.timeout or 0:g}",
        sticky=shot.sticky,
        nofailover=shot.nofailover,
        facts=tuple(facts),
        usable=usable,
        tone=_tone(usable, len(members)),
        window=f"last {duration(numbers.seconds, most=1)}" if recent else "all",
        rows=tuple(
            _row(f"m-{number}-{place}", view, numbers, now, share(got[view.id], total), wanted[view.id], usable)
            for place, view in enumerate(members)
        ),
        charts=_charts(numbers) if drawn else (),
    )


def _row(key: str, view: MemberView, numbers: _Numbers, now: float, got: float, want: float, usable: int) -> Row:
    down = view.health != "up"
    notes = [f"redirects to {view.redirect}"] if view.redirect else []
    if view.limit is not None:
        notes.append(f"limit {view.limit}")
    buckets = numbers.lately[view.id][1] if view.id in numbers.lately else ()
    return Row(
        key=key,
        id=view.id,
        name=numbers.names[view.id],
        url=view.url,
        route=view.route,
        redirect=view.redirect,
        notes=tuple(notes),
        asked=view.asked,
        flags=tuple(_FLAG_WORDS.get(flag, flag) for flag in view.flags),
        health=view.health,
        reason=plain_reason(view.reason) if down else "",
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
        classes=tuple(
            (name, number, count(number)) for name, number in zip(CLASSES, view.classes, strict=True) if number
        ),
        errors=count(view.errors),
        p50=milliseconds(percentile(buckets, 0.5), unit=False),
        p95=milliseconds(percentile(buckets, 0.95), unit=False),
        sent=size(view.sent),
        received=size(view.received),
        changed=f"{duration(now - view.last_change, most=1)} ago" if view.last_change else "never",
        changed_by=view.changed_by,
    )


def _since(view: MemberView, now: float) -> str:
    text = f"for {duration(now - view.since)}" if view.since else ""
    if view.health != "up" and view.retry_in is not None:
        text += f", retry in {duration(view.retry_in)}" if view.retry_in >= 1 else ", tried with the next request"
    return text.removeprefix(", ")


def _charts(numbers: _Numbers) -> tuple[Drawing, ...]:
    result = []
    for chart in charts(numbers.pool, numbers.names):
        lines = tuple(Stroke(line.name, svg_path(line.values, chart.top)) for line in chart.lines)
        last = f"{chart.top:.0f}" if chart.top >= 10 else f"{chart.top:.1f}"
        result.append(Drawing(chart.title, chart.unit, last, lines))
    return tuple(result)


_TONES = {"member_up": "up", "member_error": "down", "member_ejected": "down", "pool_forced_back": "warn"}


def _events(views: Sequence[_Numbers], most: int = 40) -> tuple[Said, ...]:
    told = [(event, numbers) for numbers in views for event in numbers.events]
    told.sort(key=lambda item: item[0].get("time", 0), reverse=True)
    return tuple(_said(event, numbers) for event, numbers in told[:most])


def _said(event: Mapping[str, Any], numbers: _Numbers) -> Said:
    moment, kind = float(event.get("time", 0)), str(event.get("event", ""))
    member = str(event.get("member", ""))
    subject = numbers.names.get(member, member)
    return Said(
        key=f"event-{numbers.shot.name}-{event.get('seq', 0)}",
        stamp=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
        clock=time.strftime("%H:%M:%S", time.localtime(moment)),
        pool=numbers.shot.name,
        text=f"{subject} {event_text(event)}".strip(),
        tone=_TONES.get(kind, ""),
    )


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
        for helper in (classic.link, classic.methods, classic.switches, classic.traffic):
            self._environment.globals[helper.__name__] = helper

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        return self._environment.get_template(name).render(values)
